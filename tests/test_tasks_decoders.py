"""All other tasks are what their sources published, checked by decoders that share no code with them."""

import itertools
from math import log, sqrt

import numpy as np
import pytest
import torch

from rnnstudy.spec import SpecError
from rnnstudy.tasks import (
    AssociativeRecall,
    CopyMemory,
    DelayedXor,
    EmbeddedReber,
    LengthRange,
    LongTimeLags,
    Multiplication,
    NoiselessMemorisation,
    Parity,
    PermutationComposition,
    RandomPermutation,
    SelectiveCopying,
    TemporalOrder,
    TwoSequence,
    Waveform,
)


def sequences(task, count, seed=0):
    """For each sequence, as lists without padding: inputs, targets, supervised steps, informative steps."""
    batch = task.sample(count, torch.Generator().manual_seed(seed))
    for b, steps in enumerate(batch.lengths.tolist()):
        yield (
            batch.inputs[:steps, b].tolist(),
            batch.targets[:steps, b].tolist(),
            batch.mask[:, b].nonzero().flatten().tolist(),
            batch.informative[:, b].nonzero().flatten().tolist(),
        )


def symbols(inputs):
    if all(len(row) == 1 for row in inputs):
        assert all(isinstance(number, int) for [number] in inputs)
        return [number for [number] in inputs]
    assert all(sorted(row)[-2:] == [0.0, 1.0] and sum(row) == 1 for row in inputs)
    return [row.index(1.0) for row in inputs]


def shares_agree(counts, expected, total):
    return all(
        abs(counts.count(value) / total - share) <= 5 * sqrt(share * (1 - share) / total)
        for value, share in expected.items()
    )


@pytest.mark.parametrize("length", [10, 20, 99, 100])
def test_three_marks_as_in_pascanus_code(length):
    positions, tenth, classes = (set(), set(), set()), int(0.1 * length), []
    for inputs, targets, supervised, informative in sequences(TemporalOrder(length=length, marks=3), 3000):
        read = symbols(inputs)
        marked = [t for t, symbol in enumerate(read) if symbol in (0, 1)]
        assert (len(read), len(marked), supervised, informative) == (length, 3, [length - 1], marked)
        assert targets[-1] == sum(read[t] * 2**index for index, t in enumerate(marked))
        classes.append(targets[-1])
        for seen, index in zip(positions, marked, strict=True):
            seen.add(index)
    for seen, share in zip(positions, (0.1, 0.3, 0.6), strict=True):
        assert seen == set(range(int(share * length), int(share * length) + tenth))
    assert shares_agree(classes, dict.fromkeys(range(8), 1 / 8), 3000)


@pytest.mark.parametrize(("marks", "windows"), [(2, [(10, 20), (50, 60)]), (3, [(10, 20), (33, 43), (66, 76)])])
def test_temporal_order_as_in_hochreiter_and_schmidhubers_experiment_6(marks, windows):
    lengths, positions = set(), [set() for _ in windows]
    task = TemporalOrder(length=100, marks=marks, variant="hochreiter")
    for inputs, targets, supervised, informative in sequences(task, 3000):
        read = symbols(inputs)
        assert read[0] == 6
        assert read[-1] == 7
        assert all(0 <= symbol <= 5 for symbol in read[1:-1])
        marked = [t for t, symbol in enumerate(read) if symbol in (0, 1)]
        assert (len(marked), supervised, informative) == (marks, [len(read) - 1], marked)
        assert targets[-1] == sum(read[t] * 2**index for index, t in enumerate(marked))
        lengths.add(len(read))
        for seen, index in zip(positions, marked, strict=True):
            seen.add(index)
    assert lengths == set(range(100, 111))
    assert [(min(seen), max(seen)) for seen in positions] == windows


