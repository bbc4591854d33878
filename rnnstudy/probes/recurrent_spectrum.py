"""Spectral radius and largest singular value of the recurrent matrices."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import layer_label
from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every


class RecurrentSpectrum(Probe):
    """ρ(W) = max |eigenvalue| and σ_max(W) of every recurrent matrix, for each gate.

    σ_max·max φ′ bounds the growth of the gradient of a vanilla RNN in one step: below 1, the gradient must vanish. ρ
    describes many steps of a linear network: 1/k log ‖W^k‖ tends to log ρ. Both have no unit; ρ exists for square
    blocks only. They depend on the weights, not on sequences.

    Readings: `recurrent/W_hh_radius`, `recurrent/W_hh_largest_singular_value`; of a matrix with several blocks
    `recurrent/W_hh_f_radius` and so on (the blocks C̃ and h̃ are called candidate); before and after training
    `summary/recurrent_W_hh_radius_initial` and so on. Absent for weights that are not finite.

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
        return readings


def recurrent_blocks(moment: Moment) -> Iterator[tuple[str, Tensor]]:
    """(name, values (replica, in, out) in float64) of every block of every recurrent parameter, layer by layer."""
    if moment.cell is None:
        return
    recurrent = {name: item for name, item in moment.cell.parameters(1, 1).items() if item.role == "recurrent"}
    first = next(iter(recurrent), "")
    layers = 1 if first in moment.parameters else sum(name.startswith(f"{first}_layer") for name in moment.parameters)
    for layer in range(layers):
        for name, parameter in recurrent.items():
            label = layer_label(name, layer, layers)
            blocks = moment.parameters[label].detach().double().chunk(len(parameter.blocks), dim=-1)
            for block, values in zip(parameter.blocks, blocks, strict=True):
                # MLflow allows no combining characters in the names of metrics.
                plain = "candidate" if block in ("C̃", "h̃") else block
                yield label if len(blocks) == 1 else f"{label}_{plain}", values
