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
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from rnnstudy.cells.one_hot import NOTHING
from rnnstudy.errors import shown
from rnnstudy.spec import LOCATION, SpecError, at_least
from rnnstudy.tasks import locations
from rnnstudy.tasks.data_set import DataSet
from rnnstudy.tasks.task import Batch, Criterion, inside, numbered, supervised_at_end

SEPARATORS = {".csv": ",", ".tsv": "\t"}

HELD_BACK = 0.1
"""The share of each label's texts in the validation part, and the same in the test part."""

FEWEST = 3
"""Each label needs so many texts, one for each part."""

UNLABELLED = ("unsup", "unlabeled", "unlabelled", "unlabel")
"""Names of folders that hold texts without a label in collections that people have."""


class LabelledText(DataSet):
    """A text is read one character or one word at each step; at its last step, name its label.

    `path` is a CSV or TSV file (UTF-8) with a header and one text per row, or a folder with one folder per label and
    one text per `.txt` file; where it is relative, it begins at the experiment file's folder, at the project's, or at
    the working directory. `text` and `label` name the columns. `quoting` says what quotation marks mean in a table:
    in `quotes`, a field in quotes may hold separators and line ends; in `none`, they are characters like others, and
    each line is one text; by default `quotes`, or `none` for a TSV file that quotes would make no sense of. Texts whose
    label is in `leave_out` are not used. A text is cut after T = `length` symbols. `unit`:
    `character`, or `word` (lower case; punctuation marks are words). Each of the `symbols` most frequent symbols of the
    training part has a number of its own; all others share one more. The network reads a symbol as a one-hot vector, of
    which a batch holds the number alone. One output per label, softmax and cross-entropy
    (nats) at the last step of each text.

    Equal texts count once. Of each label, a random order that depends on the texts alone makes 80 % the training
    part, 10 % the validation part and 10 % the test part, at least one each; texts are drawn with replacement.
    `content` is a hash of all texts and labels, computed when it is empty. It identifies the texts, wherever they lie:
    equal texts at another path are the same run, a changed file makes another one, and a stored run refuses it.

    Error: the share of texts misclassified. The criterion, ours: less than half the errors of always answering the most
    frequent label of the training part.

    Raises `SpecError`, which names the file and the line, for a file that does not exist, a missing column, a row with
    too many or too few fields, an empty text or label, or bytes that are not UTF-8; for quotes that can be read in two
    ways; and for fewer than two labels, a label with fewer than three texts, a text with two labels, or fewer than ten
    different texts.

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
    bad film number 2 -> -
    good film number 1 -> +
    bad film number 5 -> -
    >>> folder.cleanup()
    """

    source: ClassVar[str] = "the user's texts"
    version: ClassVar[int] = 2

    path: Annotated[str, LOCATION]
    text: str = "text"
    label: str = "label"
    unit: Literal["character", "word"] = "character"
    symbols: Annotated[int, at_least(1)] = 1000
    quoting: Literal["automatic", "quotes", "none"] = "automatic"
    leave_out: tuple[str, ...] = ()
    content: str = ""

    def check(self) -> None:
        collection = self._collection
        if len(collection.labels) < 2:
            raise SpecError(f"{self.path} has {len(collection.labels)} label; a task needs two or more")
        if len(collection.texts) < 10:
            raise SpecError(
                f"{self.path} has {len(collection.texts)} different texts; it takes 10 or more to make three parts"
            )
        counts = Counter(label for _, label in collection.texts)
        if rare := [f"{label!r} ({count})" for label, count in sorted(counts.items()) if count < FEWEST]:
            raise SpecError(
                f"{self.path} has {len(rare)} labels with fewer than {FEWEST} different texts, one for each part: "
                f"{', '.join(rare[:5])}; add texts, or leave_out these labels"
            )
        if twice := [text for text, number in Counter(text for text, _ in collection.texts).items() if number > 1]:
            raise SpecError(
                f"{self.path} has {len(twice)} texts with two labels, such as {shown(sorted(twice)[0][:60])}; "
                "keep each with one label"
            )
        if self.content not in ("", collection.digest):
            raise SpecError(
                f"{self.path} has changed: its hash was {self.content} and is {collection.digest}; bring the former "
                "texts back, or make another run of these with content=''"
            )
        object.__setattr__(self, "content", collection.digest)

    @functools.cached_property
    def _collection(self) -> "_Collection":
        place = locations.find(self.path, identified=bool(self.content))
        if place is None:
            path, places = shown(self.path)[1:-1], locations.places_of(self.path)
            raise SpecError(
                f"there is no file or folder {path}{places}; LabelledText.path is a CSV or TSV file, or a folder"
            )
        try:
            return _read(place, (self.text, self.label), self.quoting, self.leave_out, _stamp(place))
        except OSError as error:
            raise SpecError(f"{place} cannot be read ({error.strerror or error})") from None

    @property
    def _encoded(self) -> "_Encoded":
        return _encode(self._collection, self.unit, self.symbols, self.longest, self.part)

    @property
    def longest(self) -> int:
        """How many symbols of a text are read at most."""
        return self.length

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each output, in alphabetical order."""
        return self._collection.labels

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The symbol of each number, the most frequent first; the last represents all other symbols."""
        return (*_vocabulary(self._collection, self.unit, self.symbols), "…")

    def read(self, inputs: Tensor) -> list[str]:
        """The symbols that the inputs (time, 1) of one text represent."""
        return [self.vocabulary[index] for index in inputs.flatten().tolist() if index != NOTHING]

    @property
    def features(self) -> int:
        return len(self.vocabulary)

    @property
    def inputs_are_symbols(self) -> bool:
        return True

    @property
    def outputs(self) -> int:
        return len(self.labels)

    @property
    def criterion(self) -> Criterion:
        training = _encode(self._collection, self.unit, self.symbols, self.longest, "training").classes
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
        inputs = numbered(encoded.symbols[:, drawn], valid)
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
        """The texts of a part, of every label its share."""
        chosen = []
        for label in self.labels:
            texts = [row for row in self.texts if row[1] == label]
            held_back = max(1, round(HELD_BACK * len(texts)))
            ends = {"training": -2 * held_back, "validation": -held_back, "test": len(texts)}
            begins = {"training": 0, "validation": -2 * held_back, "test": -held_back}
            chosen += texts[begins[part] : ends[part]]
        return tuple(chosen)


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
def _read(
    source: Path,
    columns: tuple[str, str],
    quoting: str,
    leave_out: tuple[str, ...],
    stamp: tuple[tuple[str, int, int], ...],
) -> _Collection:
    if source.is_dir():
        found = _folder_rows(source, [Path(file) for file, _, _ in stamp], leave_out)
    elif not stamp:
        raise SpecError(f"{source} is neither a file nor a folder; LabelledText.path is a CSV or TSV file, or a folder")
    elif source.suffix.lower() not in SEPARATORS:
        raise SpecError(
            f"{source} ends in '{source.suffix}'; it takes .csv, .tsv, or a folder with one folder for each label"
        )
    else:
        found = _table_rows(source, columns, quoting)
    rows = {(text, label) for text, label in found if label not in leave_out}
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


