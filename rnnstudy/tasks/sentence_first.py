"""Long texts whose first sentence decides: the user's labelled sentences, one after the other."""

from typing import Annotated, ClassVar

import torch

from rnnstudy.spec import at_least
from rnnstudy.tasks.labelled_text import LabelledText
from rnnstudy.tasks.task import Batch, inside, numbered, supervised_at_end


class SentenceFirst(LabelledText):
    """A document of T symbols: a sentence whose label is to be named at the end, then other sentences until T is full.

    The sentences are the texts of `LabelledText`, each cut after `sentence` symbols; those after the first one are of
    the same part and of any label, drawn with replacement, and the last one is cut off at T = `length`. The first
    sentence is the same whatever T is: what makes a longer document harder is only what stands behind it. A word count
    of the whole document has ever less of the first sentence in it; a network that reads it in order can keep what it
    read.

    Output, loss, error, criterion and chance level are those of `LabelledText`.

    Raises `SpecError` where T is below `sentence`, and what `LabelledText` raises.

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> rows = [f"{word} film number {n},{label}" for n in range(15) for word, label in [("good", "+"), ("bad", "-")]]
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "reviews.csv")
    >>> _ = path.write_text("text,label\\n" + "\\n".join(rows))
    >>> documents = SentenceFirst(path=str(path), unit="word", length=10, sentence=4)
    >>> drawn = documents.sample(2, torch.Generator().manual_seed(1))
    >>> for row in range(2):
    ...     print(" ".join(documents.read(drawn.inputs[:, row])), "->", documents.labels[drawn.targets[9, row]])
    bad film number 2 bad film number 5 good film -> -
    good film number 1 good film number 11 good film -> +
    >>> folder.cleanup()
    """

    source: ClassVar[str] = "this project; the user's texts"
    version: ClassVar[int] = 1

    sentence: Annotated[int, at_least(1)] = 20

    def check(self) -> None:
        super().check()
        self.require_length(self.sentence, "the symbols of its first sentence")

    @property
    def longest(self) -> int:
        return self.sentence

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        encoded, columns = self._encoded, torch.arange(batch)
        # A last sentence may begin at any place before T: it is written whole, and cut off with the rows behind T.
        symbols = torch.zeros(self.steps + self.sentence, batch, dtype=torch.int32)
        ends, first = torch.zeros(batch, dtype=torch.long), None
        while first is None or int(ends.min()) < self.steps:
            drawn = torch.randint(len(encoded.classes), (batch,), generator=generator)
            first = drawn if first is None else first
            lengths = encoded.lengths[drawn]
            read = inside(self.sentence, lengths)
            places = ends + torch.arange(self.sentence)[:, None]
            symbols[places[read], columns.expand_as(read)[read]] = encoded.symbols[:, drawn][read]
            ends = (ends + lengths).clamp(max=self.steps)
        decisive = inside(self.steps, encoded.lengths[first])
        return supervised_at_end(numbered(symbols[: self.steps]), encoded.classes[first], decisive)
