"""Adding: a sequence of numbers, two of them marked; the answer is the sum of the two."""

from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from rnnstudy.tasks.marked_pairs import MarkedPairs
from rnnstudy.tasks.task import Chance


class Adding(MarkedPairs):
    """Two of many numbers are marked; the target, at the last step of the sequence, is their sum.

    Two inputs at each step, (value, mark); one linear output; squared error at the last step only. Three variants are
    in use; their results are not comparable:

    `modern` (Arjovsky, Shah & Bengio 2016, and most work since): exactly T steps; values U[0, 1]; one mark (1) uniform
    in the first half, one in the second; target x₁ + x₂. Error: the squared error. The constant 1 attains 1/6.

    `pascanu` (Pascanu, Mikolov & Bengio 2013, code: addition.py): l = T + uniform{0, …, int(.1T) − 1} steps; values
    U[0, 1]; first mark uniform on [0, int(.1l)), second on [int(.1l), int(.1l) + int(.4l)); target (x₁ + x₂)/2. Error:
    the share of sequences whose *squared* error exceeds 0.04. (Their code draws l once per batch; here it is drawn per
    sequence.) The constant 0.5 attains a loss of 1/24, and is "wrong" on only 36 %.

    `hochreiter` (Hochreiter & Schmidhuber 1997, experiment 4): l steps, uniform on T, …, T + int(.1T); values U[−1, 1];
    first mark among the first 10 pairs, second among the first T/2 − 1 pairs that are still unmarked; the first and
    the last pair have mark −1, and a value chosen at the first pair counts as 0; target 0.5 + (X₁ + X₂)/4.
    Error: the share of sequences with an absolute error of 0.04 or more. The published stopping rule used the training
    sequences; here the 0.04 applies to fresh ones.

    `share_within_0.04` (absolute error below 0.04) is reported for all three.

    Raises `SpecError` for a length too short for the marks: below 2, 10 and 22 in the three variants.

    >>> import torch
    >>> drawn = Adding(length=8).sample(1, torch.Generator().manual_seed(1))
    >>> for step in range(8):
    ...     value, mark = drawn.inputs[step, 0].tolist()
    ...     print(f"{value:.2f}" + " <- marked" * int(mark))
    0.03 <- marked
    0.80
    0.40
    0.75
    0.57 <- marked
    0.44
    0.64
    0.52
    >>> print(f"target {drawn.targets[-1, 0].item():.2f}")
    target 0.60
    """

    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, exp. 4; Pascanu et al. 2013; Arjovsky et al. 2016"

    @property
    def chance(self) -> Chance:
        """The best constant: the target's mean. Its loss is the target's variance."""
        match self.variant:
            case "modern":
                return Chance(loss=1 / 6, error=1 / 6)
            case "pascanu":
                # x₁ + x₂ is triangular on [0, 2]: P(|x₁ + x₂ − 1| > 0.4) = 0.6².
                return Chance(loss=1 / 24, error=0.36)
            case "hochreiter":
                # One of the two values counts as 0 when its pair is the first of the sequence.
                one_value = self.share_marked_at_start
                return Chance(
                    loss=(1 - one_value) / 24 + one_value / 48,
                    error=(1 - one_value) * (2 - 0.16) ** 2 / 4 + one_value * (1 - 0.16),
                )

    def values(self, drawn: Float[Tensor, "time batch"]) -> Float[Tensor, "time batch"]:
        return 2 * drawn - 1 if self.variant == "hochreiter" else drawn

    def answer(self, chosen: Float[Tensor, "2 batch"], positions: Int[Tensor, "2 batch"]) -> Float[Tensor, " batch"]:
        match self.variant:
            case "modern":
                return chosen.sum(0)
            case "pascanu":
                return chosen.mean(0)
            case "hochreiter":
                return 0.5 + (chosen * (positions > 0)).sum(0) / 4
