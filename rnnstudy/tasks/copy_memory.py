"""Copy memory: remember ten symbols over many blank steps, then output them in order."""

from collections.abc import Mapping
from math import log
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rnnstudy.tasks.classification import SequenceClassification
from rnnstudy.tasks.task import Batch, Chance, Criterion, inside, one_hot

SYMBOLS = 10
ALPHABET = 8
BLANK, MARKER = 0, 9


class CopyMemory(SequenceClassification):
    """Ten symbols, many blanks, a marker; the targets of the last ten steps are the ten symbols, in order.

    T + 20 steps, symbols uniform on 1..8, blank 0, marker 9. Targets: blank for the first T + 10 steps, then the ten
    symbols. Softmax and cross-entropy (nats) averaged over all T + 20 steps. A predictor without memory attains
    10·ln 8/(T + 20). Three incompatible variants are in use; indices count from 0:

    `arjovsky`: T − 1 blanks, the marker at index T + 9 (one step before the recall begins), then 10 blanks. Ten one-hot
    inputs, nine outputs. (Arjovsky, Shah & Bengio 2016, code: memory_problem.py.)

    `exprnn`: T blanks, the marker at index T + 10 (the step at which the recall begins), then 9 blanks. Ten one-hot
    inputs, nine outputs. (Lezcano-Casado & Martínez-Rubio 2019, code: 1_copying.py.)

    `tcn`: T − 1 blanks, then the marker from index T + 9 to the end, eleven times. One input, the number of the symbol;
    ten outputs. (Bai, Kolter & Koltun 2018, code: copy_memory/utils.py.)

    Error: the share of the ten recalled symbols that are wrong (chance 7/8). `sequence_error`: 1 when any of them is
    wrong. No success criterion was published; ours is a symbol error below 1 %.

    >>> import torch
    >>> drawn = CopyMemory(length=5).sample(1, torch.Generator().manual_seed(0))
    >>> show = lambda symbols: "".join("_12345678>"[s] for s in symbols)
    >>> print(show(drawn.inputs[:, 0].argmax(-1)))
    5861444824____>__________
    >>> print(show(drawn.targets[:, 0]))
    _______________5861444824
    """

    source: ClassVar[str] = "Arjovsky, Shah & Bengio 2016 (code: memory_problem.py); variants of expRNN and TCN"
    criterion: ClassVar[Criterion] = Criterion(
        0.01, "less than 1 % of recalled symbols wrong", "share of recalled symbols wrong"
    )

    variant: Literal["arjovsky", "exprnn", "tcn"] = "arjovsky"

    @property
    def steps(self) -> int:
        return self.length + 2 * SYMBOLS

    @property
    def features(self) -> int:
        return 1 if self.variant == "tcn" else ALPHABET + 2

    @property
    def outputs(self) -> int:
        return ALPHABET + (2 if self.variant == "tcn" else 1)

    @property
    def chance(self) -> Chance:
        """Blanks are certain; each recalled symbol is one of eight: 10·ln 8/(T + 20) nats, 7/8 wrong."""
        return Chance(loss=SYMBOLS * log(ALPHABET) / self.steps, error=1 - 1 / ALPHABET)

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        drawn = torch.randint(1, ALPHABET + 1, (SYMBOLS, batch), generator=generator)
        recall = self.length + SYMBOLS
        markers = {
            "arjovsky": slice(recall - 1, recall),
            "exprnn": slice(recall, recall + 1),
            "tcn": slice(recall - 1, None),
        }
        symbols = torch.full((self.steps, batch), BLANK)
        symbols[:SYMBOLS] = drawn
        symbols[markers[self.variant]] = MARKER
        targets = torch.full((self.steps, batch), BLANK)
        targets[-SYMBOLS:] = drawn
        as_number = symbols.to(torch.get_default_dtype()).unsqueeze(-1)
        return Batch(
            inputs=as_number if self.variant == "tcn" else one_hot(symbols, self.features),
            targets=targets,
            mask=torch.ones(self.steps, batch, dtype=torch.bool),
            lengths=torch.full((batch,), self.steps),
            informative=inside(self.steps, torch.full((batch,), SYMBOLS)),
        )

    def measures(self, outputs: Tensor, targets: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        return super().measures(outputs, targets, mask & (targets != BLANK))
