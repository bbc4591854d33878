"""Noiseless memorisation: remember a short pattern over many blank steps and output it after a trigger."""

from collections.abc import Mapping
from math import log
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.tasks.classification import Classification
from rnnstudy.tasks.task import (
    Batch,
    Chance,
    Criterion,
    any_supervised,
    mean_over_supervised,
    misclassified,
    one_hot,
    rarely,
)


class NoiselessMemorisation(Classification):
    """A pattern of n symbols, T blanks, a trigger; the target is "no output" before the trigger, then the pattern.

    T + 2n steps. One-hot inputs: v values, blank, trigger. The pattern fills the first n steps, each symbol uniform on
    the values; all other steps are blank except the trigger at index T + n (from 0). Targets: class v ("no output") at
    the first T + n steps, then the pattern. v + 1 outputs, softmax and cross-entropy (nats) averaged over all steps.

    `5 bits`: v = 2, n = 5 (32 patterns). `20 bits`: v = 5, n = 10 (5¹⁰ patterns, 23.2 bits: "more than 20" in the
    paper).

    Error: the share of sequences with any step wrong. `symbol_error`: the share of wrong symbols in the pattern.

    Source: the idea of Hochreiter & Schmidhuber, in the form of Martens & Sutskever 2011 and Pascanu, Mikolov & Bengio
    2013 (code: memorization.py, where the 5-bit variant trains on all 32 patterns at once; here they are drawn).

    >>> import torch
    >>> drawn = NoiselessMemorisation(length=6).sample(1, torch.Generator().manual_seed(1))
    >>> print("".join("01_>"[s] for s in drawn.inputs[:, 0].argmax(-1)))
    11001______>____
    >>> print("".join("01_"[s] for s in drawn.targets[:, 0]))
    ___________11001
    """

    source: ClassVar[str] = "Martens & Sutskever 2011; Pascanu, Mikolov & Bengio 2013 (code: memorization.py)"
    criterion: ClassVar[Criterion] = rarely("any step wrong")

    variant: Literal["5 bits", "20 bits"] = "5 bits"

    @property
    def values(self) -> int:
        """Number of different symbols in patterns, v."""
        return {"5 bits": 2, "20 bits": 5}[self.variant]

    @property
    def positions(self) -> int:
        """Length of a pattern, n."""
        return {"5 bits": 5, "20 bits": 10}[self.variant]

    @property
    def steps(self) -> int:
        return self.length + 2 * self.positions

    @property
    def features(self) -> int:
        return self.values + 2

    @property
    def outputs(self) -> int:
        return self.values + 1

    @property
    def chance(self) -> Chance:
        """“No output” is certain, each symbol one of v: n·ln v/(T + 2n) nats; a guess is right once in vⁿ."""
        return Chance(
            loss=self.positions * log(self.values) / self.steps, error=1 - float(self.values) ** -self.positions
        )

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        pattern = torch.randint(self.values, (self.positions, batch), generator=generator)
        symbols = torch.full((self.steps, batch), self.values)
        symbols[: self.positions] = pattern
        symbols[self.length + self.positions] = self.values + 1
        targets = torch.full((self.steps, batch), self.values)
        targets[-self.positions :] = pattern
        informative = torch.arange(self.steps)[:, None].expand(-1, batch) < self.positions
        return Batch(
            inputs=one_hot(symbols, self.features),
            targets=targets,
            mask=torch.ones(self.steps, batch, dtype=torch.bool),
            lengths=torch.full((batch,), self.steps),
            informative=informative,
        )

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        wrong = misclassified(outputs, targets)
        return {
            "error": any_supervised(wrong, mask),
            "symbol_error": mean_over_supervised(wrong, mask & (targets < self.values)),
        }
