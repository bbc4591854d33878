"""Every task fulfils the contract, and is what its source published, checked by an independent decoder."""

import atexit
import functools
import itertools
import random
import re
import tempfile
import typing
from math import log, sqrt
from pathlib import Path

import pytest
import torch

import rnnstudy.tasks  # noqa: F401  (its tasks are found below)
from rnnstudy.cells.one_hot import NOTHING
from rnnstudy.spec import SpecError, concrete
from rnnstudy.tasks import Adding, CopyMemory, LabelledText, LengthRange, SentenceFirst, TemporalOrder
from rnnstudy.tasks.task import Task, last_supervised, mean_over_supervised, uniform_whole

LENGTH = 30

TEMPORARY = tempfile.TemporaryDirectory(prefix="rnnstudy-tasks-")
atexit.register(TEMPORARY.cleanup)
FOLDER = Path(TEMPORARY.name)


def further_fields(cls: type[Task]) -> dict[str, typing.Any]:
    """The fields without default, besides the length."""
    known: dict[type[Task], typing.Callable[[], dict[str, typing.Any]]] = {
        LabelledText: lambda: {"path": some_texts()},
        SentenceFirst: lambda: {"path": some_texts()},
        LengthRange: lambda: {"task": TemporalOrder(length=20)},
    }
    return known[cls]() if cls in known else {}


def some_texts() -> str:
    """A file of 100 texts of 20 to 60 words under two labels, one twice as frequent as the other."""
    words, source, lines = (
        ["good", "bad", "film", "plot,", "long", "short", "the", "a", "was", "not"],
        random.Random(0),
        ["text\tlabel"],
    )
    for number in range(100):
        text = " ".join(source.choices(words, k=source.randint(20, 60)))
        lines.append(f"{text}\t{'praise' if number % 3 else 'blame'}")
    path = FOLDER / "texts.tsv"
    path.write_text("\n".join(lines))
    return str(path)


def variants(cls: type[Task]) -> list[Task]:
    """One task for each combination of the options that its fields name; about `LENGTH` long."""
    options = {
        name: typing.get_args(hint)
        for name, hint in typing.get_type_hints(cls).items()
        if typing.get_origin(hint) is typing.Literal
    }
    further = further_fields(cls)
    return [
        long_enough(cls, LENGTH, **further, **dict(zip(options, chosen, strict=True)))
        for chosen in itertools.product(*options.values())
    ]


def long_enough(cls: type[Task], length: int, **fields: typing.Any) -> Task:
    """A task of this length, or of the shortest length that the error message names."""
    try:
        return cls(length=length, **fields)
    except SpecError as error:
        [needed] = re.findall(r"length is \d+; it must be at least (\d+)", str(error))
        return cls(length=int(needed), **fields)


TASKS = [task for cls in concrete(Task) if cls.__module__.startswith("rnnstudy.") for task in variants(cls)]


def draw(task, batch, seed=0):
    return task.sample(batch, torch.Generator().manual_seed(seed))


def perfect(task, batch):
    """Outputs (time, 1, batch, outputs) that equal the targets."""
    return task.perfect_outputs(batch.targets).unsqueeze(1)


@functools.lru_cache(maxsize=2)
def many(task):
    """Targets, mask and lengths of 20,000 sequences, drawn a thousand at a time."""
    generator = torch.Generator().manual_seed(2)
    parts = [task.sample(1000, generator) for _ in range(20)]
    return (
        torch.cat([part.targets for part in parts], dim=1),
        torch.cat([part.mask for part in parts], dim=1),
        torch.cat([part.lengths for part in parts]),
    )