@pytest.mark.parametrize("variant", ["modern", "pascanu", "hochreiter"])
def test_the_product_of_the_marked_values(variant):
    lengths, first_counted = set(), 0
    for inputs, targets, supervised, informative in sequences(Multiplication(length=40, variant=variant), 4000):
        end = len(inputs) - 1
        marked = [t for t, (_, mark) in enumerate(inputs) if mark == 1]
        values = [inputs[t][0] for t in marked]
        assert all(0 <= value < 1 for value, _ in inputs)
        assert supervised == [end]
        if variant == "hochreiter":
            assert inputs[0][1] == inputs[end][1] == -1
            assert marked == [t for t in informative if t > 0]
            first_counted += 0 in informative
        else:
            assert marked == informative
            assert len(marked) == 2
        assert targets[-1][0] == pytest.approx(values[0] * (values[1] if len(values) == 2 else 1.0))
        lengths.add(len(inputs))
    assert lengths == {"modern": {40}, "pascanu": {40, 41, 42, 43}, "hochreiter": set(range(40, 45))}[variant]
    share = 1 / 10 + 9 / 10 / 18 if variant == "hochreiter" else 0.0
    assert abs(first_counted / 4000 - share) <= 5 * sqrt(share * (1 - share) / 4000)


def test_published_chance_of_multiplication():
    assert Multiplication(length=50, variant="pascanu").chance.error == pytest.approx(0.39, abs=0.002)
    assert Multiplication(length=50, variant="pascanu").chance.loss == pytest.approx(0.0487, abs=1e-4)


def test_copy_memory_as_in_exprnns_code():
    task = CopyMemory(length=30, variant="exprnn")
    for inputs, targets, supervised, informative in sequences(task, 100):
        read = symbols(inputs)
        assert read[10:] == [0] * 30 + [9] + [0] * 9
        assert targets == [0] * 40 + read[:10]
        assert all(1 <= symbol <= 8 for symbol in read[:10])
        assert targets[read.index(9)] == read[0], "recall begins at the marker"
        assert (supervised, informative) == (list(range(50)), list(range(10)))


def test_copy_memory_as_in_tcns_code():
    task = CopyMemory(length=30, variant="tcn")
    assert (task.features, task.outputs) == (1, 10)
    for inputs, targets, _, _ in sequences(task, 100):
        read = [int(number) for [number] in inputs]
        assert read[10:] == [0] * 29 + [9] * 11
        assert targets == [0] * 40 + read[:10]


@pytest.mark.parametrize("variant", ["last", "next"])
def test_random_permutation(variant):
    seen, firsts = set(), []
    for inputs, targets, supervised, informative in sequences(RandomPermutation(length=20, variant=variant), 2000):
        read = symbols(inputs)
        assert len(read) == 20
        assert read[0] in (0, 1)
        assert all(2 <= symbol < 100 for symbol in read[1:])
        assert targets[-1] == read[0]
        if variant == "next":
            assert targets[:-1] == read[1:]
        assert supervised == ([19] if variant == "last" else list(range(20)))
        assert informative == [0]
        seen.update(read)
        firsts.append(read[0])
    assert seen == set(range(100))
    assert shares_agree(firsts, {0: 0.5, 1: 0.5}, 2000)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("variant", ["3a", "3b", "3c"])
def test_two_sequence(variant, steps):
    task = TwoSequence(length=50, informative_steps=steps, variant=variant)
    noise, at_signal, at_target, lengths, classes = [], [], [], set(), []
    for inputs, targets, supervised, informative in sequences(task, 4000):
        numbers = [number for [number] in inputs]
        trained_on, judged_by = targets[-1]
        positive = judged_by == pytest.approx(0.2 if variant == "3c" else 1.0)
        if not positive:
            assert judged_by == pytest.approx(0.8 if variant == "3c" else 0.0)
        sign = 1 if positive else -1
        at_signal += [number - sign for number in numbers[:steps]]
        noise += numbers[steps:]
        at_target.append(trained_on - judged_by)
        lengths.add(len(numbers))
        classes.append(positive)
        assert (supervised, informative) == ([len(numbers) - 1], list(range(steps)))
    assert lengths == set(range(50, 56))
    assert shares_agree(classes, {True: 0.5}, 4000)
    for values, variance in (
        (noise, 0.2),
        (at_signal, 0.2 if variant == "3b" else 0.0),
        (at_target, 0.1 if variant == "3c" else 0.0),
    ):
        found = torch.tensor(values, dtype=torch.float64)
        assert abs(found.mean()) <= 5 * sqrt(variance / len(values)) + 1e-7
        assert abs(found.var() - variance) <= 5 * variance * sqrt(2 / len(values)) + 1e-12


def test_long_time_lag_without_noise():
    strings = set()
    for inputs, targets, supervised, informative in sequences(LongTimeLags(length=10, distractors=9), 50):
        read = symbols(inputs)
        assert read[1:] == list(range(9))
        assert targets == [*range(9), read[0]]
        assert (supervised, informative) == (list(range(10)), [0])
        strings.add(read[0])
    assert strings == {9, 10}