def _folder_rows(folder: Path, files: list[Path], leave_out: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    parts = sorted({file.parent.parent.name for file in folder.glob("*/*/*.txt")})
    if parts:
        raise SpecError(
            f"{folder} has folders within folders ({', '.join(parts[:5])}); name the one whose folders are the labels, "
            f"for example {folder / parts[0]}"
        )
    if not files:
        raise SpecError(f"{folder} has no texts; it takes one folder for each label, with .txt files in it")
    for file in files:
        label = file.parent.name
        if label in leave_out:
            continue
        if label.lower() in UNLABELLED:
            raise SpecError(
                f"{file.parent} seems to hold texts without a label; leave_out=('{label}',) leaves them out"
            )
        content = _decoded(file).strip()
        if not content:
            raise SpecError(f"{file}, line 1: the file is empty; it must contain a text")
        yield content, label


class _Row(NamedTuple):
    """The fields of a row of a table, and its first and last line."""

    first: int
    last: int
    fields: list[str]


def _table_rows(path: Path, columns: tuple[str, str], quoting: str) -> Iterator[tuple[str, str]]:
    header, *rows = _rows(path, quoting) or [_Row(1, 1, [])]
    names = [name.strip() for name in header.fields]
    for column in columns:
        if column not in names:
            raise SpecError(f"{path}, line 1: there is no column '{column}'; the columns are {', '.join(names)}")
        if names.count(column) > 1:
            raise SpecError(f"{path}, line 1: {names.count(column)} columns are called '{column}'; rename the others")
    for row in rows:
        if len(row.fields) != len(names):
            raise SpecError(f"{path}, line {row.first}: {len(row.fields)} fields; the header has {len(names)}")
        text, label = (row.fields[names.index(column)].strip() for column in columns)
        for column, value in zip(columns, (text, label), strict=True):
            if not value:
                raise SpecError(f"{path}, line {row.first}: the {column} is empty")
        yield text, label


def _rows(path: Path, quoting: str) -> list[_Row]:
    """The rows of a table, without empty lines."""
    content, separator = _decoded(path), SEPARATORS[path.suffix.lower()]
    lines = re.split(r"\r\n|\n|\r", content)
    plain = [_Row(number, number, line.split(separator)) for number, line in enumerate(lines, 1) if line]
    if quoting == "none" or '"' not in content:
        return plain
    # Without quotes, is every line a whole row?
    whole = len({len(row.fields) for row in plain}) == 1
    try:
        rows = _quoted(path, content, separator)
    except SpecError:
        if quoting == "automatic" and path.suffix.lower() == ".tsv" and whole:
            return plain
        raise
    width = len(plain[0].fields)
    for row in rows:
        inside = _field_counts(lines[row.first - 1 : row.last], separator)
        if quoting == "automatic" and row.last > row.first and all(count == width for count in inside):
            if path.suffix.lower() == ".tsv" and whole:
                return plain
            raise SpecError(
                f"{path}, lines {row.first} to {row.last}: quotes make one text of rows that are whole without them; "
                "quoting='none' takes quotes as characters, quoting='quotes' takes the lines as one text"
            )
    return rows


def _field_counts(lines: list[str], separator: str) -> list[int]:
    """The number of fields in each line, without regard to quotes."""
    return [line.count(separator) + 1 for line in lines]


def _quoted(path: Path, content: str, separator: str) -> list[_Row]:
    # Python's own limit of 131,072 characters for a field is for the whole process.
    limit = csv.field_size_limit(max(len(content), csv.field_size_limit()))
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    rows, line = [], 0
    try:
        for fields in reader:
            if fields:
                rows.append(_Row(line + 1, reader.line_num, fields))
            line = reader.line_num
    except csv.Error as error:
        raise SpecError(
            f"{path}, line {reader.line_num}: {error}; where quotes are plain characters, set quoting='none'"
        ) from None
    finally:
        csv.field_size_limit(limit)
    return rows


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
    symbols = torch.zeros(longest, len(texts), dtype=torch.int32)
    for column, text in enumerate(numbers):
        symbols[: len(text), column] = torch.tensor(text, dtype=torch.int32)
    return _Encoded(
        symbols=symbols,
        lengths=torch.tensor([len(text) for text in numbers]),
        classes=torch.tensor([collection.labels.index(label) for _, label in texts]),
    )
