"""How strong the recurrent matrices are: spectral radius and largest singular value."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.cells.cell import layer_label
from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.probes.schedule import Every


class RecurrentSpectrum(Probe):
    """ρ(W) = max |eigenvalue| and σ_max(W) of every recurrent matrix, gate by gate.

    σ_max·max φ′ bounds what one step does to a vanilla RNN's gradient: where it is below 1, the gradient must vanish. ρ
    is what many steps do in a linear network: 1/k log ‖W^k‖ tends to log ρ. Both without unit; ρ exists for square
    blocks alone. The weights are read, no sequence is needed.

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
            sound = torch.where(finite[:, None, None], matrices, 0.0)
            measures = {"largest_singular_value": torch.linalg.svdvals(sound)[:, 0]}
            if sound.shape[1] == sound.shape[2]:
                measures["radius"] = torch.linalg.eigvals(sound).abs().amax(-1)
            for measure, values in measures.items():
                kept = torch.where(finite, values, torch.nan)
                readings.append(Reading(moment.scalar("recurrent", f"{name}_{measure}"), kept, (), ""))
        return readings


def recurrent_blocks(moment: Moment) -> Iterator[tuple[str, Tensor]]:
    """(name, values (replica, in, out) in float64) of every block of every recurrent parameter, layer by layer."""
    if moment.cell is None:
        return
    recurrent = {name: one for name, one in moment.cell.parameters(1, 1).items() if one.role == "recurrent"}
    first = next(iter(recurrent), "")
    layers = 1 if first in moment.parameters else sum(name.startswith(f"{first}_layer") for name in moment.parameters)
    for layer in range(layers):
        for name, described in recurrent.items():
            label = layer_label(name, layer, layers)
            blocks = moment.parameters[label].detach().double().chunk(len(described.blocks), dim=-1)
            for block, values in zip(described.blocks, blocks, strict=True):
                # Metric names take no combining characters.
                plain = "candidate" if block in ("C̃", "h̃") else block
                yield label if len(blocks) == 1 else f"{label}_{plain}", values
