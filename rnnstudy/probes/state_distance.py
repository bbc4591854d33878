"""How far apart the states of two sequences are that differ in one informative input."""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rnnstudy.engines.block_float import BlockFloat
from rnnstudy.engines.scaled import ScaledTrajectory
from rnnstudy.probes.first_informative import FirstInformative, WhichStates, state_of
from rnnstudy.probes.probe import BackwardPass, Moment, Probe, batch_quantiles
from rnnstudy.probes.reading import MEDIAN, Reading
from rnnstudy.probes.schedule import Every, StartAndEnd
from rnnstudy.spec import at_least

ROUNDING = 1e-14
"""A distance below this share of the state itself is rounding error of float64."""


class StateDistance(Probe):
    """log10 of the distance between the states of two sequences that differ in one input, by the age of that input.

    The partner of sequence b is b itself with x_{t_b}, the input at its first informative step, replaced by that of the
    next sequence, in the order of the `sequences` fixed sequences (the first follows the last), in which it differs. A
    sequence without such a next one is left out. With h and h′ the output states of a layer, both computed in float64
    through all layers, at the age a = t − t_b ≥ 0 with t ≤ τ_b, the last supervised step,

        distance = log10 ‖h_t − h′_t‖,   relative = log10 (‖h_t − h′_t‖ / D_a),

    with D_a the root mean square of ‖h_{t_b+a} − h_{t_c+a}‖ over all pairs b, c of different sequences that reach this
    age: how large the trace of one input is against what distinguishes sequences anyway.

    A distance below 10⁻¹⁴ ‖h_t‖ is rounding error and counts as zero. Zeros rank lowest, and a quantile that depends on
    one is absent; the reading `…_zeros` is their share. Nothing is read for a task that marks no step as informative,
    or every step. With `states="all"`, all states of a layer side by side (`joint`; for the LSTM c and h) in place of
    the output state.

    In the reverse direction of a bidirectional layer the age is t_b − t, with t ≥ 1.

    Readings for each layer, with `_initial` or `_final` appended outside training: `distance/<state>` and
    `distance/<state>_relative` (log10), quantiles over the pairs by axis `age`; `distance/<state>_<stage>_zeros`.
    Summaries: `distance_<state>_<stage>` and `distance_<state>_relative_<stage>`, the median over the pairs at the
    largest age that at least half of the sequences reach.

    Source: this project; the question is that of Bengio, Simard & Frasconi 1994, whether a system latches a bit.
    """

    source: ClassVar[str] = "this project, for the latching of information of Bengio, Simard & Frasconi 1994"

    every: Every = StartAndEnd()
    sequences: Annotated[int, at_least(2)] = 256
    states: WhichStates = "output"

    def read(self, moment: Moment) -> list[Reading]:
        batch, readings = moment.side_batch(self.sequences), []
        first = FirstInformative.of(batch)
        if first is None:
            return []
        partner, paired = next_different(first.inputs, first.marked)
        changed = _with_changed_input(batch, first, partner)
        layers = zip(batch.labelled_layers(), batch.reversed_layers, changed, strict=True)
        for (label, layer), reverse, other in layers:
            state, values = state_of(layer, self.states)
            seen = first.seen_by(reverse)
            measured = seen.reached & paired
            states, others = seen.by_age(values), seen.by_age(state_of(other, self.states)[1])
            least = BlockFloat.of(states, 3).log_norms() + math.log10(ROUNDING)
            logs = _without_rounding(states - others, least)
            relative = logs - _log_spread(states, least, seen.reached)
            for name, distances in ((label(state), logs), (f"{label(state)}_relative", relative)):
                quantiles = batch_quantiles(distances, measured)
                curve = moment.curve(f"distance/{name}")
                readings.append(Reading(curve, quantiles, ("quantile", "age"), "log10"))
                if moment.stage != "training":
                    at_end = seen.at_largest_age(quantiles[:, MEDIAN])
                    readings.append(Reading(moment.named(f"distance_{name}"), at_end, (), "log10"))
            zeros = ((logs == -torch.inf) & measured).sum(-1) / measured.sum(-1)
            readings.append(Reading(f"{moment.curve(f'distance/{label(state)}')}_zeros", zeros.T, ("age",), "share"))
        return readings


def next_different(
    inputs: Float[Tensor, "replica batch features"], marked: Bool[Tensor, "replica batch"]
) -> tuple[Int[Tensor, "replica batch"], Bool[Tensor, "replica batch"]]:
    """For each sequence the next marked one, cyclically, with another input; and whether there is one."""
    replicas, count, features = inputs.shape
    kinds = inputs.reshape(-1, features).unique(dim=0, return_inverse=True)[1].view(replicas, count)
    differs = (kinds.unsqueeze(2) != kinds.unsqueeze(1)) & marked.unsqueeze(2) & marked.unsqueeze(1)
    order = torch.arange(count, device=inputs.device)
    shift = (order - order.unsqueeze(1)) % count
    nearest, partner = torch.where(differs, shift, count).min(2)
    return partner, nearest < count


def _with_changed_input(
    batch: BackwardPass, first: FirstInformative, partner: Int[Tensor, "replica batch"]
) -> Sequence[ScaledTrajectory]:
    """All layers, lowest first, when every sequence reads the first informative input of its partner."""
    inputs = batch.network_inputs
    index = first.step[None, ..., None].expand(1, -1, -1, inputs.shape[-1])
    own = inputs.gather(0, index)
    others = own.gather(2, partner[None, ..., None].expand(own.shape))
    return batch.layers_reading(inputs.scatter(0, index, others))


def _without_rounding(
    differences: Float[Tensor, "age replica batch width"], least: Float[Tensor, "age replica batch"]
) -> Float[Tensor, "age replica batch"]:
    """log10 of the norms; −inf below `least`."""
    logs = BlockFloat.of(differences, 3).log_norms()
    return torch.where(logs < least, -torch.inf, logs)


def _log_spread(
    states: Float[Tensor, "age replica batch width"],
    least: Float[Tensor, "age replica batch"],
    reached: Bool[Tensor, "age replica batch"],
) -> Float[Tensor, "age replica 1"]:
    """log10 of the root mean square distance over all pairs of sequences; NaN for fewer than two sequences.

    Over n sequences it is the root of 2/(n − 1) Σ_b ‖h_b − h̄‖².
    """
    count = reached.sum(-1, keepdim=True).double()
    mean = states.sum(2, keepdim=True) / count.unsqueeze(-1).clamp(min=1)
    logs = torch.where(reached, _without_rounding(states - mean, least), -torch.inf)
    # Squares leave float64's range before their root does.
    log_sum = torch.logsumexp(2 * math.log(10) * logs, dim=-1, keepdim=True) / math.log(10)
    return torch.where(count > 1, (log_sum + (2 / (count - 1)).log10()) / 2, torch.nan)
