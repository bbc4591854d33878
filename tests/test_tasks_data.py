"""Tasks that draw from a data set: what they read, how they are split, and which files they refuse."""

import csv
from collections import Counter
from pathlib import Path

import pytest
import torch

from rnnstudy.cells import LSTM
from rnnstudy.run import Run, Training
from rnnstudy.spec import SpecError, build, canonical
from rnnstudy.tasks import LabelledText, LengthRange, SentenceFirst, SequentialDigits, TemporalOrder
from rnnstudy.training.batches import TrainingBatches, fixed_batches
from rnnstudy.training.population import Population

CPU = torch.device("cpu")


def draw(task, count, seed=0):
    return task.sample(count, torch.Generator().manual_seed(seed))


def pictures(batch):
    return {tuple(picture) for picture in batch.inputs[:64, :, 0].T.tolist()}


def test_digits_are_those_of_scikit_learn_and_every_picture_belongs_to_one_part():
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    known = {tuple((picture / 16).tolist()): digit for picture, digit in zip(pixels, digits, strict=True)}
    seen = {}
    for part, size in (("training", 1197), ("validation", 300), ("test", 300)):
        task = SequentialDigits(length=64, part=part)
        assert len(task.classes) == size
        batch = draw(task, 10_000)
        for b in range(2000):
            assert known[tuple(batch.inputs[:, b, 0].tolist())] == batch.targets[-1, b]
        seen[part] = pictures(batch)
        assert len(seen[part]) >= 0.99 * size, "every picture of the part is drawn"
        assert set(batch.targets[-1].tolist()) == set(range(10))
    assert not seen["training"] & seen["validation"]
    assert not seen["training"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    assert len(set().union(*seen.values())) >= 0.99 * 1797


def test_permuted_digits_are_the_same_pictures_in_another_order():
    straight = draw(SequentialDigits(length=64), 200).inputs[..., 0]
    permuted = draw(SequentialDigits(length=64, permuted=True), 200).inputs[..., 0]
    assert torch.equal(straight.sort(0).values, permuted.sort(0).values)
    again = draw(SequentialDigits(length=64, permuted=True, part="test"), 200).inputs[..., 0]
    test = draw(SequentialDigits(length=64, part="test"), 200).inputs[..., 0]
    order = [
        next(s for s in range(64) if torch.equal(permuted[t], straight[s])) for t in range(64) if permuted[t].any()
    ]
    assert order != sorted(order)
    for t in range(64):
        if permuted[t].any():
            source = next(s for s in range(64) if torch.equal(permuted[t], straight[s]))
            assert torch.equal(again[t], test[source]), "the order is the same for all parts"


def test_blanks_follow_the_picture():
    short, long = draw(SequentialDigits(length=64), 20), draw(SequentialDigits(length=100), 20)
    assert torch.equal(long.inputs[:64], short.inputs)
    assert not long.inputs[64:].any()
    assert torch.equal(long.targets[99], short.targets[63])
    assert long.mask.nonzero()[:, 0].unique().tolist() == [99]
    assert long.informative.nonzero()[:, 0].unique().tolist() == list(range(64))


def population(task):
    return Population((Run(task=task, cell=LSTM(width=2), training=Training(batch=50)),))


@pytest.mark.parametrize(
    "task", [SequentialDigits(length=64), LengthRange(task=SequentialDigits(length=64), length=65)]
)
def test_a_population_trains_validates_and_tests_on_different_pictures(task):
    expected = {part: draw_part(part) for part in ("training", "validation", "test")}
    group = population(task)
    trained = TrainingBatches(group, 0, CPU)
    assert all(read(next(trained)) <= expected["training"] for _ in range(5))
    for purpose, part in (("validation", "validation"), ("probe", "validation"), ("test", "test")):
        for batch in fixed_batches(group, purpose, 200, CPU):
            assert read(batch) <= expected[part]
    for batch in fixed_batches(group, "length 80", 200, CPU, task.with_length(80)):
        assert batch.inputs.shape[0] == 80
        assert read(batch) <= expected["test"]


def draw_part(part):
    return pictures(draw(SequentialDigits(length=64, part=part), 20_000))


def read(batch):
    return {tuple(picture) for picture in batch.inputs[:64, 0, :, 0].T.tolist()}


def test_a_synthetic_task_is_its_own_split():
    task = TemporalOrder(length=10)
    assert all(task.split(purpose) is task for purpose in ("training", "validation", "test", "probe", "length 20"))


TEXTS = [
    (f"{word} number {number}, {end}", label)
    for number in range(12)
    for word, label, end in [
        ("Good", "praise", "so good"),
        ("Bad", "blame", "bad!"),
        ("So-so", "neither", "“fine”\nand done"),
    ]
]


def table(path: Path, rows=TEXTS, delimiter=",", header=("label", "text")) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows((label, text) for text, label in rows)
    return str(path)


def folders(path: Path) -> str:
    for number, (text, label) in enumerate(TEXTS):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{number}.txt").write_text(text + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(params=["csv", "tsv", "folder"])
def texts(request, tmp_path):
    if request.param == "folder":
        return folders(tmp_path / "texts")
    return table(tmp_path / f"texts.{request.param}", delimiter="," if request.param == "csv" else "\t")


def test_characters_are_read_back_as_the_texts_with_their_labels(texts):
    known, seen = dict(TEXTS), Counter()
    for part in ("training", "validation", "test"):
        task = LabelledText(path=texts, length=60, part=part)
        assert task.labels == ("blame", "neither", "praise")
        batch = draw(task, 500)
        of_part = set()
        for b in range(500):
            steps = batch.lengths[b]
            text = "".join(task.read(batch.inputs[:steps, b]))
            if "…" not in text:
                assert task.labels[batch.targets[steps - 1, b]] == known[text]
            of_part.add(text)
            assert batch.mask[:, b].nonzero().flatten().tolist() == [steps - 1]
        seen.update(of_part)
    assert set(seen.values()) == {1}, "no text belongs to two parts"
    assert len(seen) == len(TEXTS)


def test_words_are_lower_case_and_punctuation_marks_are_words(texts):
    task = LabelledText(path=texts, unit="word", length=20)
    batch = draw(task, 200)
    read = {tuple(task.read(batch.inputs[: batch.lengths[b], b])) for b in range(200)}
    assert {words[:2] for words in read} == {("good", "number"), ("bad", "number"), ("so", "-")}
    assert {words[-1] for words in read} == {"good", "!", "done"}


def test_a_text_is_cut_and_rare_symbols_share_an_input(texts):
    task = LabelledText(path=texts, length=5, symbols=3)
    batch = draw(task, 100)
    assert task.features == 4
    assert task.vocabulary[-1] == "…"
    assert batch.lengths.tolist() == [5] * 100
    whole = LabelledText(path=texts, length=60)
    training = draw(whole, 1000)
    of_training = {"".join(whole.read(training.inputs[: training.lengths[b], b])) for b in range(1000)}
    counted = Counter("".join(of_training))
    assert sorted(counted.values())[-3:] == sorted(counted[symbol] for symbol in task.vocabulary[:-1])


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    first = LabelledText(path=table(tmp_path / "a.csv"), length=60)
    other = LabelledText(path=table(tmp_path / "b.csv", rows=[*reversed(TEXTS), *TEXTS[:5]]), length=60)
    assert first.content == other.content
    assert torch.equal(draw(first, 50).inputs, draw(other, 50).inputs)


def test_a_changed_file_is_another_run_and_is_refused_by_a_stored_one(tmp_path):
    path = table(tmp_path / "a.csv")
    task = LabelledText(path=path, length=60)
    stored = canonical(task, frozenset())
    assert build(stored) == task
    assert task.split("test") == task.replace(part="test")
    table(tmp_path / "a.csv", rows=[*TEXTS, ("more of it", "praise")])
    assert LabelledText(path=path, length=60).content != task.content
    with pytest.raises(SpecError, match=r"a\.csv has changed: its hash was [0-9a-f]{12} and is"):
        build(stored)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            b"text,sentiment\ngood,1\n",
            r"a\.csv, line 1: there is no column 'label'; the columns are text, sen",
        ),
        ("a.csv", b"", r"a\.csv, line 1: there is no column 'text'"),
        ("a.csv", b"text,label\ngood,1\nbad,0,what\n", r"a\.csv, line 3: 3 fields; the header has 2"),
        ("a.csv", b'text,label\n"two\nlines",1\nbad\n', r"a\.csv, line 4: 1 fields; the header has 2"),
        ("a.csv", b"text,label\ngood,1\n  ,0\n", r"a\.csv, line 3: the text is empty"),
        ("a.tsv", b"text\tlabel\ngood\t\n", r"a\.tsv, line 2: the label is empty"),
        ("a.csv", b"text,label\ngood,1\nb\xe4d,0\n", r"a\.csv, line 3: byte 0xe4 is not UTF-8"),
        ("a.csv", b'text,label\ngood,1\n"never closed,0\n', r"a\.csv, line 3: unexpected end of data"),
        ("a.json", b"{}", r"a\.json ends in '\.json'; it takes \.csv"),
        (
            "a.csv",
            b"text,label\n" + b"\n".join(b"t%d,1" % n for n in range(20)),
            "has 1 label; a task needs two or more",
        ),
        ("a.csv", b"text,label\ngood,1\nbad,0\ngood,1\n", "has 2 different texts; it takes 10"),
        ("praise/a.txt", b"good \xff", r"a\.txt, line 1: byte 0xff is not UTF-8"),
        ("praise/a.txt", b" \n", r"a\.txt, line 1: the file is empty"),
        ("praise/a.doc", b"good", "has no texts; it takes one folder for each label"),
    ],
)
def test_the_error_for_a_bad_file_names_file_and_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(SpecError, match=message) as caught:
        LabelledText(path=str(tmp_path if "/" in name else path), length=10)
    assert "\n" not in str(caught.value)


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(SpecError, match=r"there is no file or folder .*none\.csv"):
        LabelledText(path=str(tmp_path / "none.csv"), length=10)