def test_long_time_lag_without_local_regularities():
    task, middle = LongTimeLags(length=10, distractors=9, variant="2b"), []
    for inputs, targets, supervised, _ in sequences(task, 2000):
        read = symbols(inputs)
        assert read[0] in (9, 10)
        assert targets == [*read[1:], read[0]]
        assert supervised == list(range(10))
        middle += read[1:]
    assert shares_agree(middle, dict.fromkeys(range(9), 1 / 9), 18_000)


def test_long_time_lag_with_extension():
    task, extensions = LongTimeLags(length=10, distractors=20, variant="2c"), []
    for inputs, targets, supervised, informative in sequences(task, 6000):
        read = symbols(inputs)
        assert read[0] == 22
        assert read[-1] == 23
        assert read[1] == 20 + targets[-1]
        assert all(symbol < 20 for symbol in read[2:-1])
        assert (supervised, informative) == ([len(read) - 1], [1])
        extensions.append(len(read) - 3 - 10)
    kept = 1 - 0.9**51
    assert min(extensions) == 0
    assert max(extensions) <= 50
    assert shares_agree(extensions, {k: 0.1 * 0.9**k / kept for k in range(51)}, 6000)


@pytest.mark.parametrize(
    ("task", "sure", "wrong"),
    [
        (LongTimeLags(length=5, distractors=4), 0.24, 0.0),
        (LongTimeLags(length=5, distractors=4), 0.26, 1.0),
        (LongTimeLags(length=5, distractors=4, variant="2c"), 0.19, 0.0),
        (LongTimeLags(length=5, distractors=4, variant="2c"), 0.21, 1.0),
        (TemporalOrder(length=10, variant="hochreiter"), 0.29, 0.0),
        (TemporalOrder(length=10, variant="hochreiter"), 0.31, 1.0),
    ],
    ids=str,
)
def test_the_tolerances_of_1997(task, sure, wrong):
    """The probability missing from the target is given to one other class."""
    batch = task.sample(20, torch.Generator().manual_seed(0))
    classes = torch.nn.functional.one_hot(batch.targets, task.outputs).double()
    outputs = (classes * (1 - sure) + classes.roll(1, dims=-1) * sure).clamp(min=1e-12).log()
    assert task.measures(outputs, batch.targets, batch.mask)["error"].tolist() == [wrong] * 20


@pytest.mark.parametrize(("variant", "values", "size", "patterns"), [("5 bits", 2, 5, 32), ("20 bits", 5, 10, 5**10)])
def test_noiseless_memorisation(variant, values, size, patterns):
    task, seen = NoiselessMemorisation(length=7, variant=variant), set()
    for inputs, targets, supervised, informative in sequences(task, 1000):
        read = symbols(inputs)
        pattern = read[:size]
        assert read[size:] == [values] * 7 + [values + 1] + [values] * (size - 1)
        assert targets == [values] * (7 + size) + pattern
        assert max(pattern) < values
        assert (supervised, informative) == (list(range(7 + 2 * size)), list(range(size)))
        seen.add(tuple(pattern))
    assert len(seen) == 32 if patterns == 32 else len(seen) >= 999
    assert task.chance.error == pytest.approx(1 - 1 / patterns)