def blind(task):
    """Constant outputs (time, outputs) estimated from 20,000 sequences, and their expected excess loss.

    With a single supervised step per sequence, the output is the same at all steps. Because frequencies are estimated,
    the loss exceeds that of the best constant: by (k − 1)/(2n) nats in expectation for a step with k classes counted n
    times, multiplied by the weight of the step in the loss of its sequence.
    """
    targets, mask, _ = many(task)
    weight = mask / mask.sum(0)
    if targets.is_floating_point():
        sums, weights = (targets[..., : task.outputs] * weight.unsqueeze(-1)).sum(1), weight.sum(1, keepdim=True)
        if mask.sum(0).max() == 1:
            sums, weights = sums.sum(0, keepdim=True).expand_as(sums), weights.sum(0, keepdim=True)
        return sums / weights.clamp(min=1e-12), 0.0
    if targets.dim() == 3:  # the class, then what else is allowed
        targets = targets[..., 0]
    counts = torch.zeros(task.steps, task.outputs).scatter_add_(1, targets, weight)
    counted = mask.sum(1)
    if mask.sum(0).max() == 1:
        counts, counted = counts.sum(0, keepdim=True).expand_as(counts), counted.sum(0, keepdim=True)
    classes = (counts > 0).sum(1)
    excess = (weight.mean(1) * (classes - 1).clamp(min=0) / (2 * counted.clamp(min=1))).sum().item()
    return (counts / counts.sum(1, keepdim=True).clamp(min=1e-12)).clamp(min=1e-12).log(), excess


def evaluate(task, batch, outputs):
    """Loss and measures (batch) of outputs (time, 1, batch, outputs)."""
    targets, mask = batch.targets.unsqueeze(1), batch.mask.unsqueeze(1)
    loss = mean_over_supervised(task.loss(outputs, targets), mask)
    return loss[0], {name: values[0] for name, values in task.measures(outputs, targets, mask).items()}


def task_id(task: Task) -> str:
    """The id of a test case: the same in every process, so without the temporary folder of the texts."""
    return repr(task).replace(str(FOLDER), "")


