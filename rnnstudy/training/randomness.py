"""Independent random streams, all derived from a run's seeds.

Initialisation, training data, evaluation and probes draw from separate generators, so that adding a probe or evaluating
more often changes neither the training data nor the weights.
"""

import hashlib

import torch


def generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A CPU generator whose stream depends on (seed, purpose, index) alone.

    Draws always happen on the CPU, so that a run sees the same data on every device.
    """
    text = f"{seed}/{purpose}/{index}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(number)
