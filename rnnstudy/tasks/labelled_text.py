"""Labelled text: the user's own texts, read by character or by word; the answer is the label of the text."""

import csv
import functools
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from rnnstudy.spec import SpecError, at_least
from rnnstudy.tasks.data_set import DataSet
from rnnstudy.tasks.task import Batch, Criterion, inside, one_hot, supervised_at_end

SEPARATORS = {".csv": ",", ".tsv": "\t"}

SHARES = {"training": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}
"""Part to its first and last share of the texts in their fixed random order."""


class LabelledText(DataSet):
    """A text is read one character or one word at each step; at its last step, name its label.

    `path` is a CSV or TSV file (UTF-8) with a header and one text per row, or a folder with one folder per label and
    one text per `.txt` file. `text` and `label` name the columns. A text is cut after T = `length` symbols. `unit`:
    `character`, or `word` (lower case; punctuation marks are words). Each of the `symbols` most frequent symbols of the
    training part has its own one-hot input; all others share one more. One output per label, softmax and cross-entropy
    (nats) at the last step of each text.

    Equal texts count once. A random order that depends on the texts alone makes 80 % of them the training part, 10 %
    the validation part and 10 % the test part; texts are drawn with replacement. `content` is a hash of all texts and
    labels, computed when it is empty: a changed file makes another run, and a stored run refuses a changed file.

    Error: the share of texts misclassified. The criterion, ours: less than half the errors of always answering the most
    frequent label of the training part.

    Raises `SpecError`, which names the file and the line, for a file that does not exist, a missing column, a row with
    too many or too few fields, an empty text or label, or bytes that are not UTF-8; and for fewer than two labels or
    fewer than ten different texts.

    Sentiment analysis of a few reviews:

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> rows = [f"{word} film number {n},{label}" for n in range(15) for word, label in [("good", "+"), ("bad", "-")]]
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "reviews.csv")
    >>> _ = path.write_text("text,label\\n" + "\\n".join(rows))
    >>> reviews = LabelledText(path=str(path), unit="word", length=10)
    >>> drawn = reviews.sample(3, torch.Generator().manual_seed(1))
    >>> for row in range(3):
    ...     words = reviews.read(drawn.inputs[: drawn.lengths[row], row])
    ...     print(" ".join(words), "->", reviews.labels[drawn.targets[3, row]])
    good film number 12 -> +
    good film number 5 -> +
    bad film number 8 -> -
    >>> folder.cleanup()
    """

    source: ClassVar[str] = "the user's texts"

    path: str
    text: str = "text"
    label: str = "label"
    unit: Literal["character", "word"] = "character"
    symbols: Annotated[int, at_least(1)] = 1000
    content: str = ""

    def check(self) -> None:
        collection = self._collection
        if len(collection.labels) < 2:
            raise SpecError(f"{self.path} has {len(collection.labels)} label; a task needs two or more")
        if len(collection.texts) < 10:
            raise SpecError(
                f"{self.path} has {len(collection.texts)} different texts; it takes 10 or more to make three parts"
            )
        if self.content not in ("", collection.digest):
            raise SpecError(f"{self.path} has changed: its hash was {self.content} and is {collection.digest}")
        object.__setattr__(self, "content", collection.digest)

    @functools.cached_property
    def _collection(self) -> "_Collection":
        return _read(self.path, self.text, self.label, _stamp(Path(self.path).expanduser()))

    @property
    def _encoded(self) -> "_Encoded":
        return _encode(self._collection, self.unit, self.symbols, self.length, self.part)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each output, in alphabetical order."""
        return self._collection.labels

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The symbol of each input, the most frequent first; the last represents all other symbols."""
        return (*_vocabulary(self._collection, self.unit, self.symbols), "…")

    def read(self, inputs: Tensor) -> list[str]:
        """The symbols that one-hot inputs (time, features) represent."""
        return [self.vocabulary[index] for index in inputs.argmax(-1).tolist()]

    @property
    def features(self) -> int:
        return len(self.vocabulary)

    @property
    def outputs(self) -> int:
        return len(self.labels)

    @property
    def criterion(self) -> Criterion:
        training = _encode(self._collection, self.unit, self.symbols, self.length, "training").classes
        half = (1 - torch.bincount(training).max().item() / len(training)) / 2
        return Criterion(
            half, f"less than {half:.1%} of texts misclassified, half of chance (ours)", "share of texts misclassified"
        )

    @property
    def classes(self) -> Int[Tensor, " text"]:
        return self._encoded.classes

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        encoded = self._encoded
        drawn = torch.randint(len(encoded.classes), (batch,), generator=generator)
        lengths = encoded.lengths[drawn]
        valid = inside(self.steps, lengths)
        inputs = one_hot(encoded.symbols[:, drawn], self.features) * valid.unsqueeze(-1)
        return supervised_at_end(inputs, encoded.classes[drawn], valid, lengths)