@pytest.mark.parametrize("task", TASKS, ids=task_id)
class TestContract:
    def test_a_batch_has_the_declared_shapes(self, task):
        batch = draw(task, 64)
        assert batch.inputs.shape == (task.steps, 64, 1 if task.inputs_are_symbols else task.features)
        assert batch.inputs.dtype == (torch.int32 if task.inputs_are_symbols else torch.float32)
        assert batch.targets.shape[:2] == batch.mask.shape == batch.informative.shape == (task.steps, 64)
        assert batch.lengths.min() >= 1
        assert batch.mask.any(0).all(), "a sequence without supervised steps has no loss"
        assert batch.informative.any(0).all()

    def test_padding_after_the_end_of_a_sequence_is_empty(self, task):
        batch = draw(task, 300)
        behind = torch.arange(task.steps)[:, None] >= batch.lengths
        assert not batch.mask[behind].any()
        assert not batch.informative[behind].any()
        assert (batch.inputs[behind] == (NOTHING if task.inputs_are_symbols else 0)).all()

    def test_the_longest_sequence_has_the_declared_steps(self, task):
        _, _, lengths = many(task)
        assert lengths.max() == task.steps

    def test_the_informative_steps_come_before_the_last_supervised_one(self, task):
        batch = draw(task, 300)
        first = batch.informative.int().argmax(0)
        assert (first < last_supervised(batch.mask)).all()

    def test_sampling_depends_only_on_the_generator(self, task):
        torch.manual_seed(1)
        first = draw(task, 16)
        before = torch.get_rng_state()
        again, other = draw(task, 16), draw(task, 16, seed=1)
        assert torch.equal(torch.get_rng_state(), before), "the global generator was touched"
        for name in ("inputs", "targets", "mask", "lengths", "informative"):
            assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(first.inputs, other.inputs)
        assert not torch.equal(first.targets, other.targets)

    def test_perfect_outputs_have_no_error_and_meet_the_criterion(self, task):
        batch = draw(task, 50)
        loss, measures = evaluate(task, batch, perfect(task, batch).double())
        if task.least_loss == 0:
            assert loss.max() < 1e-6
        assert abs(loss.mean() - task.least_loss) <= 5 * loss.std() / sqrt(50) + 1e-6 * task.least_loss
        assert task.least_loss < task.chance.loss
        assert not measures["error"].any()
        assert task.criterion.met(0.0)
        assert not task.criterion.met(task.criterion.threshold), "the published criterion says below"
        assert not task.criterion.met(task.chance.error), "chance must not count as solved"

    def test_chance_is_the_result_of_a_predictor_that_sees_no_input(self, task):
        """Class frequencies (or mean targets) of 20,000 sequences, tested on 1,000 others: within 5 standard errors."""
        constant, excess = blind(task)
        outputs = constant[:, None, None, :].expand(-1, 1, 1000, -1)
        loss, measures = evaluate(task, draw(task, 1000, seed=3), outputs)
        for values, chance in ((loss - excess, task.chance.loss), (measures["error"], task.chance.error)):
            rounding = 1e-6 * max(1, chance)
            assert abs(values.double().mean() - chance) <= 5 * values.std() / sqrt(1000) + rounding

    def test_loss_and_measures_are_computed_for_each_replica_and_sequence(self, task):
        batch = draw(task, 7)
        targets, mask = (part.unsqueeze(1).repeat_interleave(3, dim=1) for part in (batch.targets, batch.mask))
        outputs = torch.randn(task.steps, 3, 7, task.outputs, generator=torch.Generator().manual_seed(0))
        loss, measures = task.loss(outputs, targets), task.measures(outputs, targets, mask)
        assert loss.shape == (task.steps, 3, 7)
        assert "error" in measures
        for replica in range(3):
            alone_loss, alone = evaluate(task, batch, outputs[:, replica : replica + 1])
            torch.testing.assert_close(mean_over_supervised(loss, mask)[replica], alone_loss)
            for name, values in measures.items():
                assert values.shape == (3, 7)
                torch.testing.assert_close(values[replica], alone[name])

    def test_part_returns_a_slice_of_the_batch(self, task):
        whole = draw(task, 10)
        part = whole.part(3, 7)
        for name in ("inputs", "targets", "mask", "informative"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[:, 3:7])
        assert torch.equal(part.lengths, whole.lengths[3:7])

    def test_with_length_returns_the_same_kind_of_task(self, task):
        longer = task.with_length(2 * task.length)
        assert (type(longer), longer.length) == (type(task), 2 * task.length)
        assert longer.steps > task.steps
        assert (longer.features, longer.outputs) == (task.features, task.outputs)
        with pytest.raises(SpecError, match="length is 0; it must be at least 1"):
            task.with_length(0)

    def test_split_keeps_shapes_and_criterion(self, task):
        for purpose in ("training", "validation", "test", "probe", f"length {task.length}"):
            part = task.split(purpose)
            assert (part.steps, part.features, part.outputs) == (task.steps, task.features, task.outputs)
            assert part.criterion.error == task.criterion.error
            assert part.split(purpose) == part

    def test_the_docstring_has_an_example_and_the_class_a_source(self, task):
        assert ">>> " in (type(task).__doc__ or "")
        assert type(task).source


def columns(batch):
    """(inputs, targets, length) of each sequence, as plain Python lists."""
    for b in range(batch.lengths.shape[0]):
        yield batch.inputs[:, b].tolist(), batch.targets[:, b].tolist(), int(batch.lengths[b])


