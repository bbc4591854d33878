"""From one call of an nn.RNN, nn.LSTM or nn.GRU and the gradient at its outputs to the gradient of every state.

The states are recomputed where the call did not return them (in all layers but the topmost), and the backward pass is
computed again from inputs, weights, states and the gradient at the outputs. The model itself is not touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnnstudy.engines.block_float import BlockFloat
from rnnstudy.watching.backward import StateGradients, run_back
from rnnstudy.watching.recurrences import GatedRecurrentUnit, LongShortTermMemory, Recurrence, Vanilla, Weights

RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)


@dataclass
class Call:
    """One call of a recurrent module, and the gradients at what it returned.

    Attributes:
        module: the module.
        inputs: what it read.
        initial: its initial states, or None.
        outputs: what it returned as its output.
        random_state: torch's random state before the call, where the module drops out between its layers.
        at_outputs: the gradient at the outputs, summed over backward passes; None before the first.
        at_last: the gradients at the last states, h_n and c_n, where there are any.
    """

    module: nn.RNNBase
    inputs: Tensor | PackedSequence
    initial: tuple[Tensor, ...]
    outputs: Tensor | PackedSequence
    random_state: Tensor | None = None
    at_outputs: Tensor | None = None
    at_last: list[Tensor | None] = field(default_factory=lambda: [None, None])


@dataclass(frozen=True)
class Padded:
    """Sequences (time, batch, features) with the length of each, zero after its end."""

    values: Tensor
    lengths: Tensor

    def backwards(self, values: Tensor) -> Tensor:
        """`values` (time, batch, …) with each sequence, up to its end, in the opposite order."""
        steps = torch.arange(len(values), device=values.device)[:, None]
        index = torch.where(steps < self.lengths, self.lengths - 1 - steps, steps)
        return values.gather(0, index.view(*index.shape, *[1] * (values.ndim - 2)).expand_as(values))


@dataclass(frozen=True)
class DirectionGradients:
    """The gradients of one layer in one direction, at the times of the sequences.

    Attributes:
        layer, reverse: which layer, counted from 0, and whether it reads from the end.
        gradients: by time as the sequences are read by the user, also for the reverse direction.
        gates: names of the blocks of `gradients.delta`.
        lengths: (batch).
    """

    layer: int
    reverse: bool
    gradients: StateGradients
    gates: tuple[str, ...]
    lengths: Tensor


def state_gradients(call: Call) -> list[DirectionGradients]:
    """The gradients of every layer and direction, lowest layer first, forward direction before reverse."""
    module = call.module
    dtype = torch.float64 if module.weight_ih_l0.dtype == torch.float64 else torch.float32
    with torch.no_grad():
        inputs = _padded(call.inputs, module.batch_first, dtype)
        outputs = _padded(call.outputs, module.batch_first, dtype)
        at_outputs = outputs.values.new_zeros(outputs.values.shape)
        if call.at_outputs is not None:
            at_outputs = _padded(_like(call.outputs, call.at_outputs), module.batch_first, dtype).values
        initial = [_with_batch(value, inputs).to(dtype) for value in call.initial]
        at_last = [None if value is None else _with_batch(value, inputs).to(dtype) for value in call.at_last]
        masks = _dropout_masks(call, inputs, dtype)
        layers = _layer_inputs_and_outputs(module, inputs, outputs.values, initial, masks)
        found: list[DirectionGradients] = []
        direct = BlockFloat.of(at_outputs, 2)
        for layer in reversed(range(module.num_layers)):
            of_layer, direct = _of_layer(module, layer, *layers[layer], direct, initial, at_last, inputs)
            if layer:
                direct = BlockFloat(direct.mantissa * masks[layer - 1], direct.exponent) if masks else direct
            found = of_layer + found
        return found


def _of_layer(
    module: nn.RNNBase,
    layer: int,
    inputs: Tensor,
    outputs: Tensor,
    direct: BlockFloat,
    initial: Sequence[Tensor],
    at_last: Sequence[Tensor | None],
    sequences: Padded,
) -> tuple[list[DirectionGradients], BlockFloat]:
    """The gradients of the directions of a layer, and dL/dx_t of its inputs."""
    directions = 2 if module.bidirectional else 1
    width = outputs.shape[-1] // directions
    found, to_inputs = [], None
    for direction in range(directions):
        index, reverse = layer * directions + direction, direction == 1
        turned = sequences.backwards if reverse else _unchanged
        part = slice(direction * width, (direction + 1) * width)
        weights = _weights(module, layer, reverse, inputs.dtype)
        first = [state[index] for state in initial] or _zeros(module, inputs, width)
        states = torch.cat([first[0][None], turned(outputs[..., part])])
        recurrence = _recurrence(module, weights, turned(inputs), states, first)
        mantissa = turned(direct.mantissa[..., part])
        exponent = turned(direct.exponent)
        of_h = BlockFloat(mantissa, exponent)
        if at_last[0] is not None:
            of_h = of_h.normalised().plus(BlockFloat.of(_at_end(at_last[0][index], sequences), 2))
        direct_c = None if at_last[1] is None else _at_end(at_last[1][index], sequences)
        gradients = run_back(recurrence, of_h, direct_c)
        gradients = StateGradients(
            *(
                None if value is None else BlockFloat(turned(value.mantissa), turned(value.exponent))
                for value in vars(gradients).values()
            )
        )
        found.append(DirectionGradients(layer, reverse, gradients, recurrence.gates, sequences.lengths))
        if layer:
            delta = gradients.delta
            part_of_inputs = BlockFloat(delta.mantissa @ weights.w_ih, delta.exponent).normalised()
            to_inputs = part_of_inputs if to_inputs is None else to_inputs.plus(part_of_inputs)
    return found, to_inputs or direct


def _recurrence(
    module: nn.RNNBase, weights: Weights, inputs: Tensor, states: Tensor, first: Sequence[Tensor]
) -> Recurrence:
    if isinstance(module, nn.LSTM):
        return LongShortTermMemory(weights, inputs, states, first[1])
    if isinstance(module, nn.GRU):
        return GatedRecurrentUnit(weights, inputs, states)
    return Vanilla(weights, states, module.nonlinearity)


def _unchanged(values: Tensor) -> Tensor:
    return values


def _zeros(module: nn.RNNBase, inputs: Tensor, width: int) -> list[Tensor]:
    batch = inputs.shape[1]
    return [inputs.new_zeros(batch, width), inputs.new_zeros(batch, module.hidden_size)]


def _at_end(at_last: Tensor, sequences: Padded) -> Tensor:
    """(batch, width) at the last step of each sequence of (time, batch, width), zero elsewhere."""
    steps = torch.arange(len(sequences.values), device=at_last.device)[:, None]
    return (steps == sequences.lengths - 1).unsqueeze(-1) * at_last


def _weights(module: nn.RNNBase, layer: int, reverse: bool, dtype: torch.dtype) -> Weights:
    end = f"_l{layer}{'_reverse' if reverse else ''}"

    def named(name: str) -> Tensor | None:
        value = getattr(module, name + end, None)
        return None if value is None else value.detach().to(dtype)

    w_ih, w_hh = named("weight_ih"), named("weight_hh")
    assert w_ih is not None
    assert w_hh is not None
    return Weights(w_ih, w_hh, named("bias_ih"), named("bias_hh"), named("weight_hr"))


def _padded(sequences: Tensor | PackedSequence, batch_first: bool, dtype: torch.dtype) -> Padded:
    if isinstance(sequences, PackedSequence):
        values, lengths = pad_packed_sequence(sequences)
        return Padded(values.to(dtype), lengths.to(values.device))
    if sequences.ndim == 2:
        values = sequences.unsqueeze(1)
    else:
        values = sequences.transpose(0, 1) if batch_first else sequences
    return Padded(values.to(dtype), torch.full((values.shape[1],), len(values), device=values.device))


def _with_batch(states: Tensor, inputs: Padded) -> Tensor:
    """(layers · directions, batch, width), also where the module was given a sequence without a batch axis."""
    return states.detach().reshape(states.shape[0], inputs.values.shape[1], states.shape[-1])


def _like(outputs: Tensor | PackedSequence, gradient: Tensor) -> Tensor | PackedSequence:
    """The gradient at the data of a packed sequence as a packed sequence."""
    return outputs._replace(data=gradient) if isinstance(outputs, PackedSequence) else gradient


def _dropout_masks(call: Call, inputs: Padded, dtype: torch.dtype) -> list[Tensor]:
    """The factors by which the call multiplied the outputs of each layer but the topmost, drawn again; none without
    dropout."""
    module = call.module
    if call.random_state is None:
        return []
    directions = 2 if module.bidirectional else 1
    width = (module.proj_size or module.hidden_size) * directions
    shape = call.inputs.data.shape[:-1] if isinstance(call.inputs, PackedSequence) else inputs.values.shape[:-1]
    masks = []
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(call.random_state)
        for _ in range(module.num_layers - 1):
            mask = nn.functional.dropout(torch.ones(*shape, width, dtype=call.outputs.data.dtype), module.dropout)
            if isinstance(call.inputs, PackedSequence):
                mask, _ = pad_packed_sequence(call.inputs._replace(data=mask))
            masks.append(mask.to(dtype))
    return masks


def _layer_inputs_and_outputs(
    module: nn.RNNBase, inputs: Padded, outputs: Tensor, initial: Sequence[Tensor], masks: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """For each layer what it reads and returns (time, batch, width · directions); the topmost returns the outputs."""
    directions = 2 if module.bidirectional else 1
    layers, below = [], inputs.values
    for layer in range(module.num_layers - 1):
        parts = []
        for direction in range(directions):
            index = layer * directions + direction
            states = tuple(state[index : index + 1] for state in initial)
            parts.append(_run_direction(module, layer, direction == 1, Padded(below, inputs.lengths), states))
        returned = torch.cat(parts, -1)
        layers.append((below, returned))
        below = returned * masks[layer] if masks else returned
    return [*layers, (below, outputs)]


def _run_direction(module: nn.RNNBase, layer: int, reverse: bool, inputs: Padded, initial: Sequence[Tensor]) -> Tensor:
    """The outputs of one layer in one direction, by torch.nn itself."""
    weights = _weights(module, layer, reverse, inputs.values.dtype)
    options = {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}
    if isinstance(module, nn.LSTM) and module.proj_size:
        options["proj_size"] = module.proj_size
    with torch.random.fork_rng(devices=[]):
        alone = type(module)(
            weights.w_ih.shape[1], module.hidden_size, bias=weights.b_ih is not None,
            device=inputs.values.device, dtype=inputs.values.dtype, **options,
        )  # fmt: skip
    names = {"weight_ih_l0": weights.w_ih, "weight_hh_l0": weights.w_hh, "bias_ih_l0": weights.b_ih}
    names |= {"bias_hh_l0": weights.b_hh, "weight_hr_l0": weights.w_hr}
    values = inputs.backwards(inputs.values) if reverse else inputs.values
    packed = pack_padded_sequence(values, inputs.lengths.cpu(), enforce_sorted=False)
    state: object = None
    if initial:
        state = initial[0] if len(initial) == 1 else tuple(initial)
    returned, _ = torch.func.functional_call(
        alone, {name: value for name, value in names.items() if value is not None}, (packed, state)
    )
    padded, _ = pad_packed_sequence(returned, total_length=len(values))
    return inputs.backwards(padded) if reverse else padded
