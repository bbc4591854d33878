"""The C file for a cell: its step over all time steps, forward and back, and how the arrays lie that it works on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch.fx import Node

from rnnstudy.engines.step_prelude import PRELUDE
from rnnstudy.engines.step_rows import CHEAP, SAME, VIEWS, Row, RowGraph, Value, contiguous, name_of
from rnnstudy.engines.step_source import Constants, Place, Program, padded
from rnnstudy.engines.step_trace import TracedStep, is_item


@dataclass(frozen=True)
class Segment:
    """Where some numbers of a row lie: `size` numbers from `offset` on."""

    offset: int
    size: int


class Layout:
    """Segments of a row, each padded to whole vectors."""

    def __init__(self) -> None:
        self.size = 0

    def add(self, size: int) -> Segment:
        found = Segment(self.size, size)
        self.size += padded(size)
        return found


@dataclass
class StepKernels:
    """The source of a cell's kernels and what they take.

    Attributes:
        text: the C file.
        step: the traced step.
        constants: what the kernels take beside arrays of rows.
        given: numbers of a row of p_t, with the padding.
        kept: numbers of a row that the forward pass keeps, states first; `written`: that the backward pass writes.
        states: segments of the states among the kept numbers.
        sources: for each node whose rows the parameters' gradients are summed from, the array and segment it lies in:
            "before" (kept a step earlier), "kept", "projected", or "written".
        at_projected: the segment of dL/dp_t among the written numbers; None where it is zero.
    """

    step: TracedStep
    output: str
    text: str = ""
    constants: Constants = field(default_factory=Constants)
    given: int = 0
    kept: int = 0
    written: int = 0
    states: dict[str, Segment] = field(default_factory=dict)
    sources: dict[Node, tuple[str, Segment]] = field(default_factory=dict)
    at_projected: Segment | None = None


def step_kernels(step: TracedStep, output: str) -> StepKernels:
    """The kernels of a traced step whose output state is `output`. Raises `UntraceableError` where there is no code."""
    return _Assembly(step, output).kernels


class _Assembly:
    def __init__(self, step: TracedStep, output: str) -> None:
        self.step, self.graph = step, RowGraph(step)
        self.kernels = StepKernels(step, output)
        self.gates = step.projected.meta["val"].shape[-1]
        self._memo: dict[int, bool] = {}
        kept, written, carried = Layout(), Layout(), Layout()
        self.kernels.states = {name: kept.add(_size(node, self.step.batch)) for name, node in step.before.items()}
        self.carried = {name: carried.add(_size(node, self.step.batch)) for name, node in step.arriving.items()}
        self.saved: dict[int, tuple[Value, Segment]] = {}
        self.out: dict[int, tuple[Row, Segment]] = {}
        self._after = {id(row.source): name for name, row in self._after_rows().items() if _is_whole(row)}
        self._choose_sources(kept, written)
        self._choose_saved(kept)
        self.kernels.given, self.kernels.kept, self.kernels.written = padded(self.gates), kept.size, written.size
        self.strides = {
            "prev": str(kept.size), "now": str(kept.size), "p": str(padded(self.gates)), "w": "SCRATCH",
            "cur": str(carried.size), "nxt": str(carried.size), "out": str(written.size),
        }  # fmt: skip
        forward, scratch_forward = self._forward()
        backward, scratch_backward, totals = self._backward()
        self.kernels.text = PRELUDE + _FORWARD.format(
            constants=self._constant_pointers(), scratch=scratch_forward, kept=kept.size, gates=padded(self.gates),
            body=forward, output=self.kernels.states[output].offset, width=self.kernels.states[output].size,
        ) + _BACKWARD.format(
            constants=self._constant_pointers(), scratch=scratch_backward, kept=kept.size, gates=padded(self.gates),
            written=written.size, carried=carried.size, body=backward,
            output=self.carried[output].offset, width=self.carried[output].size,
            squares=" + ".join(f"sum_of_squares(cur + {one.offset}, {one.size})" for one in self.carried.values()),
            largest=_nested("fmaxf", [f"largest(cur + {one.offset}, {one.size})" for one in self.carried.values()]),
            norms="\n".join(_NORM.format(state=i, total=text, size=one.size) for i, (text, one) in enumerate(
                zip(totals, self.carried.values(), strict=True))),
        )  # fmt: skip

    def _after_rows(self) -> dict[str, Row]:
        return {name: self._row(node) for name, node in self.step.after.items()}

    def _row(self, node: Node) -> Row:
        """A result as a row; also one that is a constant, or the same for all sequences."""
        return self.graph.result(node)

    def _constant_pointers(self) -> str:
        count = len(self.kernels.constants.items)
        return "\n".join(f"const float *c{i} = constants[{i}]; (void)c{i};" for i in range(count))

    # What is kept, and what is written.

    def _choose_sources(self, kept: Layout, written: Layout) -> None:
        """The rows that the parameters' gradients are summed from, and dL/dp_t."""
        step = self.step
        for node in self._sum_sources():
            if node in step.before.values():
                name = next(name for name, one in step.before.items() if one is node)
                self.kernels.sources[node] = ("before", self.kernels.states[name])
            elif node is step.projected:
                self.kernels.sources[node] = ("projected", Segment(0, self.gates))
            elif node in step.of_gradient:
                self.kernels.sources[node] = ("written", self._write(self._row(node), _size(node, self.step.batch), written))
            else:
                row = self._row(node)
                if not _is_whole(row):
                    value = Value("copy", row.operand().shape, [row.operand()])
                else:
                    assert isinstance(row.source, Value)
                    value = row.source
                self.kernels.sources[node] = ("kept", self._save(value, kept))
        if step.at_projected is not None:
            size = _size(step.at_projected, step.batch)
            self.kernels.at_projected = self._write(self._row(step.at_projected), size, written)

    def _sum_sources(self) -> list[Node]:
        """The rows that sums over sequences begin with, without the views of them."""
        found: dict[Node, None] = {}
        seen: set[Node] = set()

        def visit(node: Node) -> None:
            if node in seen or self.step.kinds[node] == "CONSTANT":
                return
            seen.add(node)
            views = (*VIEWS, *SAME)
            if self.step.kinds[node] == "ROW" and not (name_of(node) in views or is_item(node)):
                found[node] = None
                return
            for below in node.all_input_nodes:
                visit(below)

        for node in self.step.at_parameters.values():
            if node is not None:
                visit(node)
        return list(found)

    def _write(self, row: Row, size: int, written: Layout) -> Segment:
        key = id(row.source)
        if not _is_whole(row) or key not in self.out:
            key = key if _is_whole(row) else id(row)
            self.out[key] = (row, written.add(size))
        return self.out[key][1]

    def _save(self, value: Value, kept: Layout) -> Segment:
        if id(value) in self._after:
            return self.kernels.states[self._after[id(value)]]
        if id(value) not in self.saved:
            self.saved[id(value)] = (value, kept.add(value.size))
        return self.saved[id(value)][1]

    def _choose_saved(self, kept: Layout) -> None:
        """What the backward pass reads of the forward pass: all that is not computed again sooner than read."""
        seen: set[int] = set()

        def visit(value: Value) -> None:
            if id(value) in seen or value.operation == "input" or id(value) in self._after:
                return
            seen.add(id(value))
            again = value.operation in CHEAP or value.operation == "joined"
            if not self._of_gradient(value) and not again:
                self._save(value, kept)
                return
            if id(value) in self.saved:
                return
            for operand in value.operands:
                if isinstance(operand.source, Value):
                    visit(operand.source)

        for row in self._results_of_backward():
            if isinstance(row.source, Value):
                visit(row.source)

    def _results_of_backward(self) -> list[Row]:
        step = self.step
        nodes = [*step.at_before.values(), *step.totals.values()]
        return [*(self._row(node) for node in nodes if node is not None), *(row for row, _ in self.out.values())]

    def _of_gradient(self, value: Value) -> bool:
        if id(value) not in self._memo:
            below = [one.source for one in value.operands if isinstance(one.source, Value)]
            self._memo[id(value)] = value.name.startswith("arriving ") or any(map(self._of_gradient, below))
        return self._memo[id(value)]

    # The two programs.

    def _known(self, states: str) -> dict[int, Place]:
        """Where the inputs of the forward step lie."""
        found = {}
        for name, node in self.step.before.items():
            segment = self.kernels.states[name]
            found[id(self._row(node).source)] = Place(states, segment.offset, padded(segment.size))
        found[id(self._row(self.step.projected).source)] = Place("p", 0, padded(self.gates))
        return found

    def _forward(self) -> tuple[str, int]:
        program = Program(self._known("prev"), self.kernels.constants, self.strides)
        for name, row in self._after_rows().items():
            segment = self.kernels.states[name]
            program.compute(row, Place("now", segment.offset, padded(segment.size)))
        for value, segment in self.saved.values():
            place = Place("now", segment.offset, padded(segment.size))
            program.compute(whole_row(value), place)
        return program.code(), program.scratch

    def _backward(self) -> tuple[str, int, list[str]]:
        """The code, the scratch numbers that it needs, and for each state where its total derivative lies, in C."""
        known = self._known("prev")
        for name, row in self._after_rows().items():
            # A state that is passed on as it came is known by its place a step earlier already.
            if _is_whole(row) and id(row.source) not in known:
                segment = self.kernels.states[name]
                known[id(row.source)] = Place("now", segment.offset, padded(segment.size))
        for value, segment in self.saved.values():
            known[id(value)] = Place("now", segment.offset, padded(segment.size))
        for name, node in self.step.arriving.items():
            segment = self.carried[name]
            known[id(self._row(node).source)] = Place("cur", segment.offset, padded(segment.size))
        program = Program(known, self.kernels.constants, self.strides)
        for name, node in self.step.at_before.items():
            segment = self.carried[name]
            row = blank_row(segment.size) if node is None else self._row(node)
            program.compute(row, Place("nxt", segment.offset, padded(segment.size)))
        for row, segment in self.out.values():
            program.compute(row, Place("out", segment.offset, padded(segment.size)))
        totals = []
        for node in self.step.totals.values():
            row = None if node is None else self._row(node)
            place = None if row is None or not _is_whole(row) else known.get(id(row.source))
            if place is None:
                size = 0 if row is None else _size(node, self.step.batch)
                place = Place("w", program.scratch, padded(size))
                program.scratch += padded(size)
                if row is not None:
                    program.compute(row, place)
            totals.append(f"{place.array}_rows + b * {self.strides[place.array]} + {place.offset}" if row else "")
        return program.code(), program.scratch, totals


