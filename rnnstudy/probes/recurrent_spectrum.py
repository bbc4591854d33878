"""Spectral radius and largest singular value of the recurrent matrices."""

import functools
import logging
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import Cell
from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every

logger = logging.getLogger("rnnstudy")


class RecurrentSpectrum(Probe):
    """ρ(W) = max |eigenvalue| and σ_max(W) of every recurrent matrix, for each gate.

    σ_max·max φ′ bounds the growth of the gradient of a vanilla RNN in one step: below 1, the gradient must vanish. ρ
    describes many steps of a linear network: 1/k log ‖W^k‖ tends to log ρ. Both have no unit; ρ exists for square
    blocks only. They depend on the weights, not on sequences.

    Readings: `recurrent/W_hh_radius`, `recurrent/W_hh_largest_singular_value`; of a matrix with several blocks
    `recurrent/W_hh_f_radius` and so on (the blocks C̃ and h̃ are called candidate); before and after training
    `summary/recurrent_W_hh_radius_initial` and so on. Absent for weights that are not finite.

    Of a diagonal recurrence that is the same at every step (LRU, S4D; the weights u of an IndRNN) the largest and the
    smallest |a| over its units: `recurrent/diagonal_radius`, `recurrent/diagonal_least`. Where the factors are made
    from the input (minGRU, S6), there is nothing to read from weights, which is logged once; `LyapunovExponents`,
    `SingularValues` and `Saturation` read such recurrences on sequences.

    Source: Pascanu, Mikolov & Bengio 2013, section 2.1 (code: RNN.py, rho_Whh).
    """

    source: ClassVar[str] = "Pascanu, Mikolov & Bengio 2013, section 2.1 (code: RNN.py)"

    every: Every = 100

    def read(self, moment: Moment) -> list[Reading]:
        readings = []
        for name, matrices in recurrent_blocks(moment):
            finite = matrices.isfinite().flatten(1).all(1)
            without_nan = torch.where(finite[:, None, None], matrices, 0.0)
            measures = {"largest_singular_value": torch.linalg.svdvals(without_nan)[:, 0]}
            if without_nan.shape[1] == without_nan.shape[2]:
                measures["radius"] = torch.linalg.eigvals(without_nan).abs().amax(-1)
            for measure, numbers in measures.items():
                values = torch.where(finite, numbers, torch.nan)
                readings.append(Reading(moment.scalar("recurrent", f"{name}_{measure}"), values, (), ""))
        return [*readings, *diagonal_readings(moment)]


def recurrent_blocks(moment: Moment) -> Iterator[tuple[str, Tensor]]:
    """(name, values (replica, in, out) in float64) of every block of every recurrent matrix, layer by layer.

    Of a matrix that the cell makes from a parameter (the rotation of an ExpRNN) the values that a step reads.
    """
    if moment.cell is None:
        return
    recurrent = {name: item for name, item in moment.cell.parameters(1, 1).items() if item.role == "recurrent"}
    for ending in _endings(moment, next(iter(recurrent), "")):
        prepared = moment.cell.prepared(_own_parameters(moment, ending))
        for name, parameter in recurrent.items():
            label = name + ending
            blocks = prepared[name].chunk(len(parameter.blocks), dim=-1)
            for block, values in zip(parameter.blocks, blocks, strict=True):
                # MLflow allows no combining characters in the names of metrics.
                plain = "candidate" if block in ("C̃", "h̃") else block
                yield label if len(blocks) == 1 else f"{label}_{plain}", values


def diagonal_readings(moment: Moment) -> list[Reading]:
    """The largest and the smallest modulus of a diagonal recurrence, layer by layer; none where they are not fixed."""
    if moment.cell is None:
        return []
    readings = []
    for ending in _endings(moment, next(iter(moment.cell.parameters(1, 1)))):
        moduli = moment.cell.fixed_moduli(_own_parameters(moment, ending))
        if moduli is None:
            _say_where_to_look(moment.cell)
            return []
        finite = torch.where(moduli.isfinite().all(-1, keepdim=True), moduli, torch.nan)
        for measure, values in (("radius", finite.amax(-1)), ("least", finite.amin(-1))):
            readings.append(Reading(moment.scalar("recurrent", f"diagonal{ending}_{measure}"), values, (), ""))
    return readings


@functools.cache
def _say_where_to_look(cell: Cell) -> None:
    if not any(parameter.role == "recurrent" for parameter in cell.parameters(1, 1).values()):
        logger.warning(
            "RecurrentSpectrum reads nothing of %s, whose factors depend on its input; "
            "LyapunovExponents and SingularValues read them on sequences",
            type(cell).__name__,
        )


def _own_parameters(moment: Moment, ending: str) -> dict[str, Tensor]:
    """The parameters of a recurrence in float64, under the names that the cell gives them."""
    assert moment.cell is not None
    names = moment.cell.parameters(1, 1)
    return {name: moment.parameters[name + ending].detach().double() for name in names}


def _endings(moment: Moment, name: str) -> list[str]:
    """What the names of the parameter `name` of each layer and direction end with, in the order of the network."""
    if not name:
        return []
    found = [one.removeprefix(name) for one in moment.parameters if one.startswith(name)]
    return [ending for ending in found if not ending or ending.startswith(("_layer", "_reverse"))]
