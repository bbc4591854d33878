"""One call of a recurrent module: what it read and returned, its weights, and the gradients at what it returned."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from rnnstudy.watching.recurrences import Weights

RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)

CELLS: dict[type[nn.Module], type[nn.RNNBase]] = {nn.RNNCell: nn.RNN, nn.LSTMCell: nn.LSTM, nn.GRUCell: nn.GRU}
"""A cell, which computes one step, and the module that computes all steps."""

Direction = tuple[int, bool]
"""A layer, counted from 0, and whether it reads the sequences from their ends."""


@dataclass(frozen=True)
class Padded:
    """Sequences (time, batch, features), zero after their ends, with the length of each."""

    values: Tensor
    lengths: Tensor

    def turned(self, values: Tensor, reverse: bool) -> Tensor:
        """`values` (time, batch, …), for the reverse direction with each sequence in the opposite order."""
        if not reverse:
            return values
        steps = torch.arange(len(values), device=values.device)[:, None]
        index = torch.where(steps < self.lengths, self.lengths - 1 - steps, steps)
        return values.gather(0, index.view(*index.shape, *[1] * (values.ndim - 2)).expand_as(values))

    def at_end(self, values: Tensor) -> Tensor:
        """(batch, width) at the last step of each sequence of (time, batch, width), zero elsewhere."""
        steps = torch.arange(len(self.values), device=values.device)[:, None]
        return (steps == self.lengths - 1).unsqueeze(-1) * values


@dataclass
class Call:
    """One call of a recurrent module, and the gradients at what it returned.

    Attributes:
        module: the module.
        inputs: what it read.
        initial: its initial states; empty for zeros.
        outputs: what it returned as its output.
        random_state: torch's random state before the call, where the module drops out between its layers.
        at_outputs: the gradient at the outputs, summed over backward passes; None where there is none.
        at_last: the gradients at the last states, h_n and c_n, likewise.
        weights: those of each layer and direction, as they were in the call.
        last: the last states that it returned.
        through_h: whether the gradient at c_n includes the path through h_n. In torch.nn.LSTMCell on the CPU, h is
            computed from the very c that it returns.
        cell: whose weights they are, where the module stands for a cell.
    """

    module: nn.RNNBase
    inputs: Tensor | PackedSequence
    initial: tuple[Tensor, ...]
    outputs: Tensor | PackedSequence
    random_state: Tensor | None = None
    at_outputs: Tensor | None = None
    at_last: list[Tensor | None] = field(default_factory=lambda: [None, None])
    weights: dict[Direction, Weights] = field(default_factory=dict)
    last: tuple[Tensor, ...] = ()
    through_h: bool = False
    cell: nn.RNNCellBase | None = None

    def __post_init__(self) -> None:
        # Outputs and states are not copied. Where a model changes them in place later, as by outputs.relu_(), their
        # version, a count of such changes, tells.
        self._version = self._values._version
        self._begins = [(state.data_ptr(), state._version) for state in self.initial]
        self._ends = [(state.data_ptr(), state._version) for state in self.last]

    @property
    def _values(self) -> Tensor:
        # The attribute `data` of a tensor is another tensor, with a version of its own.
        return self.outputs.data if isinstance(self.outputs, PackedSequence) else self.outputs

    @property
    def returned_is_intact(self) -> bool:
        """Whether its outputs hold what it returned: nothing has changed them in place since."""
        return self._values._version == self._version

    def begins_from(self, earlier: "Call") -> bool:
        """Whether its initial states are those that an earlier call returned, with nothing done to them in between."""
        pairs = list(zip(self._begins, earlier._ends, strict=False))
        return bool(pairs) and all(begin == end for begin, end in pairs)

    @property
    def dtype(self) -> torch.dtype:
        """The type that gradients are computed in: float64 for a module in float64, otherwise float32."""
        owner = self.module if self.cell is None else self.cell
        return torch.float64 if next(owner.parameters()).dtype == torch.float64 else torch.float32

    @property
    def kind(self) -> type[nn.RNNBase]:
        """nn.RNN, nn.LSTM or nn.GRU, also for a subclass."""
        return next(cls for cls in RECURRENT if isinstance(self.module, cls))

    @property
    def device(self) -> torch.device:
        return self.inputs.data.device

    @property
    def directions(self) -> list[Direction]:
        ways = (False, True) if self.module.bidirectional else (False,)
        return [(layer, reverse) for layer in range(self.module.num_layers) for reverse in ways]

    @property
    def output_width(self) -> int:
        """Units of h in one direction."""
        return self.module.proj_size or self.module.hidden_size

    @torch.no_grad()
    def keep_weights(self) -> None:
        """Copy the weights, before an optimiser changes them."""
        self.weights = {direction: self._weights_now(*direction) for direction in self.directions}

    def _weights_now(self, layer: int, reverse: bool) -> Weights:
        values = {}
        ending = f"_l{layer}{'_reverse' if reverse else ''}" if self.cell is None else ""
        owner = self.module if self.cell is None else self.cell
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"):
            value = getattr(owner, name + ending, None)
            values[name] = None if value is None else value.detach().to(self.dtype, copy=True)
        return Weights(**values)

    def padded_inputs(self) -> Padded:
        return self._padded(self.inputs)

    def padded_outputs(self) -> Tensor:
        """(time, batch, width · directions)."""
        return self._padded(self.outputs).values

    def direct(self) -> Tensor:
        """The gradient at the outputs, as they are; zero where only the last states were used."""
        if self.at_outputs is None:
            return torch.zeros_like(self.padded_outputs())
        if isinstance(self.outputs, PackedSequence):
            return self._padded(self.outputs._replace(data=self.at_outputs)).values
        return self._padded(self.at_outputs).values

    def states(self, values: Sequence[Tensor | None], batch: int) -> list[Tensor | None]:
        """(row, batch, width) each, also where the module was given a sequence without a batch axis."""
        return [
            None if value is None else value.detach().to(self.dtype).reshape(len(value), batch, value.shape[-1])
            for value in values
        ]

    def dropout_masks(self) -> list[Tensor]:
        """The factors by which the call multiplied the outputs of each layer but the topmost, drawn again.

        (time, batch, width · directions) each; empty without dropout.
        """
        if self.random_state is None:
            return []
        width = self.output_width * (2 if self.module.bidirectional else 1)
        packed = self.inputs if isinstance(self.inputs, PackedSequence) else None
        shape = packed.data.shape[:-1] if packed else self.padded_inputs().values.shape[:-1]
        masks = []
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.random_state)
            for _ in range(self.module.num_layers - 1):
                ones = torch.ones(*shape, width, dtype=self.outputs.data.dtype)
                mask = nn.functional.dropout(ones, self.module.dropout)
                masks.append((pad_packed_sequence(packed._replace(data=mask))[0] if packed else mask).to(self.dtype))
        return masks

    def _padded(self, sequences: Tensor | PackedSequence) -> Padded:
        if isinstance(sequences, PackedSequence):
            values, lengths = pad_packed_sequence(sequences)
            return Padded(values.to(self.dtype), lengths.to(values.device))
        if sequences.ndim == 2:
            values = sequences.unsqueeze(1)
        else:
            values = sequences.transpose(0, 1) if self.module.batch_first else sequences
        lengths = torch.full((values.shape[1],), len(values), device=values.device)
        return Padded(values.to(self.dtype), lengths)


def torch_class(module: nn.Module) -> type[nn.Module] | None:
    """Which class of torch.nn computes the module's forward pass: RNN, LSTM, GRU or a cell of them; else None.

    A subclass counts, such as that of a parametrised module, unless it has a `forward` of its own.
    """
    classes = [cls for cls in (*RECURRENT, *CELLS) if isinstance(module, cls)]
    return next((cls for cls in classes if type(module).forward is cls.forward), None)


def layer_of(cell: nn.RNNCellBase, kind: type[nn.Module]) -> nn.RNNBase:
    """A module of one layer that computes what a cell of class `kind` computes, without weights of its own."""
    options = {"nonlinearity": cell.nonlinearity} if isinstance(cell, nn.RNNCell) else {}
    return CELLS[kind](cell.input_size, cell.hidden_size, bias=cell.bias, device="meta", **options)
