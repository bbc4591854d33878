"""Whether an informative input can still be read from the state, by how long ago the network has read it."""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rnnstudy.probes.first_informative import FirstInformative, WhichStates, state_of
from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least, between

FLOAT32_ROUNDING = 2.0**-24
"""The largest relative error of a number rounded to float32."""


class StateDecoder(Probe):
    """How much of the first informative input a linear decoder recovers from the state, by the age of that input.

    With t_b the first informative step of sequence b, y_b = x_{t_b} the input there, and h the output state of a layer,
    a decoder is fitted for each age a = t − t_b on the n sequences of one half of `sequences` fixed sequences,

        ŷ_b = W h_{t_b+a} + w,  with W, w that minimise Σ_b ‖y_b − ŷ_b‖² + n (σ² s² + ε² m²) ‖W‖²,

    and evaluated on the other half, then the other way round; over both halves together,

        R² = 1 − Σ_b ‖y_b − ŷ_b‖² / Σ_b ‖y_b − ȳ‖².

    s² is the mean over units of the variance of h, m² of its mean square, ȳ the mean of y, all over the half that W is
    fitted on. The penalty is what white noise in the states amounts to: of relative size σ = `noise` against what
    differs between sequences, and of the size of float32's rounding, ε = 2⁻²⁴, against the states themselves. So a
    trace that the network's own arithmetic loses is not kept.

    R² is 1 where the input can be read exactly. It is not clipped: where nothing can be read, it is 0 for states that
    do not differ, and below 0 for states that differ in other ways, since a decoder of N units then fits chance: by
    least squares it comes to about −N/(n − N − 1). Take several times as many sequences as units.

    Only sequences with t_b + a ≤ τ_b, the last supervised step, take part. Ages that fewer than half of the sequences
    reach are absent, and so is R² where y is the same in all of them, or a state is not finite. Nothing is read for a
    task that marks no step as informative, or every step. With `states="all"`, all states of a layer side by side
    (`joint`; for the LSTM c and h) in place of the output state.

    In the reverse direction of a bidirectional layer the age is t_b − t, and the sequences with t_b − a ≥ 1 take part.

    Readings for each layer: `decoded/<state>` (share of variance) over axis `age`, `_initial` or `_final` appended
    outside training; `summary/decoded_<state>_<stage>`, R² at the largest age measured.

    Source: linear classifier probes as in Alain & Bengio 2017; penalty and alignment by age are this project's.
    """

    source: ClassVar[str] = "Alain & Bengio 2017 for linear probes; alignment by age and penalty are this project's"

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(2)] = 256
    noise: Annotated[float, between(1e-5, 1)] = 0.01
    states: WhichStates = "output"

    def read(self, moment: Moment) -> list[Reading]:
        batch, readings = moment.side_batch(self.sequences), []
        first = FirstInformative.of(batch)
        if first is None:
            return []
        for (label, layer), reverse in zip(batch.labelled_layers(), batch.reversed_layers, strict=True):
            state, values = state_of(layer, self.states)
            seen = first.seen_by(reverse)
            shares = decoded(seen.by_age(values), seen.inputs, seen.reached, self.noise)
            shares = torch.where(seen.common, shares, torch.nan).T
            readings.append(Reading(moment.curve(f"decoded/{label(state)}"), shares, ("age",), "share"))
            if moment.stage != "training":
                at_end = seen.at_largest_age(shares)
                readings.append(Reading(moment.named(f"decoded_{label(state)}"), at_end, (), "share"))
        return readings


def decoded(
    states: Float[Tensor, "age replica batch width"],
    targets: Float[Tensor, "replica batch features"],
    reached: Bool[Tensor, "age replica batch"],
    noise: float,
) -> Float[Tensor, "age replica"]:
    """R² of the decoder at each age; NaN where it is not defined."""
    half = torch.arange(targets.shape[1], device=targets.device) < targets.shape[1] // 2
    shares = []
    # An age at a time: the matrices of all ages together may need more memory than the states.
    for own, taking_part in zip(states, reached, strict=True):
        finite = own.isfinite().flatten(1).all(1)
        own = torch.where(finite[:, None, None], own, 0.0)
        halves = [_squares(own, targets, taking_part & half, taking_part & ~half, noise)]
        halves.append(_squares(own, targets, taking_part & ~half, taking_part & half, noise))
        of_decoder, of_mean = (sum(squares) for squares in zip(*halves, strict=True))
        share = 1 - of_decoder / of_mean
        shares.append(torch.where(finite & _varies(targets, taking_part), share, torch.nan))
    return torch.stack(shares)


def _squares(
    states: Float[Tensor, "replica batch width"],
    targets: Float[Tensor, "replica batch features"],
    fitted: Bool[Tensor, "replica batch"],
    evaluated: Bool[Tensor, "replica batch"],
    noise: float,
) -> tuple[Float[Tensor, " replica"], Float[Tensor, " replica"]]:
    """Σ ‖y − ŷ‖² and Σ ‖y − ȳ‖² over the evaluated sequences; NaN where no sequence is fitted."""
    fit, evaluate = fitted.unsqueeze(-1).double(), evaluated.unsqueeze(-1).double()
    count = fit.sum(1, keepdim=True)
    # The decoder is the same in any unit of h; in this one, squares stay in range.
    largest = (states.abs() * fit).amax((1, 2), keepdim=True)
    states = states / torch.where(largest > 0, largest, 1.0)
    centred = states - (states * fit).sum(1, keepdim=True) / count
    wanted = targets - (targets * fit).sum(1, keepdim=True) / count
    own = centred * fit
    width = states.shape[-1]
    penalty = (noise**2 * own.square() + FLOAT32_ROUNDING**2 * (states * fit).square()).sum((1, 2)) / width
    # States of zeros leave W = 0 whatever the penalty is.
    penalty = torch.where(penalty > 0, penalty, 1.0)[:, None, None]
    identity = torch.eye(width, dtype=states.dtype, device=states.device)
    known = (count > 0).view(-1)
    normal = torch.where(known[:, None, None], own.mT @ own + penalty * identity, identity)
    weights = torch.linalg.solve(normal, own.mT @ (wanted * fit))
    of_decoder = ((wanted - centred @ weights).square() * evaluate).sum((1, 2))
    of_mean = (wanted.square() * evaluate).sum((1, 2))
    return torch.where(known, of_decoder, torch.nan), torch.where(known, of_mean, torch.nan)


def _varies(
    targets: Float[Tensor, "replica batch features"], chosen: Bool[Tensor, "replica batch"]
) -> Bool[Tensor, " replica"]:
    """Whether any feature differs between the chosen sequences."""
    highest = torch.where(chosen.unsqueeze(-1), targets, -torch.inf).amax(1)
    lowest = torch.where(chosen.unsqueeze(-1), targets, torch.inf).amin(1)
    return (highest > lowest).any(-1)
