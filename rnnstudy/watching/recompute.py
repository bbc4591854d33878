"""From one call of an nn.RNN, nn.LSTM or nn.GRU and the gradient at its outputs to the gradient of every state.

The states are recomputed where the call did not return them (in all layers but the topmost), or where the model has
changed what it returned. The backward pass is computed again from inputs, weights, states and the gradient at the
outputs. The model itself is not touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnnstudy.engines.block_float import BlockFloat
from rnnstudy.watching import kernels
from rnnstudy.watching.backward import StateGradients, run_back
from rnnstudy.watching.call import Call, Direction, Padded
from rnnstudy.watching.recurrences import GatedRecurrentUnit, LongShortTermMemory, Recurrence, Vanilla, Weights


@dataclass(frozen=True)
class DirectionGradients:
    """The gradients of one layer in one direction, by time as the user reads the sequences.

    Attributes:
        direction: the layer, and whether it reads from the end.
        gradients: of its states.
        gates: names of the blocks of `gradients.delta`.
        lengths: (batch): steps of each sequence.
    """

    direction: Direction
    gradients: StateGradients
    gates: tuple[str, ...]
    lengths: Tensor


@torch.no_grad()
def lengths_and_log_norms(call: Call) -> tuple[Tensor, dict[str, Tensor]]:
    """The length of each sequence, and log10 ‖dL/ds_t‖ (row, time, batch) for each state, the fastest way there is.

    A row is a layer in a direction.
    """
    if call.initial or call.at_last[1] is not None or not kernels.serve(call.module, call.dtype, call.device):
        found = state_gradients(call)
        states = ("h",) if found[0].gradients.c is None else ("h", "c")
        norms = {state: [getattr(of.gradients, state).log_norms() for of in found] for state in states}
        return found[0].lengths, {state: torch.stack(rows) for state, rows in norms.items()}
    inputs, at_outputs, width, rows = call.padded_inputs(), call.direct(), call.output_width, []
    [last, _] = call.states(call.at_last, len(inputs.lengths))
    # Under autocast the outputs are rounded states.
    outputs = call.padded_outputs() if call.returned_is_intact and call.outputs.data.dtype == call.dtype else None
    for index, (layer, reverse) in enumerate(call.directions):
        part = slice(index * width, (index + 1) * width)
        direct = inputs.turned(at_outputs[..., part], reverse)
        if last is not None:
            direct = direct + inputs.at_end(last[index])
        arrives = _steps_reached(direct)
        read = inputs.turned(inputs.values, reverse)
        returned = None if outputs is None else inputs.turned(outputs[..., part], reverse)
        of_row = kernels.log_norms(call.module, call.weights[layer, reverse], read, returned, direct[arrives], arrives)
        rows.append({state: inputs.turned(values, reverse) for state, values in of_row.items()})
    return inputs.lengths, {
        state: torch.stack([row[state] for row in rows]) for state in ("h", "c") if state in rows[0]
    }


def _steps_reached(direct: Tensor) -> Tensor:
    """Indices of the steps at which a gradient (time, …) is not all zeros. NaN is no zero."""
    values = direct.flatten(1)
    # any() is slow on floats.
    return ((values.amax(1) != 0) | (values.amin(1) != 0)).nonzero().flatten()


@torch.no_grad()
def state_gradients(call: Call) -> list[DirectionGradients]:
    """The gradients of every layer and direction, lowest layer first, forward direction before reverse."""
    inputs, masks = call.padded_inputs(), call.dropout_masks()
    batch = len(inputs.lengths)
    initial, at_last = call.states(call.initial, batch), call.states(call.at_last, batch)
    layers = _inputs_and_outputs(call, inputs, initial, masks)
    found: list[DirectionGradients] = []
    direct = BlockFloat.of(call.direct(), 2)
    for layer in reversed(range(call.module.num_layers)):
        read, returned = layers[layer]
        parts: list[BlockFloat] = []
        of_layer = []
        for index, direction in enumerate(call.directions):
            if direction[0] != layer:
                continue
            way = _Way(call, direction, inputs, [state[index] for state in initial if state is not None])
            gradients, gates = way.gradients(
                read, returned, direct, [None if state is None else state[index] for state in at_last]
            )
            of_layer.append(DirectionGradients(direction, gradients, gates, inputs.lengths))
            delta = gradients.delta
            parts.append(BlockFloat(delta.mantissa @ call.weights[direction].weight_ih, delta.exponent).normalised())
        found = of_layer + found
        if layer:
            direct = parts[0] if len(parts) == 1 else parts[0].plus(parts[1])
            if masks:
                direct = BlockFloat(direct.mantissa * masks[layer - 1], direct.exponent)
    return found


@dataclass(frozen=True)
class _Way:
    """One layer in one direction: `initial` states (batch, width) each, empty for zeros."""

    call: Call
    direction: Direction
    sequences: Padded
    initial: Sequence[Tensor]

    def _turned(self, values: Tensor) -> Tensor:
        return self.sequences.turned(values, self.direction[1])

    def gradients(
        self, inputs: Tensor, outputs: Tensor, direct: BlockFloat, at_last: Sequence[Tensor | None]
    ) -> tuple[StateGradients, tuple[str, ...]]:
        """The gradients, and the names of the gates.

        Args:
            inputs, outputs: (time, batch, …), what the layer read and returned, both directions side by side.
            direct: the gradient at these outputs.
            at_last: the gradients at this direction's last h and c (batch, width).
        """
        width, first = self.call.output_width, int(self.direction[1])
        part = slice(first * width, (first + 1) * width)
        begin = list(self.initial) or [
            inputs.new_zeros(inputs.shape[1], units) for units in (width, self.call.module.hidden_size)
        ]
        states = torch.cat([begin[0][None], self._turned(outputs[..., part])])
        recurrence = self._recurrence(self._turned(inputs), states, begin)
        of_h = BlockFloat(self._turned(direct.mantissa[..., part]), self._turned(direct.exponent))
        if at_last[0] is not None:
            of_h = of_h.normalised().plus(BlockFloat.of(self.sequences.at_end(at_last[0]), 2))
        of_c = None if at_last[1] is None else self.sequences.at_end(at_last[1])
        if of_c is not None and self.call.through_h and isinstance(recurrence, LongShortTermMemory):
            of_c = of_c - of_h.values() * recurrence.to_cell
        found = run_back(recurrence, of_h, of_c)

        def turned_back(values: BlockFloat) -> BlockFloat:
            return BlockFloat(self._turned(values.mantissa), self._turned(values.exponent))

        c = None if found.c is None else turned_back(found.c)
        log_gain = self._turned(found.log_gain)
        return StateGradients(turned_back(found.h), c, turned_back(found.delta), log_gain), recurrence.gates

    def _recurrence(self, inputs: Tensor, states: Tensor, begin: Sequence[Tensor]) -> Recurrence:
        module, weights = self.call.module, self.call.weights[self.direction]
        if isinstance(module, nn.LSTM):
            return LongShortTermMemory(weights, inputs, states, begin[1])
        if isinstance(module, nn.GRU):
            return GatedRecurrentUnit(weights, inputs, states)
        return Vanilla(weights, states, str(module.nonlinearity))


def _inputs_and_outputs(
    call: Call, inputs: Padded, initial: Sequence[Tensor | None], masks: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """For each layer what it read and returned (time, batch, …).

    The topmost returned the outputs of the call; it runs again only if they have been changed since.
    """
    layers, below = [], inputs.values
    topmost = call.module.num_layers - 1
    for layer in range(topmost if call.returned_is_intact else topmost + 1):
        parts = []
        for index, direction in enumerate(call.directions):
            if direction[0] == layer:
                states = [state[index : index + 1] for state in initial if state is not None]
                weights = call.weights[direction]
                parts.append(_run(call, weights, direction[1], Padded(below, inputs.lengths), states))
        returned = torch.cat(parts, -1)
        layers.append((below, returned))
        below = returned * masks[layer] if masks and layer < topmost else returned
    return [*layers, (below, call.padded_outputs())] if call.returned_is_intact else layers


def _run(call: Call, weights: Weights, reverse: bool, inputs: Padded, initial: Sequence[Tensor]) -> Tensor:
    """The outputs (time, batch, width) of one layer in one direction, by torch.nn itself."""
    module = call.module
    options: dict[str, Any] = {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}
    if module.proj_size:
        options["proj_size"] = module.proj_size
    # Without memory and random numbers: its weights are replaced.
    alone = call.kind(
        weights.weight_ih.shape[1], module.hidden_size, bias=weights.bias_ih is not None, device="meta", **options
    )
    named = {f"{name}_l0": value for name, value in vars(weights).items() if value is not None}
    values = inputs.turned(inputs.values, reverse)
    packed = pack_padded_sequence(values, inputs.lengths.cpu(), enforce_sorted=False)
    state = (initial[0] if len(initial) == 1 else tuple(initial)) if initial else None
    returned, _ = torch.func.functional_call(alone, named, (packed, state))
    return inputs.turned(pad_packed_sequence(returned, total_length=len(values))[0], reverse)