@pytest.mark.parametrize("length", [10, 19, 50, 100])
def test_temporal_order_is_decoded_as_published(length):
    batch = draw(TemporalOrder(length=length), 2000)
    firsts, seconds, classes = set(), set(), []
    for b, (inputs, targets, steps) in enumerate(columns(batch)):
        symbols = [row.index(1.0) for row in inputs]
        assert steps == length == len(symbols)
        assert all(sum(row) == 1.0 for row in inputs)
        marked = [t for t, symbol in enumerate(symbols) if symbol < 2]
        assert len(marked) == 2
        assert batch.informative[:, b].nonzero().flatten().tolist() == marked
        assert batch.mask[:, b].nonzero().flatten().tolist() == [length - 1]
        assert targets[-1] == symbols[marked[0]] + 2 * symbols[marked[1]]
        firsts.add(marked[0])
        seconds.add(marked[1])
        classes.append(targets[-1])
    tenth = int(0.1 * length)
    assert firsts == set(range(tenth, 2 * tenth))
    assert seconds == set(range(int(0.5 * length), int(0.5 * length) + tenth))
    for number in range(4):
        assert abs(classes.count(number) / 2000 - 0.25) < 5 * sqrt(0.25 * 0.75 / 2000)
    assert set(batch.inputs.argmax(-1).flatten().tolist()) == set(range(6))


def test_adding_modern_is_decoded_as_published():
    for length in (2, 7, 50):
        task = Adding(length=length)
        assert task.steps == length
        positions = (set(), set())
        for inputs, targets, steps in columns(draw(task, 3000)):
            marked = [t for t, (_, mark) in enumerate(inputs) if mark == 1]
            assert steps == length
            assert len(marked) == 2
            assert all(mark in (0, 1) and 0 <= value < 1 for value, mark in inputs)
            assert targets[-1][0] == pytest.approx(inputs[marked[0]][0] + inputs[marked[1]][0])
            positions[0].add(marked[0])
            positions[1].add(marked[1])
        half = length // 2
        assert positions == (set(range(half)), set(range(half, length)))


def test_adding_pascanu_is_decoded_as_published():
    length, lengths = 50, set()
    for inputs, targets, steps in columns(draw(Adding(length=length, variant="pascanu"), 4000)):
        lengths.add(steps)
        first, second = (t for t, (_, mark) in enumerate(inputs) if mark == 1)
        assert 0 <= first < int(0.1 * steps) <= second < int(0.1 * steps) + int(0.4 * steps)
        assert targets[steps - 1][0] == pytest.approx((inputs[first][0] + inputs[second][0]) / 2)
        assert all(0 <= value < 1 for value, _ in inputs[:steps])
    assert lengths == set(range(50, 55))