def whole_row(value: Value) -> Row:
    """All of a value, as a row of a batch."""
    return Row(value, 0, (1, *value.shape), (0, *contiguous(value.shape)), 0)


def blank_row(size: int) -> Row:
    """Zeros."""
    return Row(0.0, 0, (1, size), (0, 0), 0)


def _size(node: Node, batch: int) -> int:
    """Numbers of each sequence."""
    value = node.meta["val"]
    return value.numel() // batch


def _is_whole(row: Row) -> bool:
    return isinstance(row.source, Value) and row.operand().whole(row.source.shape)


def _nested(function: str, arguments: Sequence[str]) -> str:
    """f(f(a, b), c)."""
    found = arguments[0]
    for one in arguments[1:]:
        found = f"{function}({found}, {one})"
    return found


_FORWARD = """
int forward(long steps, long batch, long first, long last, long keep, float *projected,
            const float *const *constants, float *saved, const int32_t *slots, float *outputs) {{
  enum {{ SCRATCH = {scratch}, KEPT = {kept} }};
  long rows = last - first;
  float *w_rows = calloc(rows * SCRATCH + 1, sizeof(float));
  if (!w_rows) return 1;
  {constants}
  memset(saved + first * KEPT, 0, rows * KEPT * sizeof(float));
  for (long t = 0; t < steps; t++) {{
    float *prev_rows = saved + ((keep ? t : t & 1) * batch + first) * KEPT;
    float *now_rows = saved + ((keep ? t + 1 : (t + 1) & 1) * batch + first) * KEPT;
    float *p_rows = projected + (t * batch + first) * {gates};
    (void)prev_rows; (void)p_rows;
{body}
    if (slots[t] >= 0)
      for (long b = 0; b < rows; b++)
        memcpy(outputs + (slots[t] * batch + first + b) * {width}, now_rows + b * KEPT + {output},
               {width} * sizeof(float));
  }}
  free(w_rows);
  return 0;
}}
"""

