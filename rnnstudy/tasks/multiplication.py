"""Multiplication: a sequence of numbers, two of them marked; the answer is the product of the two."""

from math import log
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from rnnstudy.tasks.marked_pairs import MarkedPairs
from rnnstudy.tasks.task import Chance


class Multiplication(MarkedPairs):
    """As `Adding`, but the target is the product of the two marked values; values U[0, 1] in all variants.

    `modern`: exactly T steps, one mark in each half, target x₁·x₂, error the squared error. No criterion was published
    for it; ours is that of adding, a mean squared error below 0.01. The best constant, 1/4, attains 7/144 = 0.0486.

    `pascanu` (Pascanu, Mikolov & Bengio 2013, code: multiplication.py): lengths and marks as in `Adding`; error: the
    share of sequences whose squared error exceeds 0.04. The constant 1/4 is "wrong" on only 39 %, and the constant
    0.2 on 23 %: an error near 25 % does not show that anything was learned.

    `hochreiter` (Hochreiter & Schmidhuber 1997, experiment 5): lengths and marks as in `Adding`; a value chosen at the
    first pair counts as 1; error: the share of sequences with an absolute error of 0.04 or more.

    Squared error at the last step; `share_within_0.04` (absolute error below 0.04) is reported for all three.

    Raises `SpecError` for a length too short for the marks: below 2, 10 and 22 in the three variants.

    >>> import torch
    >>> drawn = Multiplication(length=6).sample(1, torch.Generator().manual_seed(1))
    >>> for step in range(6):
    ...     value, mark = drawn.inputs[step, 0].tolist()
    ...     print(f"{value:.2f}" + " <- marked" * int(mark))
    0.03 <- marked
    0.80
    0.40
    0.75 <- marked
    0.57
    0.44
    >>> print(f"target {drawn.targets[-1, 0].item():.3f}")
    target 0.022
    """

    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, exp. 5; Pascanu et al. 2013 (code: multiplication.py)"

    @property
    def chance(self) -> Chance:
        """The best constant: the target's mean. Its loss is the target's variance.

        P(x₁·x₂ ≤ z) = z − z·ln z.
        """

        def below(product: float) -> float:
            return product - product * log(product)

        match self.variant:
            case "modern":
                return Chance(loss=7 / 144, error=7 / 144)
            case "pascanu":
                return Chance(loss=7 / 144, error=below(0.05) + 1 - below(0.45))
            case "hochreiter":
                # One of the two values counts as 1 when its pair is the first of the sequence.
                one_value = self.share_marked_at_start
                mean = (1 - one_value) / 4 + one_value / 2
                return Chance(
                    loss=(1 - one_value) / 9 + one_value / 3 - mean**2,
                    error=1 - (1 - one_value) * (below(mean + 0.04) - below(mean - 0.04)) - one_value * 0.08,
                )

    def values(self, drawn: Float[Tensor, "time batch"]) -> Float[Tensor, "time batch"]:
        return drawn

    def answer(self, chosen: Float[Tensor, "2 batch"], positions: Int[Tensor, "2 batch"]) -> Float[Tensor, " batch"]:
        if self.variant == "hochreiter":
            chosen = chosen.where(positions > 0, 1.0)
        return chosen.prod(0)
