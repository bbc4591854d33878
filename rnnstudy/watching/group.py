"""The calls of one module in one forward pass, as one: the steps of a loop one after another, others side by side.

Calls follow each other in time where each begins from the states that the call before it returned: a decoder that is
called once for each symbol, or a cell in a loop. Other calls, of a module that is used twice, are sequences beside each
other.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from rnnstudy.engines.block_float import ZERO_EXPONENT, BlockFloat
from rnnstudy.watching.backward import StateGradients
from rnnstudy.watching.call import Call
from rnnstudy.watching.recompute import DirectionGradients, lengths_and_log_norms, state_gradients


def follow_each_other(calls: Sequence[Call]) -> bool:
    """Whether each call begins from the states that the one before returned."""
    return all(later.begins_from(earlier) for earlier, later in itertools.pairwise(calls))


def norms_of_calls(calls: Sequence[Call]) -> tuple[Tensor, dict[str, Tensor]]:
    """The length of each sequence, and log10 ‖dL/ds_t‖ (row, time, sequence) for each state, of all calls."""
    if len(calls) == 1:
        return lengths_and_log_norms(calls[0])
    if (stacked := _stacked(calls)) is not None:
        _, norms = lengths_and_log_norms(stacked)
        lengths = torch.full((len(stacked.padded_inputs().lengths) // len(calls),), len(calls))
        return lengths, {state: _unstacked(values[:, 0], len(calls), 1) for state, values in norms.items()}
    parts = [lengths_and_log_norms(call) for call in calls]
    lengths, join = _joining(calls, [lengths for lengths, _ in parts])
    return lengths, {state: join([norms[state] for _, norms in parts], 1, -torch.inf) for state in parts[0][1]}


def gradients_of_calls(calls: Sequence[Call]) -> list[DirectionGradients]:
    """The gradients themselves of all calls, for each layer and direction."""
    if len(calls) == 1:
        return state_gradients(calls[0])
    if (stacked := _stacked(calls)) is not None:
        lengths = torch.full((len(stacked.padded_inputs().lengths) // len(calls),), len(calls))
        return [
            dataclasses.replace(
                found,
                lengths=lengths,
                gradients=_mapped(found.gradients, lambda values: _unstacked(values[0], len(calls), 0)),
            )
            for found in state_gradients(stacked)
        ]
    parts = [state_gradients(call) for call in calls]
    lengths, join = _joining(calls, [found[0].lengths for found in parts])
    return [
        dataclasses.replace(of_row[0], lengths=lengths, gradients=_joined([found.gradients for found in of_row], join))
        for of_row in zip(*parts, strict=True)
    ]


def _stacked(calls: Sequence[Call]) -> Call | None:
    """Calls of one step each that follow each other, as one call with a sequence for each: less work; else None."""
    shapes = {call.inputs.shape if isinstance(call.inputs, Tensor) else None for call in calls}
    one_shape = len(shapes) == 1 and None not in shapes
    if not one_shape or calls[0].module.num_layers > 1 or calls[0].padded_inputs().values.shape[0] != 1:
        return None
    if not follow_each_other(calls) or not all(call.returned_is_intact for call in calls):
        return None
    batch = len(calls[0].padded_inputs().lengths)
    count = 2 if any(len(call.initial) == 2 for call in calls) else 1

    def stack(values: Sequence[Tensor | None]) -> Tensor | None:
        known = next((value for value in values if value is not None), None)
        if known is None:
            return None
        return torch.cat([torch.zeros_like(known) if value is None else value for value in values], 1)

    def states(index: int) -> list[Tensor | None]:
        return [call.states(call.initial, batch)[index] if call.initial else None for call in calls]

    first = calls[0]
    initial = tuple(value for index in range(count) if (value := stack(states(index))) is not None)
    at_last = [stack([call.states(call.at_last, batch)[index] for call in calls]) for index in range(2)]
    return Call(
        module=first.module,
        inputs=_by_time([call.padded_inputs().values for call in calls], first),
        initial=initial,
        outputs=_by_time([call.padded_outputs() for call in calls], first),
        at_outputs=_by_time([call.direct() for call in calls], first),
        at_last=at_last,
        weights=first.weights,
        through_h=first.through_h,
        cell=first.cell,
    )


def _by_time(values: Sequence[Tensor], call: Call) -> Tensor:
    """(1, calls · batch, width), in the layout that the module is used with."""
    joined = torch.cat(list(values), 1)
    return joined.transpose(0, 1) if call.module.batch_first else joined


def _unstacked(values: Tensor, calls: int, axis: int) -> Tensor:
    """The axis (calls · batch) as (calls, batch)."""
    return values.unflatten(axis, (calls, -1))


Join = Callable[[Sequence[Tensor], int, float], Tensor]
"""Joins arrays with the axes (…, time, sequence, …); takes the position of `time`, and what stands after an end."""


def _joining(calls: Sequence[Call], lengths: Sequence[Tensor]) -> tuple[Tensor, Join]:
    """The lengths of the joined sequences, and how their values are joined: in time, or side by side."""
    complete = all(bool((each == each.max()).all()) for each in lengths)
    if complete and follow_each_other(calls) and len({len(each) for each in lengths}) == 1:
        return torch.stack(list(lengths)).sum(0), lambda values, time, _: torch.cat(list(values), time)
    longest = max(int(each.max()) for each in lengths)

    def side_by_side(values: Sequence[Tensor], time: int, fill: float) -> Tensor:
        padded = []
        for value in values:
            missing = [0, 0] * (value.ndim - time - 1) + [0, longest - value.shape[time]]
            padded.append(functional.pad(value, missing, value=fill))
        return torch.cat(padded, time + 1)

    return torch.cat(list(lengths)), side_by_side


def _joined(parts: Sequence[StateGradients], join: Join) -> StateGradients:
    def blocks(of_parts: Sequence[BlockFloat]) -> BlockFloat:
        exponents = [part.exponent for part in of_parts]
        return BlockFloat(join([part.mantissa for part in of_parts], 0, 0.0), join(exponents, 0, ZERO_EXPONENT))

    c = blocks([part.c for part in parts if part.c is not None]) if parts[0].c is not None else None
    return StateGradients(
        h=blocks([part.h for part in parts]),
        c=c,
        delta=blocks([part.delta for part in parts]),
        log_gain=join([part.log_gain for part in parts], 0, torch.nan),
    )


def _mapped(gradients: StateGradients, change: Callable[[Tensor], Tensor]) -> StateGradients:
    def blocks(values: BlockFloat) -> BlockFloat:
        return BlockFloat(change(values.mantissa), change(values.exponent))

    c = None if gradients.c is None else blocks(gradients.c)
    return StateGradients(blocks(gradients.h), c, blocks(gradients.delta), change(gradients.log_gain))