@pytest.mark.parametrize("length", [10, 37])
def test_delayed_xor(length):
    answers, positions = [], (set(), set())
    for inputs, targets, supervised, informative in sequences(DelayedXor(length=length), 3000):
        assert len(inputs) == length
        marked = [t for t, (_, mark) in enumerate(inputs) if mark == 1]
        assert (supervised, informative) == ([length - 1], marked)
        assert targets[-1] == (inputs[marked[0]][0] != inputs[marked[1]][0])
        answers.append((inputs[marked[0]][0], targets[-1]))
        for seen, index in zip(positions, marked, strict=True):
            seen.add(index)
    assert positions == (set(range(length // 10)), set(range(length // 10, length // 2)))
    assert shares_agree(answers, dict.fromkeys(itertools.product((0.0, 1.0), (0, 1)), 1 / 4), 3000)


def test_parity():
    for inputs, targets, supervised, _ in sequences(Parity(length=25), 100):
        odd = False
        for [bit], answer in zip(inputs, targets, strict=True):
            odd ^= bit == 1
            assert answer == odd
        assert supervised == list(range(25))


def test_permutation_composition():
    matrices = [np.eye(4, dtype=int)[:, order] for order in itertools.permutations(range(4))]
    drawn, answers = [], []
    for inputs, targets, supervised, informative in sequences(PermutationComposition(length=15, items=4), 400):
        product = np.eye(4, dtype=int)
        for number, answer in zip(symbols(inputs), targets, strict=True):
            product = matrices[number] @ product
            # Column i of the matrix of p is the unit vector p(i).
            assert (matrices[answer] == product).all()
        assert supervised == informative == list(range(15))
        drawn += symbols(inputs)
        answers += targets
    for found in (drawn, answers):
        assert shares_agree(found, dict.fromkeys(range(24), 1 / 24), 6000)


def test_permutations_of_two_items_are_parity():
    for inputs, targets, *_ in sequences(PermutationComposition(length=9, items=2), 50):
        assert targets == list(itertools.accumulate(symbols(inputs), lambda a, b: a ^ b))


def test_selective_copying():
    task, gaps = SelectiveCopying(length=30, tokens=4, symbols=5), []
    for inputs, targets, supervised, informative in sequences(task, 3000):
        read = symbols(inputs)
        assert read[25:] == [6] + [5] * 4, "the marker, then blanks"
        kept = [(t, symbol) for t, symbol in enumerate(read[:25]) if symbol < 5]
        assert [symbol for _, symbol in kept] == targets[26:]
        assert [t for t, _ in kept] == informative
        assert informative[-1] == 24
        assert supervised == [26, 27, 28, 29]
        gaps += [here - before - 1 for before, here in itertools.pairwise([-1, *informative])]
    assert abs(sum(gaps) / len(gaps) - 21 / 4) < 1e-9
    # Blanks in front of a symbol are binomial: 21 of them, one in four.
    expected = {0: 0.75**21, 5: 20349 * 0.25**5 * 0.75**16}
    assert all(abs(gaps.count(g) / len(gaps) - share) <= 5 * sqrt(share / 3000) for g, share in expected.items())


def test_associative_recall():
    task, firsts = AssociativeRecall(length=24, pairs=3, vocabulary=20), []
    for inputs, targets, supervised, informative in sequences(task, 4000):
        read = symbols(inputs)
        memory = dict(zip(read[:6:2], read[1:6:2], strict=True))
        assert len(memory) == len(set(memory.values())) == 3
        assert all(1 <= key < 10 <= value for key, value in memory.items())
        assert [targets[t] for t in supervised] == [memory[read[t]] for t in supervised]
        assert {read[t] for t in supervised} == set(memory), "each key is asked for once"
        assert all(t >= 6 and t % 2 == 0 for t in supervised)
        assert informative == list(range(6))
        firsts.append(next(t for t in supervised if read[t] == read[0]) // 2 - 3)
    # The first key's query is the first drawn: weights 0.01·g^(0.01 − 1) over the nine positions.
    weights = [g ** (0.01 - 1) for g in range(1, 10)]
    assert shares_agree(firsts, {g: weight / sum(weights) for g, weight in enumerate(weights)}, 4000)


def test_waveform():
    for inputs, targets, supervised, informative in sequences(Waveform(length=40), 50):
        assert not any(any(row) for row in inputs[1:])
        period = 10 + 5 * inputs[0].index(1.0)
        wave = [target for [target] in targets]
        angle = torch.arange(41, dtype=torch.float64) * 2 * torch.pi / period
        assert wave == pytest.approx(angle.sin().tolist(), abs=1e-6)
        assert (supervised, informative) == (list(range(1, 41)), [0])


GRAPH = {0: {"T": 1, "P": 2}, 1: {"S": 1, "X": 3}, 2: {"T": 2, "V": 4}, 3: {"X": 2, "S": 5}, 4: {"P": 3, "V": 5}}


def parsed(string):
    """The symbols that the grammar allows at each position after the first, or None for a string outside it."""
    outer, node, allowed = string[1], 0, [{"T", "P"}, {"B"}]
    for index in range(3, len(string)):
        expected = set(GRAPH[node]) if node < 5 else {"E"}
        allowed.append(expected)
        if string[index] not in expected:
            return None
        if node == 5:
            ending = string[index:]
            return [*allowed, {outer}, {"E"}] if ending == "E" + outer + "E" else None
        node = GRAPH[node][string[index]]
    return None


@pytest.mark.parametrize(("lengths", "length"), [("up to", 14), ("up to", 60), ("exactly", 9), ("exactly", 25)])
def test_embedded_reber_strings_belong_to_the_grammar(lengths, length):
    task, names = EmbeddedReber(length=length, lengths=lengths), "BTPSXVE"
    found = set()
    for inputs, targets, supervised, informative in sequences(task, 2000):
        read = "".join(names[symbol] for symbol in symbols(inputs)) + names[targets[-1][0]]
        allowed = parsed(read)
        assert allowed is not None, read
        assert [names[row[0]] for row in targets] == list(read[1:])
        assert [{names[i] for i in range(7) if row[1 + i]} for row in targets] == allowed
        assert supervised == list(range(len(read) - 1))
        assert informative == [1]
        found.add(len(read))
    assert min(found) == (length if lengths == "exactly" else 9)
    assert max(found) <= length


def test_embedded_reber_draws_the_published_distribution():
    """The share of each string of at most 12 symbols is its probability, 1/2 at each choice, given the length."""
    paths, chances = [("", 0, 1.0)], {}
    while paths:
        path, node, chance = paths.pop()
        for symbol, next_node in GRAPH[node].items():
            if next_node == 5:
                chances[path + symbol] = chance / 2
            elif len(path) < 5:
                paths.append((path + symbol, next_node, chance / 2))
    total, drawn = sum(chances.values()), []
    for inputs, _, _, _ in sequences(EmbeddedReber(length=12), 8000):
        read = "".join("BTPSXVE"[symbol] for symbol in symbols(inputs))
        drawn.append(read[3:-2])
    assert set(drawn) == set(chances)
    assert shares_agree(drawn, {path: chance / total for path, chance in chances.items()}, 8000)


def test_a_range_of_lengths_draws_all_lengths_equally_often_from_the_task_of_that_length():
    task, lengths = LengthRange(task=TemporalOrder(length=20), length=24), []
    for inputs, targets, supervised, informative in sequences(task, 4000):
        read = symbols(inputs)
        marked = [t for t, symbol in enumerate(read) if symbol < 2]
        assert informative == marked
        assert supervised == [len(read) - 1]
        assert targets[-1] == read[marked[0]] + 2 * read[marked[1]]
        assert 2 <= marked[0] < 4
        assert int(0.5 * len(read)) <= marked[1] < int(0.5 * len(read)) + 2
        lengths.append(len(read))
    assert shares_agree(lengths, dict.fromkeys(range(20, 25), 1 / 5), 4000)
    assert set(lengths) == set(range(20, 25))
    assert {len(inputs) for inputs, *_ in sequences(task.with_length(70), 50)} == {70}


def test_a_range_of_lengths_evaluates_as_its_task_does():
    task = LengthRange(task=CopyMemory(length=5), length=12)
    batch = task.sample(60, torch.Generator().manual_seed(0))
    outputs = task.perfect_outputs(batch.targets)
    outputs[batch.lengths - 1, torch.arange(60)] = 0.0  # blank instead of the last symbol
    measures = task.measures(outputs, batch.targets, batch.mask)
    torch.testing.assert_close(measures["error"], torch.full((60,), 0.1))
    assert task.loss_unit == "nats"
    assert task.chance.loss == pytest.approx(sum(10 * log(8) / (t + 20) for t in range(5, 13)) / 8)
    with pytest.raises(SpecError, match=r"LengthRange\.length is 9; it must be at least the task's, 10"):
        LengthRange(task=TemporalOrder(length=10), length=9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TemporalOrder(length=9), "at least 10"),
        (lambda: TemporalOrder(length=20, marks=4), "It takes 2, 3"),
        (lambda: SelectiveCopying(length=33), "at least 34"),
        (lambda: AssociativeRecall(length=15), "at least 16"),
        (lambda: AssociativeRecall(length=64, vocabulary=9), "must be even and at least 10"),
        (lambda: AssociativeRecall(length=64, pairs=8, vocabulary=16), "must be even and at least 18"),
        (lambda: EmbeddedReber(length=8), "at least 9"),
        (lambda: TwoSequence(length=3), "at least 4"),
        (lambda: CopyMemory(length=5, variant="exp"), "did you mean 'exprnn'"),
    ],
)
def test_an_impossible_task_is_refused_in_one_line(build, message):
    with pytest.raises(SpecError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