def test_a_document_is_its_first_sentence_and_others_of_its_part_until_it_is_full(tmp_path):
    texts = [(f"s{n} " + "w " * (n % 5), "odd" if n % 2 else "even") for n in range(60)]
    task = SentenceFirst(path=table(tmp_path / "a.csv", rows=texts), unit="word", length=23, sentence=4)
    labels = dict(texts)
    of_part = {}
    for part in ("training", "validation", "test"):
        drawn = task.replace(part=part)
        batch = draw(drawn, 300)
        assert batch.inputs.shape == (23, 300, 1)
        assert batch.lengths.tolist() == [23] * 300
        assert batch.mask.nonzero()[:, 0].tolist() == [22] * 300
        starts = set()
        for b in range(300):
            # Every sentence begins with a word of its own; those that training does not have are all read as "…".
            words = drawn.read(batch.inputs[:, b])
            begins = [place for place, word in enumerate(words) if word != "w"]
            sentences = [words[start:end] for start, end in zip(begins, [*begins[1:], 23], strict=True)]
            assert begins[0] == 0
            assert all(len(sentence) <= 4 for sentence in sentences)
            assert batch.informative[:, b].sum() == len(sentences[0])
            starts |= {sentence[0] for sentence in sentences}
            if part == "training":
                whole = next(text for text in labels if text.split()[0] == words[0])
                assert sentences[0] == whole.split()[:4]
                assert task.labels[batch.targets[22, b]] == labels[whole]
                full = [next(text for text in labels if text.split()[0] == one[0]).split()[:4] for one in sentences]
                assert sentences[:-1] == full[:-1]
                assert sentences[-1] == full[-1][: len(sentences[-1])]
        of_part[part] = starts
    assert of_part["validation"] == of_part["test"] == {"…"}
    assert len(of_part["training"]) > 40


def test_a_document_has_room_for_its_first_sentence(texts):
    assert SentenceFirst(path=texts, length=20).longest == 20
    with pytest.raises(
        SpecError, match=r"SentenceFirst\.length is 19; it must be at least 20, the symbols of its first"
    ):
        SentenceFirst(path=texts, length=19)
