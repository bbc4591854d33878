"""Products of float32 matrices in float32's own precision, whatever the caller allows elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_products() -> Iterator[None]:
    """Meanwhile, CUDA's matrix products take no TF32 inputs.

    TF32 keeps ten bits of each factor: over 200 steps the norms of a gradient then err by a tenth of a decade, and by
    decades where the network is chaotic.
    """
    matmul = torch.backends.cuda.matmul
    try:
        allowed = matmul.allow_tf32
    except RuntimeError:
        # Set through torch's newer name alone, after which the older one cannot be read.
        before = matmul.fp32_precision
        matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = before
        return
    matmul.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32 = allowed