_BACKWARD = """
int backward(long steps, long batch, long first, long last, long observed, float *projected,
             const float *const *constants, float *saved, const float *direct, const int32_t *slots, float *written,
             int32_t *exponents, float *squares, int32_t *square_exponents) {{
  enum {{ SCRATCH = {scratch}, KEPT = {kept}, WRITTEN = {written}, CARRIED = {carried} }};
  long rows = last - first;
  float *w_rows = calloc(rows * SCRATCH + 1, sizeof(float));
  float *cur_rows = calloc(rows * CARRIED, sizeof(float)), *nxt_rows = calloc(rows * CARRIED, sizeof(float));
  int32_t *own = malloc(rows * sizeof(int32_t));
  if (!w_rows || !cur_rows || !nxt_rows || !own) {{ free(w_rows); free(cur_rows); free(nxt_rows); free(own); return 1; }}
  {constants}
  for (long b = 0; b < rows; b++) own[b] = ZERO_EXPONENT;
  for (long t = steps - 1; t >= 0; t--) {{
    float *prev_rows = saved + (t * batch + first) * KEPT, *now_rows = saved + ((t + 1) * batch + first) * KEPT;
    float *p_rows = projected + (t * batch + first) * {gates}, *out_rows = written + (t * batch + first) * WRITTEN;
    (void)prev_rows; (void)now_rows; (void)p_rows; (void)out_rows;
    for (long b = 0; b < rows; b++) {{
      float *cur = cur_rows + b * CARRIED;
      if (slots[t] >= 0)
        add_to_row(cur, CARRIED, own + b, {output}, direct + (slots[t] * batch + first + b) * {width}, {width});
      if (!in_range({squares})) {{
        float most = {largest};
        if (most == 0) own[b] = ZERO_EXPONENT;
        else if (most < INFINITY) {{
          int32_t n = exponent_of(most);
          scale(cur, CARRIED, -n);
          own[b] += n;
        }}
      }}
      exponents[t * batch + first + b] = own[b];
    }}
{body}
    if (observed)
      for (long b = 0; b < rows; b++) {{
        long at = t * batch + first + b;
        int32_t n;
        (void)n;
{norms}
      }}
    float *swap = cur_rows;
    cur_rows = nxt_rows;
    nxt_rows = swap;
  }}
  free(w_rows); free(cur_rows); free(nxt_rows); free(own);
  return 0;
}}
"""

_NORM = """        squares[{state} * steps * batch + at] = squares_and_exponent({total}, {size}, &n);
        square_exponents[{state} * steps * batch + at] = own[b] + n;"""

