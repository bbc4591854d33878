"""The specification of one training run: task, cell, training and probes. Its hash is the key of the run."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any

from rnnstudy.cells.block import Block
from rnnstudy.cells.cell import Cell, require_repeatable
from rnnstudy.cells.initialisation import Initialisation, PyTorchDefault
from rnnstudy.engines.engine import Need
from rnnstudy.errors import SpecError
from rnnstudy.optimisers.adam import Adam
from rnnstudy.optimisers.clipping import Clip, ClipNorm
from rnnstudy.optimisers.constant_norm import ConstantNorm
from rnnstudy.optimisers.gradient_cut import GradientCut
from rnnstudy.optimisers.h_detach import HDetach
from rnnstudy.optimisers.omega import Omega
from rnnstudy.optimisers.optimiser import Optimiser
from rnnstudy.optimisers.schedule import Constant, RateSchedule
from rnnstudy.optimisers.truncation import Truncation
from rnnstudy.optimisers.weight_decay import WeightDecay
from rnnstudy.probes.gradient_through_time import GradientThroughTime
from rnnstudy.probes.parameter_gradients import ParameterGradients
from rnnstudy.probes.probe import Probe
from rnnstudy.spec import (
    LOCATION,
    NOT_IDENTITY,
    PER_REPLICA,
    Spec,
    above,
    at_least,
    between,
    canonical,
    digest,
    flatten,
)
from rnnstudy.tasks.task import Task, supervision


class Training(Spec):
    """How a run is trained and evaluated.

    Fields:
        steps: the most updates made.
        batch: sequences in each update.
        learning_rate: size of a step.
        optimiser: the update rule.
        clip: gradient clipping, or None.
        schedule: the factor of the learning rate at each update.
        weight_decay: decoupled weight decay, or None.
        omega: Pascanu's regulariser, or None.
        truncation: truncated backpropagation, or None for the whole sequence.
        h_detach: h-detach, or None.
        constant_norm: restore the norm of the gradient at each step back, or None.
        check_every: updates between two validation checks.
        stop_when_solved: end after two validation checks in a row that meet the task's criterion.
        validation_sequences: fixed sequences of the validation checks.
        test_sequences: fresh sequences that decide, once, at the end, whether the run has `solved` its task.
        other_lengths: further lengths T at which the trained network is evaluated (length generalisation).
    """

    steps: Annotated[int, between(1, 10**8)] = 1000
    batch: Annotated[int, at_least(1)] = 20
    learning_rate: Annotated[float, above(0), PER_REPLICA] = 1e-3
    optimiser: Optimiser = Adam()
    clip: Clip | None = ClipNorm()
    check_every: Annotated[int, at_least(1)] = 100
    stop_when_solved: bool = True
    validation_sequences: Annotated[int, at_least(1)] = 1000
    test_sequences: Annotated[int, at_least(1)] = 10_000
    other_lengths: tuple[Annotated[int, at_least(1)], ...] = ()
    schedule: RateSchedule = Constant()
    weight_decay: WeightDecay | None = None
    omega: Omega | None = None
    truncation: Truncation | None = None
    h_detach: HDetach | None = None
    constant_norm: ConstantNorm | None = None

    def check(self) -> None:
        self.schedule.check_compatible(self.steps)
        if self.constant_norm is not None and self.omega is not None:
            raise SpecError(
                "omega measures how the gradient's norm changes, which constant_norm undoes; use one of them"
            )

    @property
    def cuts(self) -> tuple[GradientCut, ...]:
        """The chosen methods that cut the gradient through time."""
        return tuple(cut for cut in (self.truncation, self.h_detach) if cut is not None)

    @property
    def needs(self) -> frozenset[Need]:
        """What these methods require of an engine."""
        needs: set[Need] = set()
        if self.cuts:
            needs.add("cuts")
        if self.omega is not None:
            needs.add("states and their gradients")
        if self.constant_norm is not None:
            needs.add("constant norm")
        return frozenset(needs)


class Run(Spec):
    """One training run.

    Fields:
        task: what is to be learned.
        cell: the recurrence.
        layers: number of layers on top of each other.
        block: what stands around the recurrence of each layer, or None for the recurrence alone.
        bidirectional: whether each layer also has a recurrence that reads the sequences from their last supervised step
            to their first one; for tasks supervised at the last step alone, or from the first step on. Where the target
            is the next input (Reber), the reverse direction reads the answer.
        initialisation: how the initial weights are drawn.
        training: how it is trained and evaluated.
        probes: what is measured; not part of the key, because measuring changes nothing.
        seed: decides the initial weights.
        embedding: width of a learned matrix before the first layer, for a task whose inputs are symbols; or None.
        data_seed: decides the sequences; the same as `seed` when None. Runs with equal data seeds see the same
            sequences whatever their cell, so that comparisons are paired.

    `key` identifies the run: twelve hexadecimal digits, a hash of all fields but the probes. It does not depend on
    device, engine or number of workers, nor on where data lie that the task reads.
    """

    task: Task
    cell: Cell
    layers: Annotated[int, between(1, 1000)] = 1
    block: Block | None = None
    bidirectional: bool = False
    initialisation: Initialisation = PyTorchDefault()
    training: Training = Training()
    probes: Annotated[tuple[Probe, ...], NOT_IDENTITY] = (ParameterGradients(), GradientThroughTime())
    seed: Annotated[int, at_least(0)] = 0
    data_seed: Annotated[int, at_least(0)] | None = None
    embedding: Annotated[int, at_least(1)] | None = None

    def check(self) -> None:
        if self.embedding is not None and not self.task.inputs_are_symbols:
            raise SpecError(
                f"Run.embedding is {self.embedding}; it must be None for {type(self.task).__name__}, whose inputs are "
                "not symbols"
            )
        require_repeatable(self.cell, self.embedding or self.task.features, self.task.outputs)
        self.initialisation.check_compatible(self.cell)
        if self.training.omega is not None:
            self.training.omega.check_compatible(self.cell)
        for cut in self.training.cuts:
            cut.check_compatible(self.cell, self.training.steps)
        for length in self.training.other_lengths:
            self.task.with_length(length)
        wrapped = "bidirectional layers" if self.bidirectional else "a block" if self.block is not None else ""
        if wrapped and self.cell.owns_readout:
            raise SpecError(
                f"{type(self.cell).__name__} is its own readout and cannot be part of {wrapped}; use another cell, "
                "such as Elman"
            )
        if self.bidirectional and supervision(self.task) == "at some steps":
            raise SpecError(
                f"{type(self.task).__name__} is supervised at some steps, of which the first is none, so the reverse "
                "direction has no end; bidirectional layers need a task supervised at the last step alone, or from the "
                "first step on"
            )

    @cached_property
    def key(self) -> str:
        return digest(canonical(self))

    @property
    def described(self) -> dict[str, Any]:
        """What is stored: all that decides the key, and where the data lay. `spec.build` makes the run of it again."""
        return canonical(self, frozenset({NOT_IDENTITY}))

    @property
    def former_key(self) -> str:
        """The key that the run had before 2026-12, when the path of its texts was a part of it."""
        return digest(_with_locations(self.described, included=True))

    @property
    def effective_data_seed(self) -> int:
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def name(self) -> str:
        """A name for people, never parsed: `LSTM T=100 lr 0.01 s0`. `unique_names` adds what else differs."""
        return f"{self._setting} s{self.seed}"

    @property
    def _setting(self) -> str:
        return f"{type(self.cell).__name__} T={self.task.length} lr {self.training.learning_rate:.3g}"

    @property
    def short_parameters(self) -> dict[str, Any]:
        """The fields by which tables and charts are grouped, under short names."""
        return {
            "task": type(self.task).__name__,
            "cell": type(self.cell).__name__,
            "length": self.task.length,
            "width": self.cell.width,
            "layers": self.layers,
            "seed": self.seed,
            "learning_rate": self.training.learning_rate,
        }

    @cached_property
    def structure(self) -> str:
        """A hash of all but seeds, initialisation and per-replica fields. Runs with equal hashes train together."""
        alike = self.replace(initialisation=PyTorchDefault(), seed=0, data_seed=None)
        meant = canonical(alike, frozenset({PER_REPLICA, NOT_IDENTITY, LOCATION}))
        return digest([meant, canonical(self.probes)])


def key_of(described: Mapping[str, Any]) -> str:
    """The key of a stored run, of its `Run.described`: nothing is built for it."""
    return digest(_with_locations(described, included=False))


def _with_locations(described: Any, *, included: bool) -> Any:
    """A described specification with where its data lay among its other fields, or without it."""
    if isinstance(described, list):
        return [_with_locations(item, included=included) for item in described]
    if not (isinstance(described, Mapping) and isinstance(described.get("fields"), Mapping)):
        return described
    fields = {name: _with_locations(item, included=included) for name, item in described["fields"].items()}
    located = described.get("located", {}) if included else {}
    rest = {name: item for name, item in described.items() if name != "located"}
    return {**rest, "fields": {**fields, **located}}


def unique_names(runs: Sequence[Run]) -> dict[str, str]:
    """Key to name; fields that differ between runs of the same cell, length and seed stand before the seed.

    A name depends on all `runs`: those of a whole experiment, so that a run has the same name in each part of it.
    """
    named = ("training.learning_rate", "data_seed")
    flats = [flatten(run) for run in runs]
    fields = [field for field in distinguishing_fields(runs, flats) if field not in named]
    names = {
        run.key: " ".join([run._setting, *(_field_and_value(field, flat[field]) for field in fields if field in flat)])
        for run, flat in zip(runs, flats, strict=True)
    }
    paired = {run.key: "" if run.data_seed in (None, run.seed) else f" data s{run.data_seed}" for run in runs}
    return {run.key: f"{names[run.key]} s{run.seed}{paired[run.key]}" for run in runs}


def distinguishing_fields(runs: Sequence[Run], flats: Sequence[Mapping[str, Any]] | None = None) -> list[str]:
    """Dotted names of the fields that differ between runs of the same cell, length and seed.

    `flats`: the runs by `flatten`, where the caller has them already.
    """
    flats = [flatten(run) for run in runs] if flats is None else flats
    groups: dict[tuple[str, int, int], list[Mapping[str, Any]]] = defaultdict(list)
    for run, flat in zip(runs, flats, strict=True):
        groups[type(run.cell).__name__, run.task.length, run.seed].append(flat)
    return list(dict.fromkeys(field for group in groups.values() for field in _differing_fields(group)))


def _differing_fields(flats: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted names of the fields, without probes, that are not the same in all runs, in the order of declaration."""
    fields = dict.fromkeys(field for flat in flats for field in flat if not field.startswith("probes"))
    return [field for field in fields if len({repr(flat.get(field)) for flat in flats}) > 1]


def _field_and_value(field: str, value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{field.rpartition('.')[2]}={text}"


def runs_in_words(count: int) -> str:
    """A number of runs, for lines that people read.

    >>> runs_in_words(1), runs_in_words(2)
    ('1 run', '2 runs')
    """
    return f"{count} run{'' if count == 1 else 's'}"