def test_adding_hochreiter_is_decoded_as_published():
    length, lengths, firsts, seconds, at_start = 40, set(), set(), set(), 0
    for b, (inputs, targets, steps) in enumerate(
        columns(batch := draw(Adding(length=length, variant="hochreiter"), 8000))
    ):
        lengths.add(steps)
        assert inputs[0][1] == inputs[steps - 1][1] == -1
        assert all(mark in (0, 1) for _, mark in inputs[1 : steps - 1])
        assert all(-1 <= value < 1 for value, _ in inputs[:steps])
        marked = [t for t, (_, mark) in enumerate(inputs) if mark == 1]
        chosen = batch.informative[:, b].nonzero().flatten().tolist()
        assert marked == [t for t in chosen if t > 0]
        assert targets[steps - 1][0] == pytest.approx(0.5 + sum(inputs[t][0] for t in marked) / 4)
        assert len(chosen) == 2
        at_start += len(marked) == 1
        firsts.add(min(marked))
        seconds.add(max(marked))
    assert lengths == set(range(40, 45)), "T to T + int(.1T), both included"
    assert min(firsts) == 1
    assert max(seconds) == length // 2 - 1, "the last of the first T/2 - 1 pairs that are still unmarked"
    # The first pair is chosen as the first mark (1 in 10), or else as the second (1 in T/2 - 1).
    share = 1 / 10 + 9 / 10 / (length // 2 - 1)
    assert abs(at_start / 8000 - share) < 5 * sqrt(share * (1 - share) / 8000)


def test_copy_memory_is_decoded_as_published():
    for length in (1, 5, 100):
        task = CopyMemory(length=length)
        assert (task.steps, task.features, task.outputs) == (length + 20, 10, 9)
        for inputs, targets, _ in columns(batch := draw(task, 200)):
            symbols = [row.index(1.0) for row in inputs]
            pattern = symbols[:10]
            assert all(1 <= symbol <= 8 for symbol in pattern)
            assert symbols[10:] == [0] * (length - 1) + [9] + [0] * 10
            assert symbols.index(9) == length + 9
            assert targets == [0] * (length + 10) + pattern
        assert batch.mask.all()
        assert batch.informative.nonzero()[:, 0].unique().tolist() == list(range(10))


def test_copy_memory_counts_wrong_symbols_among_the_recalled_ten():
    task = CopyMemory(length=5)
    batch = draw(task, 2)
    outputs = perfect(task, batch)
    outputs[:15, 0, 0, 5] = 99.0  # wrong where nothing is to be recalled: does not count
    outputs[-3:, 0, 1] = 0.0  # outputs blank
    _, measures = evaluate(task, batch, outputs)
    torch.testing.assert_close(measures["error"], torch.tensor([0.0, 0.3]))
    assert measures["sequence_error"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("variant", "deviation", "error", "within"),
    [
        ("modern", 0.3, 0.09, 0.0),
        ("modern", 0.03, 0.0009, 1.0),
        ("pascanu", 0.19, 0.0, 0.0),
        ("pascanu", -0.21, 1.0, 0.0),
        ("pascanu", 0.03, 0.0, 1.0),
        ("hochreiter", 0.05, 1.0, 0.0),
        ("hochreiter", -0.03, 0.0, 1.0),
    ],
)
def test_adding_evaluates_each_variant_by_its_own_rule(variant, deviation, error, within):
    task = Adding(length=LENGTH, variant=variant)
    batch = draw(task, 5)
    _, measures = evaluate(task, batch, perfect(task, batch) + deviation)
    torch.testing.assert_close(measures["error"], torch.full((5,), error), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(measures["share_within_0.04"], torch.full((5,), within))


@pytest.mark.parametrize(
    ("task", "loss", "error"),
    [
        (TemporalOrder(length=100), log(4), 0.75),
        (Adding(length=100), 1 / 6, 1 / 6),
        (Adding(length=100, variant="pascanu"), 1 / 24, 0.36),
        (CopyMemory(length=100), 0.1733, 7 / 8),
        (CopyMemory(length=200), 0.0945, 7 / 8),
        (CopyMemory(length=300), 0.0650, 7 / 8),
        (CopyMemory(length=500), 0.0400, 7 / 8),
        (CopyMemory(length=1000), 0.0204, 7 / 8),
        (CopyMemory(length=2000), 0.0103, 7 / 8),
    ],
    ids=task_id,
)
def test_published_chance_levels(task, loss, error):
    assert task.chance.loss == pytest.approx(loss, abs=5e-5)
    assert task.chance.error == pytest.approx(error, abs=1e-12)


def test_hochreiter_and_schmidhubers_constant_is_wrong_on_about_85_percent():
    assert Adding(length=100, variant="hochreiter").chance.error == pytest.approx(0.85, abs=0.005)


def test_uniform_whole_is_uniform_between_bounds_that_differ():
    low, high = torch.tensor([0, 5, 7]).repeat(20_000), torch.tensor([3, 6, 17]).repeat(20_000)
    drawn = uniform_whole(low, high, 60_000, torch.Generator().manual_seed(0)).view(-1, 3)
    for column, (bottom, top) in enumerate([(0, 3), (5, 6), (7, 17)]):
        counts = torch.bincount(drawn[:, column] - bottom, minlength=top - bottom)
        share = 1 / (top - bottom)
        assert len(counts) == top - bottom
        assert (counts / 20_000 - share).abs().max() <= 5 * sqrt(share * (1 - share) / 20_000)


def test_the_mean_over_supervised_steps_and_the_last_of_them():
    values = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    mask = torch.tensor([[True, False], [True, True], [False, True]])
    assert mean_over_supervised(values, mask).tolist() == [1.5, 30.0]
    assert last_supervised(mask).tolist() == [1, 2]