@dataclass(frozen=True)
class _Collection:
    """The different texts with their labels, in their fixed random order."""

    texts: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    digest: str

    def __hash__(self) -> int:
        return hash(self.digest)

    def part(self, part: str) -> tuple[tuple[str, str], ...]:
        first, last = (round(share * len(self.texts)) for share in SHARES[part])
        return self.texts[first:last]


@dataclass(frozen=True)
class _Encoded:
    symbols: Int[Tensor, "time text"]
    lengths: Int[Tensor, " text"]
    classes: Int[Tensor, " text"]


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of each file, by which a changed file is read again."""
    files = sorted(path.glob("*/*.txt")) if path.is_dir() else [path] if path.is_file() else []
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@functools.lru_cache(maxsize=8)
def _read(path: str, text: str, label: str, stamp: tuple[tuple[str, int, int], ...]) -> _Collection:
    source = Path(path).expanduser()
    if source.is_dir():
        rows = set(_folder_rows(source, [Path(file) for file, _, _ in stamp]))
    elif not stamp:
        raise SpecError(f"there is no file or folder {path}; LabelledText.path is a CSV or TSV file, or a folder")
    elif source.suffix.lower() not in SEPARATORS:
        raise SpecError(
            f"{path} ends in '{source.suffix}'; it takes .csv, .tsv, or a folder with one folder for each label"
        )
    else:
        rows = set(_table_rows(source, text, label))
    ordered = sorted(rows, key=lambda row: hashlib.sha256("\0".join(row).encode()).digest())
    digest = hashlib.sha256(repr(ordered).encode()).hexdigest()[:12]
    return _Collection(tuple(ordered), tuple(sorted({label for _, label in ordered})), digest)


def _decoded(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SpecError(
            f"{path}, line {line}: byte {raw[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from None


def _folder_rows(folder: Path, files: list[Path]) -> Iterator[tuple[str, str]]:
    if not files:
        raise SpecError(f"{folder} has no texts; it takes one folder for each label, with .txt files in it")
    for file in files:
        content = _decoded(file).strip()
        if not content:
            raise SpecError(f"{file}, line 1: the file is empty; it must contain a text")
        yield content, file.parent.name


def _table_rows(path: Path, text: str, label: str) -> Iterator[tuple[str, str]]:
    rows = csv.reader(io.StringIO(_decoded(path), newline=""), delimiter=SEPARATORS[path.suffix.lower()], strict=True)
    try:
        header = next(rows, [])
        line = rows.line_num
        for column in (text, label):
            if column not in header:
                raise SpecError(f"{path}, line 1: there is no column '{column}'; the columns are {', '.join(header)}")
        for row in rows:
            first, line = line + 1, rows.line_num
            if not row:
                continue
            if len(row) != len(header):
                raise SpecError(f"{path}, line {first}: {len(row)} fields; the header has {len(header)}")
            fields = dict(zip(header, map(str.strip, row), strict=True))
            for column in (text, label):
                if not fields[column]:
                    raise SpecError(f"{path}, line {first}: the {column} is empty")
            yield fields[text], fields[label]
    except csv.Error as error:
        raise SpecError(f"{path}, line {rows.line_num}: {error}") from None


def _split_up(text: str, unit: str) -> list[str]:
    return list(text) if unit == "character" else re.findall(r"\w+|[^\w\s]", text.lower())


@functools.lru_cache(maxsize=8)
def _vocabulary(collection: _Collection, unit: str, most: int) -> tuple[str, ...]:
    counts = Counter(symbol for text, _ in collection.part("training") for symbol in _split_up(text, unit))
    return tuple(sorted(counts, key=lambda symbol: (-counts[symbol], symbol))[:most])


@functools.lru_cache(maxsize=8)
def _encode(collection: _Collection, unit: str, most: int, longest: int, part: str) -> _Encoded:
    vocabulary = {symbol: index for index, symbol in enumerate(_vocabulary(collection, unit, most))}
    texts = collection.part(part)
    numbers = [[vocabulary.get(s, len(vocabulary)) for s in _split_up(text, unit)[:longest]] for text, _ in texts]
    symbols = torch.zeros(longest, len(texts), dtype=torch.long)
    for column, text in enumerate(numbers):
        symbols[: len(text), column] = torch.tensor(text)
    return _Encoded(
        symbols=symbols,
        lengths=torch.tensor([len(text) for text in numbers]),
        classes=torch.tensor([collection.labels.index(label) for _, label in texts]),
    )
