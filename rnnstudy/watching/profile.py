"""The gradient of one recurrent module by time: norms for each sequence, their medians, and how fast they fall."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnnstudy.engines.block_float import BlockFloat
from rnnstudy.probes.gradient_through_time import theil_sen
from rnnstudy.spec import RequestError, nearest
from rnnstudy.watching.call import Call, Direction
from rnnstudy.watching.gradients import Gradients, ReceivedGradients, RecomputedGradients
from rnnstudy.watching.group import norms_of_calls
from rnnstudy.watching.own import Unrolled
from rnnstudy.watching.positions import Position


class Profile:
    """log10 ‖dL/ds_t‖ of a recurrent module's states s: total derivatives of the loss that was differentiated.

    The norm is over the units of a layer in one direction, for each sequence. Rows are layers and directions: layer 1
    forward, layer 1 reverse, layer 2 forward, …. Values are in float64 and right far beyond the range of a float; an
    exact zero is −inf, and a step after a sequence's end is NaN. Calls of a module that follow each other, such as
    those of a cell in a loop, are the steps of one sequence; other calls in one pass are sequences beside each other.

    Attributes:
        states: `("h",)`, or `("h", "c")` for an LSTM; the names given to those of a recurrence of one's own; `("x",)`,
            what it reads, for a module that is not recurrent. The first one is meant where no state is named.
        rows: for each row its layer, counted from 0, and whether it reads the sequence from its end.
        lengths: steps of each sequence.
        kind: class of the module, such as `RNN`, `LSTM` or `GRU`.
        recurrent: whether each step is computed from the one before; False for positions of another module.
    """

    def __init__(
        self,
        kind: str,
        rows: Sequence[Direction],
        lengths: Int[Tensor, " sequence"],
        log_norms: Mapping[str, Tensor],
        gradients: Gradients,
        *,
        recurrent: bool = True,
    ) -> None:
        self.recurrent = recurrent
        self.kind, self.rows, self.lengths = kind, tuple(rows), lengths
        self.states = tuple(log_norms)
        self._log_norms, self._gradients = log_norms, gradients

    @staticmethod
    def of_calls(calls: Sequence[Call]) -> "Profile":
        """The profile of a recurrent module of torch.nn, from its calls in one forward pass."""
        calls[0].keep_weights()
        for call in calls[1:]:
            call.weights = calls[0].weights
        kind, rows = calls[0].kind.__name__, calls[0].directions
        return Profile(kind, rows, *norms_of_calls(calls), RecomputedGradients(calls))

    @staticmethod
    def of_positions(calls: Sequence[Position]) -> "Profile":
        """The profile of another module, from the gradients at what it read in each call: one state, `x`."""
        received = [{"x": call.gradient} for call in calls if call.gradient is not None]
        return Profile._received(calls[0].kind, received, recurrent=False)

    @staticmethod
    def of_runs(runs: Sequence[Unrolled]) -> "Profile":
        """The profile of a recurrence of one's own, from its runs in one forward pass."""
        return Profile._received(runs[0].kind, [run.in_time() for run in runs], reverse=runs[0].reverse)

    @staticmethod
    def _received(
        kind: str, parts: Sequence[Mapping[str, Tensor]], *, reverse: bool = False, recurrent: bool = True
    ) -> "Profile":
        """From the gradients themselves: in each part, state → (time, sequence, unit)."""
        by_state = {state: BlockFloat.of(_side_by_side([part[state] for part in parts]), 2) for state in parts[0]}
        lengths = torch.cat([torch.full((each.shape[1],), len(each)) for part in parts for each in [_first(part)]])
        norms = {state: values.log_norms()[None] for state, values in by_state.items()}
        gradients = ReceivedGradients(kind, by_state, reverse)
        return Profile(kind, [(0, reverse)], lengths.to(_first(norms).device), norms, gradients, recurrent=recurrent)

    def __repr__(self) -> str:
        steps, sequences = int(self.lengths.max()), len(self.lengths)
        return f"Profile({', '.join(self.states)}; {len(self.rows)} rows, {steps} steps, {sequences} sequences)"

    @property
    def measured(self) -> Bool[Tensor, "time sequence"]:
        """True at the steps that a sequence has."""
        time = self._log_norms[self.states[0]].shape[1]
        return torch.arange(time, device=self.lengths.device)[:, None] < self.lengths

    def per_sequence(self, state: str | None = None) -> Float[Tensor, "row time sequence"]:
        """log10 ‖dL/ds_t‖ for each sequence; −inf for an exact zero, NaN after the sequence's end.

        Raises `RequestError` for a state that the module does not have.
        """
        return torch.where(self.measured, self._log_norms[self._named(state)], torch.nan)

    def _named(self, state: str | None) -> str:
        if state is None:
            return self.states[0]
        if state not in self.states:
            raise RequestError(
                f"there is no state '{state}'{nearest(state, self.states)}; there is {', '.join(self.states)}"
            )
        return state

    def quantile(self, share: float, state: str | None = None) -> Float[Tensor, "row time"]:
        """The quantile over sequences at each step, linearly interpolated; −inf where too many are exact zeros."""
        return _quantile(self.per_sequence(state), share)

    def log10(self, state: str | None = None) -> Float[Tensor, "row time"]:
        """The median over sequences of log10 ‖dL/ds_t‖ at each step."""
        return self.quantile(0.5, state)

    def per_unit(self, state: str | None = None) -> Float[Tensor, "row time unit"]:
        """log10 of the root mean square over sequences of dL/ds_t, for each unit."""
        rows = []
        for gradient in self._gradients.of_units(self._named(state)):
            mantissas, shared = gradient.aligned((1,))
            mean_square = mantissas.double().square().sum(1) / self.measured.sum(1, keepdim=True)
            rows.append(mean_square.log10() / 2 + shared[:, 0, None].double() * math.log10(2))
        return torch.stack(rows)

    def zeros(self, state: str | None = None) -> Float[Tensor, "row time"]:
        """The share of sequences whose gradient is exactly zero at each step."""
        return self.per_sequence(state).isneginf().sum(-1) / self.measured.sum(-1)

    def nonfinite(self, state: str | None = None) -> Float[Tensor, "row time"]:
        """The share of sequences whose gradient is infinite or not a number at each step."""
        values = self._log_norms[self._named(state)]
        return ((values.isnan() | values.isposinf()) & self.measured).sum(-1) / self.measured.sum(-1)

    def first_nonfinite(self) -> str | None:
        """Where, going back in time, a value first is not finite: layer, direction, step and gate; None if nowhere."""
        return self._gradients.first_nonfinite()

    def _reached_last(self, values: Float[Tensor, "row time sequence"]) -> Int[Tensor, "row sequence"]:
        """τ: the last step of each sequence, or first one in the reverse direction, whose gradient is not zero.

        For a loss at every step it is the last step; for a model that predicts the next symbol, often the one before.
        """
        time = values.shape[1]
        steps = torch.arange(time, device=values.device)[:, None].expand_as(values[0])
        rows = []
        for (_, reverse), row in zip(self.rows, values, strict=True):
            reached = self.measured & ~row.isneginf()
            if reverse:
                first = torch.where(reached, steps, time).amin(0)
                rows.append(torch.where(first == time, 0, first))
            else:
                last = torch.where(reached, steps, -1).amax(0)
                rows.append(torch.where(last < 0, self.lengths - 1, last))
        return torch.stack(rows)

    def by_lag(self, state: str | None = None) -> Float[Tensor, "row lag"]:
        """The median over sequences of log10 (‖dL/ds_t‖ / ‖dL/ds_τ‖), by lag from the step τ that the gradient reaches
        first on its way back: the last step that is not exactly zero, and the first such one for the reverse direction.
        """
        values = self.per_sequence(state)
        lags = torch.arange(values.shape[1], device=values.device)[:, None]
        rows = []
        for (_, reverse), row, tau in zip(self.rows, values, self._reached_last(values), strict=True):
            steps = tau + lags if reverse else tau - lags
            there = (steps >= 0) & (steps < self.lengths)
            aligned = torch.where(there, row.gather(0, steps.clamp(0, len(row) - 1)), torch.nan)
            rows.append(_quantile(aligned - aligned[0], 0.5))
        return torch.stack(rows)

    @property
    def has_gain(self) -> bool:
        """Whether `log10_gain` is known: for recurrent modules of torch.nn."""
        return self._gradients.gain_known

    def log10_gain(self) -> Float[Tensor, "row time"]:
        """The median over sequences of log10 of the factor by which one step back changes the gradient's norm.

        ‖(∂s_t/∂s_{t−1})ᵀ G_t‖ / ‖G_t‖, with s_t the states of the step side by side and G_t the gradient that arrives
        at them. Unlike the profile itself, it is not evened out by a loss at every step: below 0 the gradient vanishes,
        above 0 it explodes. NaN where nothing arrives; the first step of a row leads to its initial states.

        Raises `RequestError` for a module that is not a recurrent one of torch.nn.
        """
        return _quantile(torch.where(self.measured, self._gradients.log_gain(), torch.nan), 0.5)

    def reach(self, state: str | None = None) -> int:
        """How far back the loss reaches: the steps from the one at lag 0 to the furthest one whose median norm is above
        a hundredth of the maximum. Of the first row."""
        median = self.log10(state)[0]
        median = median if self.rows[0][1] else median.flip(0)
        if not bool(median.isfinite().any()):
            return 0
        near = (median > median[median.isfinite()].max() - 2).nonzero()
        return int(near[-1]) - int(median.isfinite().nonzero()[0])

    def rate(self, state: str | None = None) -> Float[Tensor, " row"]:
        """Decades per step back: the Theil–Sen slope of `by_lag`. Negative where the gradient vanishes."""
        curves = self.by_lag(state).cpu().numpy()
        return torch.tensor([theil_sen(curve) for curve in curves], dtype=torch.float64)

    def half_life(self, state: str | None = None) -> Float[Tensor, " row"]:
        """Steps back until the norm has halved: log10 2 / −rate; NaN where the gradient does not fall."""
        rates = self.rate(state)
        return torch.where(rates < 0, math.log10(2) / -rates, torch.nan)

    def log10_ratio(self, state: str | None = None) -> Float[Tensor, " row"]:
        """log10 of the norm at the step furthest back relative to that at lag 0, in decades: the median."""
        values = self.per_sequence(state)
        at_last = values.gather(1, self._reached_last(values)[:, None])[:, 0]
        ends = values.gather(1, (self.lengths - 1).expand(len(values), 1, -1))[:, 0]
        reverse = torch.tensor([reverse for _, reverse in self.rows], device=values.device)[:, None]
        return _quantile(torch.where(reverse, ends, values[:, 0]) - at_last, 0.5)


def _first(values: Mapping[str, Tensor]) -> Tensor:
    return next(iter(values.values()))


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Sequences (time, sequence, unit) beside each other, zero after their ends, in float32 or float64."""
    longest = max(len(part) for part in parts)
    padded = [torch.nn.functional.pad(part, (0, 0, 0, 0, 0, longest - len(part))) for part in parts]
    joined = torch.cat(padded, 1)
    return joined.to(torch.promote_types(joined.dtype, torch.float32))


def _quantile(values: Tensor, share: float) -> Tensor:
    """The quantile along the last axis, without NaN; −inf where interpolation would begin there, which would be NaN."""
    lower = values.nanquantile(share, dim=-1, interpolation="lower")
    return torch.where(lower.isneginf(), lower, values.nanquantile(share, dim=-1))
