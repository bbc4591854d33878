"""The Triton kernels over tiles, warps and precision: what the launch table should say."""

import torch

from benchmarks.gpu_steps import Take, milliseconds, population_step
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.lstm import LSTM
from rnnstudy.engines.triton import TritonEngine, interpreted, verified
from rnnstudy.engines.triton_kernels.table import TABLE, Launch

VARIANTS = {
    ("Elman", 64): [
        Launch(16, 4, "tf32x3"),
        Launch(16, 8, "tf32x3"),
        Launch(32, 4, "tf32x3"),
        Launch(32, 8, "tf32x3"),
        Launch(16, 4, "tf32x3", stages=2),
        Launch(16, 4, "ieee"),
        Launch(16, 8, "ieee"),
    ],
    ("LSTM", 64): [
        Launch(16, 8, "tf32x3"),
        Launch(16, 4, "tf32x3"),
        Launch(32, 8, "tf32x3"),
        Launch(16, 8, "tf32x3", stages=2),
        Launch(16, 8, "ieee"),
    ],
}


def measured_variants(take: Take, device: torch.device, tiny: bool) -> None:
    """Hand `take` the milliseconds of a step for each variant; those that do not agree are told, not timed."""
    if device.type != "cuda" and not interpreted():
        take("triton", "its kernels need CUDA")
        return
    for place, variants in VARIANTS.items():
        cell = Elman(width=50) if place[0] == "Elman" else LSTM(width=50)
        usual = TABLE[place]
        for replicas in (2,) if tiny else (132, 512):
            found = {}
            for variant in variants[:1] if tiny else variants:
                # The table is read at each launch; a variant stands in it for as long as it is measured.
                TABLE[place] = variant
                verified.cache_clear()
                if verified(cell, device):
                    step = population_step(TritonEngine(), cell, 10 if tiny else 200, replicas, device)
                    found |= milliseconds({str(variant): step}, device, tiny)
                else:
                    found[str(variant)] = "does not agree with the reference, or does not launch"
                take(f"{place[0]} K={replicas}", found)
        TABLE[place] = usual
