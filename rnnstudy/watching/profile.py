"""The gradient of one recurrent module by time: norms for each sequence, their medians, and how fast they fall."""

import functools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnnstudy.probes.gradient_through_time import theil_sen
from rnnstudy.spec import RequestError, nearest
from rnnstudy.watching.call import Call
from rnnstudy.watching.group import gradients_of_calls, norms_of_calls
from rnnstudy.watching.recompute import DirectionGradients


class Profile:
    """log10 ‖dL/ds_t‖ of a recurrent module's states s: total derivatives of the loss that was differentiated.

    The norm is over the units of a layer in one direction, for each sequence. Rows are layers and directions: layer 1
    forward, layer 1 reverse, layer 2 forward, …. Values are in float64 and right far beyond the range of a float; an
    exact zero is −inf, and a step after a sequence's end is NaN. Calls of a module that follow each other, such as
    those of a cell in a loop, are the steps of one sequence; other calls in one pass are sequences beside each other.

    Attributes:
        states: `("h",)`, or `("h", "c")` for an LSTM.
        rows: for each row its layer, counted from 0, and whether it reads the sequence from its end.
        lengths: steps of each sequence.
        kind: class of the module: `RNN`, `LSTM` or `GRU`.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.rows = tuple(calls[0].directions)
        self.lengths: Int[Tensor, " sequence"]
        self.lengths, self._log_norms = norms_of_calls(calls)
        self.states = tuple(self._log_norms)
        self.kind = type(calls[0].module).__name__
        self._calls = calls

    @functools.cached_property
    def _directions(self) -> list[DirectionGradients]:
        """The gradients themselves, computed when they are asked for."""
        return gradients_of_calls(self._calls)

    def __repr__(self) -> str:
        steps, sequences = int(self.lengths.max()), len(self.lengths)
        return f"Profile({', '.join(self.states)}; {len(self.rows)} rows, {steps} steps, {sequences} sequences)"

    @property
    def measured(self) -> Bool[Tensor, "time sequence"]:
        """True at the steps that a sequence has."""
        time = self._log_norms["h"].shape[1]
        return torch.arange(time, device=self.lengths.device)[:, None] < self.lengths

    def per_sequence(self, state: str = "h") -> Float[Tensor, "row time sequence"]:
        """log10 ‖dL/ds_t‖ for each sequence; −inf for an exact zero, NaN after the sequence's end.

        Raises `RequestError` for a state that the module does not have.
        """
        if state not in self.states:
            raise RequestError(f"there is no state '{state}'{nearest(state, self.states)}; it has {self.states}")
        return torch.where(self.measured, self._log_norms[state], torch.nan)

    def quantile(self, share: float, state: str = "h") -> Float[Tensor, "row time"]:
        """The quantile over sequences at each step, linearly interpolated; −inf where too many are exact zeros."""
        return _quantile(self.per_sequence(state), share)

    def log10(self, state: str = "h") -> Float[Tensor, "row time"]:
        """The median over sequences of log10 ‖dL/ds_t‖ at each step."""
        return self.quantile(0.5, state)

    def per_unit(self, state: str = "h") -> Float[Tensor, "row time unit"]:
        """log10 of the root mean square over sequences of dL/ds_t, for each unit."""
        rows = []
        for direction in self._directions:
            gradient = getattr(direction.gradients, state)
            mantissas, shared = gradient.aligned((1,))
            mean_square = mantissas.double().square().sum(1) / self.measured.sum(1, keepdim=True)
            rows.append(mean_square.log10() / 2 + shared[:, 0, None].double() * math.log10(2))
        return torch.stack(rows)

    def zeros(self, state: str = "h") -> Float[Tensor, "row time"]:
        """The share of sequences whose gradient is exactly zero at each step."""
        return self.per_sequence(state).isneginf().sum(-1) / self.measured.sum(-1)

    def nonfinite(self, state: str = "h") -> Float[Tensor, "row time"]:
        """The share of sequences whose gradient is infinite or not a number at each step."""
        values = self._log_norms[state]
        return ((values.isnan() | values.isposinf()) & self.measured).sum(-1) / self.measured.sum(-1)

    def first_nonfinite(self) -> str | None:
        """Where, going back in time, a value first is not finite: layer, direction, step and gate; None if nowhere."""
        for direction in reversed(self._directions):
            bad = ~direction.gradients.delta.mantissa.isfinite()
            steps = bad.flatten(1).any(1).nonzero().flatten()
            if len(steps):
                layer, reverse = direction.direction
                step = int(steps[0] if reverse else steps[-1])
                blocks = bad[step].unflatten(-1, (len(direction.gates), -1)).any(-1).any(0)
                gates = [gate for gate, is_bad in zip(direction.gates, blocks.tolist(), strict=True) if is_bad]
                way = "reverse" if reverse else "forward"
                return f"layer {layer + 1} ({way}), step {step + 1}, gate {', '.join(gates)}"
        return None

    def by_lag(self, state: str = "h") -> Float[Tensor, "row lag"]:
        """The median over sequences of log10 (‖dL/ds_t‖ / ‖dL/ds_τ‖), by lag from the step τ that is reached last.

        That is the last step of each sequence, and the first one for the reverse direction.
        """
        values = self.per_sequence(state)
        time = values.shape[1]
        lags = torch.arange(time, device=values.device)[:, None]
        rows = []
        for (_, reverse), row in zip(self.rows, values, strict=True):
            steps = lags.expand_as(row) if reverse else self.lengths - 1 - lags
            aligned = torch.where(steps >= 0, row.gather(0, steps.clamp(min=0)), torch.nan)
            rows.append(_quantile(aligned - aligned[0], 0.5))
        return torch.stack(rows)

    def log10_gain(self) -> Float[Tensor, "row time"]:
        """The median over sequences of log10 of the factor by which one step back changes the gradient's norm.

        ‖(∂s_t/∂s_{t−1})ᵀ G_t‖ / ‖G_t‖, with s_t the states of the step side by side and G_t the gradient that arrives
        at them. Unlike the profile itself, it does not depend on where the loss enters: below 0 the gradient vanishes,
        above 0 it explodes. NaN where nothing arrives; the first step of a row leads to its initial states.
        """
        measured = [torch.where(self.measured, of.gradients.log_gain, torch.nan) for of in self._directions]
        return _quantile(torch.stack(measured), 0.5)

    def rate(self, state: str = "h") -> Float[Tensor, " row"]:
        """Decades per step back: the Theil–Sen slope of `by_lag`. Negative where the gradient vanishes."""
        curves = self.by_lag(state).cpu().numpy()
        return torch.tensor([theil_sen(curve) for curve in curves], dtype=torch.float64)

    def half_life(self, state: str = "h") -> Float[Tensor, " row"]:
        """Steps back until the norm has halved: log10 2 / −rate; NaN where the gradient does not fall."""
        rates = self.rate(state)
        return torch.where(rates < 0, math.log10(2) / -rates, torch.nan)

    def log10_ratio(self, state: str = "h") -> Float[Tensor, " row"]:
        """log10 of the norm at the step furthest back relative to that at lag 0, in decades: the median."""
        values = self.per_sequence(state)
        last = (self.lengths - 1).expand(len(values), 1, -1)
        at_end, at_start = values.gather(1, last)[:, 0], values[:, 0]
        reverse = torch.tensor([reverse for _, reverse in self.rows], device=values.device)[:, None]
        ratio = torch.where(reverse, at_end - at_start, at_start - at_end)
        return _quantile(ratio, 0.5)


def _quantile(values: Tensor, share: float) -> Tensor:
    """The quantile along the last axis, without NaN; −inf where interpolation would begin there, which would be NaN."""
    lower = values.nanquantile(share, dim=-1, interpolation="lower")
    return torch.where(lower.isneginf(), lower, values.nanquantile(share, dim=-1))
