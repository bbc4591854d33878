"""Labelled text as people have it: quotes, line ends, long texts, headers, folders, rare and contradictory labels."""

from collections import Counter
from pathlib import Path

import pytest

from rnnstudy.spec import SpecError
from rnnstudy.tasks import LabelledText

PLAIN = [(f"word{number} common text", ("spam", "ham")[number % 2]) for number in range(40)]


def written(path: Path, rows: list[tuple[str, str]], separator: str = "\t", end: str = "\n", bom: str = "") -> str:
    lines = [f"label{separator}text", *(f"{label}{separator}{text}" for text, label in rows)]
    path.write_bytes((bom + end.join(lines) + end).encode())
    return str(path)


def texts_of(task: LabelledText) -> Counter[str]:
    return Counter(text for text, _ in task._collection.texts)


LONE = [*PLAIN[:10], ('"Hello there', "spam"), *PLAIN[11:]]
STRAY = [*PLAIN[:10], ('"Hello there', "spam"), *PLAIN[11:13], ('the others: good night"', "ham"), *PLAIN[14:]]


@pytest.mark.parametrize("rows", [LONE, STRAY], ids=["lone", "stray"])
def test_quotes_of_a_tsv_file_are_characters_where_each_line_is_a_row(rows: list[tuple[str, str]], tmp_path: Path):
    task = LabelledText(path=written(tmp_path / "a.tsv", rows), length=20)
    assert texts_of(task) == Counter(text for text, _ in rows)


def test_quotes_of_a_csv_file_that_can_be_read_in_two_ways_are_refused(tmp_path: Path):
    path = written(tmp_path / "a.csv", STRAY, ",")
    with pytest.raises(SpecError, match=r"a\.csv, lines 12 to 15: quotes make one text of rows .*quoting='none'"):
        LabelledText(path=path, length=20)
    assert texts_of(LabelledText(path=path, length=20, quoting="none")) == Counter(text for text, _ in STRAY)
    assert len(texts_of(LabelledText(path=path, length=20, quoting="quotes"))) == 37
    with pytest.raises(SpecError, match=r"line \d+: .*; where quotes are plain characters, set quoting='none'"):
        LabelledText(path=written(tmp_path / "b.csv", LONE, ","), length=20)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_texts_over_several_lines_stay_whole(name: str, tmp_path: Path):
    separator = "," if name == "a.csv" else "\t"
    rows = [(f'"{text}{separator} first\nsecond ""line"""', label) for text, label in PLAIN]
    task = LabelledText(path=written(tmp_path / name, rows, separator), length=20)
    assert texts_of(task) == Counter(f'{text}{separator} first\nsecond "line"' for text, _ in PLAIN)


@pytest.mark.parametrize("quoted", [False, True])
def test_a_text_of_a_million_characters_is_read(quoted: bool, tmp_path: Path):
    long = "long " * 200_000
    rows = [(f'"{long}"' if quoted else long, "spam"), *PLAIN]
    task = LabelledText(path=written(tmp_path / "a.csv", rows, ","), length=20)
    assert long.strip() in texts_of(task)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_line_ends_byte_order_marks_and_spaces_in_headers(end: str, bom: str, tmp_path: Path):
    path = written(tmp_path / "a.csv", PLAIN, " , ", end, bom)
    assert texts_of(LabelledText(path=path, length=20)) == Counter(text for text, _ in PLAIN)


def test_two_columns_of_one_name_are_refused(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("text,label,text\n" + "\n".join(f"{text},{label},x" for text, label in PLAIN))
    with pytest.raises(SpecError, match=r"a\.csv, line 1: 2 columns are called 'text'"):
        LabelledText(path=str(path), length=20)


def test_every_part_has_every_label(tmp_path: Path):
    rows = [*PLAIN, *((f"rare {number}", "rare") for number in range(3))]
    path = written(tmp_path / "a.tsv", rows)
    parts = [LabelledText(path=path, length=20, part=part) for part in ("training", "validation", "test")]
    assert all(set(task.classes.tolist()) == {0, 1, 2} for task in parts)
    assert [len(task.classes) for task in parts] == [33, 5, 5]
    of_part = [{text for text, _ in task._collection.part(task.part)} for task in parts]
    assert len(set().union(*of_part)) == sum(map(len, of_part)) == len(rows)
    assert all(task.criterion.threshold > 0 and task.chance.loss > 0 for task in parts)


@pytest.mark.parametrize("count", [1, 2])
def test_a_label_with_too_few_texts_is_named_and_counted(count: int, tmp_path: Path):
    rows = [*PLAIN, *((f"rare {number}", "rare") for number in range(count))]
    path = written(tmp_path / "a.tsv", rows)
    with pytest.raises(
        SpecError, match=rf"1 labels with fewer than 3 different texts.*: 'rare' \({count}\); add texts"
    ):
        LabelledText(path=path, length=20)
    assert LabelledText(path=path, length=20, leave_out=("rare",)).labels == ("ham", "spam")


def test_a_text_with_two_labels_is_named(tmp_path: Path):
    rows = [*PLAIN, (PLAIN[0][0], "ham")]
    with pytest.raises(SpecError, match="has 1 texts with two labels, such as 'word0 common text'"):
        LabelledText(path=written(tmp_path / "a.tsv", rows), length=20)


def test_folders_with_parts_or_without_labels_are_named(tmp_path: Path):
    for number, (text, label) in enumerate(PLAIN):
        for part in ("train", "test"):
            file = tmp_path / part / label / f"{number}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    (tmp_path / "train" / "urls.txt").write_text("http://example.org")
    with pytest.raises(SpecError, match=r"folders within folders \(test, train\); name the one .*/test"):
        LabelledText(path=str(tmp_path), length=20)
    assert LabelledText(path=str(tmp_path / "train"), length=20).labels == ("ham", "spam")
    (tmp_path / "train" / "unsup").mkdir()
    (tmp_path / "train" / "unsup" / "1.txt").write_text("whatever")
    with pytest.raises(SpecError, match=r"unsup seems to hold texts without a label; leave_out=\('unsup',\)"):
        LabelledText(path=str(tmp_path / "train"), length=20)
    assert LabelledText(path=str(tmp_path / "train"), length=20, leave_out=("unsup",)).labels == ("ham", "spam")
