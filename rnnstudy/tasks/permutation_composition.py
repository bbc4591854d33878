"""State tracking: compose permutations of a few items; the answer at every step is the product of all read so far."""

import functools
import itertools
from math import factorial, log
from typing import Annotated, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from rnnstudy.spec import between
from rnnstudy.tasks.classification import SequenceClassification
from rnnstudy.tasks.task import Batch, Chance, Criterion, one_hot


class PermutationComposition(SequenceClassification):
    """T permutations of n = `items` items; at every step, name the permutation that all read so far amount to.

        p_t = x_t ∘ p_{t−1},   (x ∘ p)(i) = x(p(i)),      p_0 = identity

    The n! permutations are numbered in lexicographic order, so that 0 is the identity. x_t is uniform on them, one-hot;
    n! outputs, softmax and cross-entropy (nats) averaged over all steps. This is the word problem of the symmetric
    group S_n, the formal core of state tracking (following the moves of a game, the variables of a program). S_2 is
    parity; from S_3 on the order of the inputs matters; S_5 is complete for the class NC¹, which linear recurrences
    with diagonal factors cannot reach in a fixed number of layers unless it equals TC⁰.

    Error: the share of steps that are wrong (chance 1 − 1/n!: p_t is uniform at every step). `sequence_error`: 1 when
    any step is wrong. The criterion of 1 % is ours.

    Raises `SpecError` for a length below 2.

    >>> import torch
    >>> drawn = PermutationComposition(length=12).sample(1, torch.Generator().manual_seed(0))
    >>> print(" ".join(str(int(x)) for x in drawn.inputs[:, 0].argmax(-1)))
    2 3 5 0 1 3 1 1 1 3 5 2
    >>> print(" ".join(str(int(p)) for p in drawn.targets[:, 0]))
    2 5 0 0 1 2 4 2 4 0 5 4
    """

    source: ClassVar[str] = "Merrill, Petty & Sabharwal 2024 (The illusion of state), sections 3 and 5"
    criterion: ClassVar[Criterion] = Criterion(0.01, "less than 1 % of steps wrong (ours)", "share of steps wrong")

    items: Annotated[int, between(2, 5)] = 3

    def check(self) -> None:
        self.require_length(2, "so that there is something to compose")

    @property
    def features(self) -> int:
        return factorial(self.items)

    @property
    def outputs(self) -> int:
        return factorial(self.items)

    @property
    def chance(self) -> Chance:
        """All n! permutations are equally likely at every step: ln n! nats, 1 − 1/n! wrong."""
        return Chance(loss=log(self.outputs), error=1 - 1 / self.outputs)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        read = torch.randint(self.outputs, (self.steps, batch), generator=generator)
        table, product = products(self.items), torch.zeros(batch, dtype=torch.long)
        targets = torch.empty_like(read)
        for step, symbols in enumerate(read):
            product = table[symbols, product]
            targets[step] = product
        everywhere = torch.ones(self.steps, batch, dtype=torch.bool)
        return Batch(
            inputs=one_hot(read, self.features),
            targets=targets,
            mask=everywhere,
            lengths=torch.full((batch,), self.steps),
            informative=everywhere,
        )


@functools.cache
def products(items: int) -> Int[Tensor, "second first"]:
    """The multiplication table of S_n: entry (x, p) is the number of x ∘ p, which applies p first."""
    permutations = list(itertools.permutations(range(items)))
    number = {permutation: index for index, permutation in enumerate(permutations)}
    rows = [[number[tuple(x[i] for i in p)] for p in permutations] for x in permutations]
    return torch.tensor(rows)
