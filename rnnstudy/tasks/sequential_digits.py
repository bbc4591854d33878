"""Sequential digits: pictures of handwritten digits, read pixel by pixel; the answer is the digit."""

import functools
import hashlib
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rnnstudy.spec import RequestError
from rnnstudy.tasks.data_set import DataSet
from rnnstudy.tasks.task import Batch, Criterion, inside, supervised_at_end

PIXELS = 64
VALIDATION = TEST = 300


class SequentialDigits(DataSet):
    """A picture of a digit, 8 × 8 pixels, is read one pixel at each step; at the last step, name the digit.

    T = `length` steps: the 64 pixels row by row, each in [0, 1], then T − 64 blanks (0), over which the answer must be
    remembered. `permuted`: the pixels of all pictures come in one fixed random order instead, so that neighbours in the
    picture are no longer neighbours in time. One input, ten outputs, softmax and cross-entropy (nats) at the last step.

    The 1797 pictures are those that come with scikit-learn (Alpaydin & Kaynak 1998, the test half of "Optical
    Recognition of Handwritten Digits", brightness 0 to 16 divided by 16); a fixed random order makes 1197 of them the
    training part, 300 the validation part and 300 the test part. Sequences are drawn with replacement.

    Error: the share of pictures misclassified. A small version of sequential MNIST (Le, Jaitly & Hinton 2015); no
    criterion is published for these pictures; ours is an error below 5 %.

    Raises `SpecError` for a length below 64. Sampling raises `RequestError` where scikit-learn is not installed.

    >>> import torch
    >>> drawn = SequentialDigits(length=64).sample(2, torch.Generator().manual_seed(0))
    >>> for row in drawn.inputs.reshape(8, 8, 2).permute(0, 2, 1):
    ...     print("   ".join("".join(" .:*#"[int(4 * pixel)] for pixel in picture) for picture in row).rstrip())
       *#:         :##
      :#:.       .#*:#
       :          . .*
      *            .*:
      #**:       .##*
      ##*#:      :::*
      *#.**        *.
       *##:        *
    >>> drawn.targets[-1].tolist()
    [6, 7]
    """

    source: ClassVar[str] = "Le, Jaitly & Hinton 2015 (sequential MNIST), with the digits of scikit-learn"
    features: ClassVar[int] = 1
    outputs: ClassVar[int] = 10
    criterion: ClassVar[Criterion] = Criterion(
        0.05, "less than 5 % of pictures misclassified (ours)", "share of pictures misclassified"
    )

    permuted: bool = False

    def check(self) -> None:
        self.require_length(PIXELS, "the pixels of a picture")

    @property
    def classes(self) -> Int[Tensor, " picture"]:
        return self._pictures()[1]

    def _pictures(self) -> tuple[Float[Tensor, "picture pixel"], Int[Tensor, " picture"]]:
        pixels, digits = _collection()
        bounds = {
            "training": slice(0, -VALIDATION - TEST),
            "validation": slice(-VALIDATION - TEST, -TEST),
            "test": slice(-TEST, None),
        }
        return pixels[bounds[self.part]], digits[bounds[self.part]]

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        pixels, digits = self._pictures()
        drawn = torch.randint(len(digits), (batch,), generator=generator)
        order = torch.tensor(_shuffled(PIXELS, "pixel")) if self.permuted else torch.arange(PIXELS)
        inputs = torch.zeros(self.steps, batch, 1)
        inputs[:PIXELS, :, 0] = pixels[drawn][:, order].T
        return supervised_at_end(inputs, digits[drawn], inside(self.steps, torch.full((batch,), PIXELS)))


@functools.cache
def _collection() -> tuple[Float[Tensor, "picture pixel"], Int[Tensor, " picture"]]:
    """All pictures and their digits, in a fixed random order."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise RequestError("SequentialDigits needs scikit-learn, which contains the pictures; install it") from None
    pixels, digits = load_digits(return_X_y=True)
    order = torch.tensor(_shuffled(len(digits), "picture"))
    return (torch.from_numpy(pixels) / 16).to(torch.get_default_dtype())[order], torch.from_numpy(digits).long()[order]


def _shuffled(count: int, what: str) -> list[int]:
    """0, …, count − 1 in a pseudo-random order that depends on no library version."""
    return sorted(range(count), key=lambda index: hashlib.sha256(f"{what} {index}".encode()).digest())
