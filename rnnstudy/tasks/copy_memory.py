"""Copy memory: remember ten symbols through a long blank, then say them in order."""

from collections.abc import Mapping
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from rnnstudy.tasks import task
from rnnstudy.tasks.task import Batch, Chance, Criterion, Task

SYMBOLS = 10
ALPHABET = 8
BLANK, MARKER = 0, 9


class CopyMemory(Task):
    """Ten symbols, T − 1 blanks, a marker, ten blanks; during the last ten steps the ten symbols are due, in order.

    T + 20 steps: 10 symbols uniform on 1..8, then T − 1 blanks (0), the marker (9) at index T + 9 counted from 0, then
    10 blanks. Targets: blank for the first T + 10 steps, then the ten symbols. Ten one-hot inputs, nine outputs, softmax
    and cross-entropy (nats) averaged over all T + 20 steps. The memoryless predictor attains 10·ln 8/(T + 20).

    Error: the share of the ten recalled symbols that are wrong (chance 7/8). `sequence_error`: 1 when any of them is.
    No success criterion was published; ours is a symbol error below 1 %.

    Source: Hochreiter & Schmidhuber's idea in the form of Arjovsky, Shah & Bengio 2016 (code: memory_problem.py). Two
    incompatible variants circulate: expRNN's (recall starts at the marker step) and TCN's (marker repeated to the end).

    >>> import torch
    >>> drawn = CopyMemory(length=5).sample(1, torch.Generator().manual_seed(0))
    >>> show = lambda symbols: "".join("_12345678>"[s] for s in symbols)
    >>> print(show(drawn.inputs[:, 0].argmax(-1)))
    5861444824____>__________
    >>> print(show(drawn.targets[:, 0]))
    _______________5861444824
    """

    source: ClassVar[str] = "Arjovsky, Shah & Bengio 2016 (code: memory_problem.py)"
    loss_unit: ClassVar[str] = "nats"

    @property
    def steps(self) -> int:
        return self.length + 2 * SYMBOLS

    @property
    def features(self) -> int:
        return ALPHABET + 2

    @property
    def outputs(self) -> int:
        return ALPHABET + 1

    @property
    def criterion(self) -> Criterion:
        return Criterion(0.01, "less than 1 % of recalled symbols wrong", "share of recalled symbols wrong")

    @property
    def chance(self) -> Chance:
        """Blanks are certain; each recalled symbol is one of eight: 10·ln 8/(T + 20) nats, seven in eight wrong."""
        return Chance(loss=SYMBOLS * log(ALPHABET) / self.steps, error=1 - 1 / ALPHABET)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        drawn = torch.randint(1, ALPHABET + 1, (SYMBOLS, batch), generator=generator)
        symbols = torch.full((self.steps, batch), BLANK)
        symbols[:SYMBOLS] = drawn
        symbols[self.length + SYMBOLS - 1] = MARKER
        targets = torch.full((self.steps, batch), BLANK)
        targets[-SYMBOLS:] = drawn
        informative = torch.zeros(self.steps, batch, dtype=torch.bool)
        informative[:SYMBOLS] = True
        return Batch(
            inputs=task.one_hot(symbols, self.features),
            targets=targets,
            mask=torch.ones(self.steps, batch, dtype=torch.bool),
            lengths=torch.full((batch,), self.steps),
            informative=informative,
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return task.cross_entropy(outputs, targets)

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        wrong = task.misclassified(outputs[-SYMBOLS:], targets[-SYMBOLS:])
        return {"error": wrong.mean(0), "sequence_error": wrong.amax(0)}
