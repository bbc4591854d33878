"""For any length, options and batch size: shapes, padding, masks, finite losses and chance levels."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnstudy.cells.one_hot import NOTHING
from rnnstudy.tasks import (
    Adding,
    AssociativeRecall,
    CopyMemory,
    DelayedXor,
    EmbeddedReber,
    LengthRange,
    LongTimeLags,
    MultiLagRegression,
    Multiplication,
    NoiselessMemorisation,
    Parity,
    PermutationComposition,
    RandomPermutation,
    SelectiveCopying,
    SequentialDigits,
    TemporalOrder,
    TwoSequence,
    Waveform,
)
from rnnstudy.tasks.task import Task, last_supervised, mean_over_supervised

MARKED_PAIRS = st.sampled_from(["modern", "pascanu", "hochreiter"])


def any_of(build: Callable[..., Task], shortest: int, **options: st.SearchStrategy) -> st.SearchStrategy[Task]:
    return st.builds(build, length=st.integers(shortest, 60), **options)


SMALL = st.integers(2, 12)

TASKS = {
    "temporal order": any_of(
        TemporalOrder, 10, marks=st.sampled_from([2, 3]), variant=st.sampled_from(["pascanu", "hochreiter"])
    ),
    "adding": any_of(Adding, 22, variant=MARKED_PAIRS),
    "multiplication": any_of(Multiplication, 22, variant=MARKED_PAIRS),
    "random permutation": any_of(
        RandomPermutation, 2, symbols=st.integers(4, 30), variant=st.sampled_from(["last", "next"])
    ),
    "two sequence": any_of(
        TwoSequence, 11, informative_steps=st.integers(1, 10), variant=st.sampled_from(["3a", "3b", "3c"])
    ),
    "long time lags": any_of(LongTimeLags, 2, distractors=SMALL, variant=st.sampled_from(["2a", "2b", "2c"])),
    "delayed xor": any_of(DelayedXor, 10),
    "digits": st.builds(SequentialDigits, length=st.integers(64, 80), permuted=st.booleans()),
    "reber": any_of(EmbeddedReber, 9, lengths=st.sampled_from(["up to", "exactly"])),
    "parity": any_of(Parity, 2),
    "permutations": any_of(PermutationComposition, 2, items=st.integers(2, 5)),
    "copy memory": any_of(CopyMemory, 1, variant=st.sampled_from(["arjovsky", "exprnn", "tcn"])),
    "memorisation": any_of(NoiselessMemorisation, 1, variant=st.sampled_from(["5 bits", "20 bits"])),
    "selective copying": any_of(SelectiveCopying, 26, tokens=SMALL, symbols=SMALL),
    "associative recall": any_of(AssociativeRecall, 20, pairs=st.integers(1, 5), vocabulary=st.sampled_from([12, 40])),
    "multi-lag regression": any_of(MultiLagRegression, 33, channels=SMALL, noise=st.floats(0, 2)),
    "waveform": any_of(Waveform, 10, waves=SMALL),
    "range of lengths": st.builds(
        lambda shortest, longer: LengthRange(task=TemporalOrder(length=shortest), length=shortest + longer),
        st.integers(10, 30),
        st.integers(0, 20),
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_contract_holds_for_any_length_and_options(name):
    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(task=TASKS[name], batch=st.integers(1, 9), seed=st.integers(0, 2**31))
    def holds(task, batch, seed):
        drawn = task.sample(batch, torch.Generator().manual_seed(seed))
        assert drawn.inputs.shape == (task.steps, batch, 1 if task.inputs_are_symbols else task.features)
        assert drawn.inputs.is_floating_point() != task.inputs_are_symbols
        assert drawn.targets.shape[:2] == drawn.mask.shape == drawn.informative.shape == (task.steps, batch)
        assert drawn.lengths.shape == (batch,)
        assert drawn.inputs.isfinite().all()
        behind = torch.arange(task.steps)[:, None] >= drawn.lengths
        assert not (behind & (drawn.mask | drawn.informative)).any()
        if task.inputs_are_symbols:
            assert (drawn.inputs[behind] == NOTHING).all()
            assert ((drawn.inputs[~behind] >= 0) & (drawn.inputs[~behind] < task.features)).all()
        else:
            assert not drawn.inputs[behind].any()
        assert drawn.lengths.max() <= task.steps
        assert drawn.mask.any(0).all()
        assert (drawn.informative.int().argmax(0) <= last_supervised(drawn.mask)).all()
        if not drawn.targets.is_floating_point():
            assert drawn.targets.min() >= 0
            assert drawn.targets.max() < task.outputs
        outputs = task.perfect_outputs(drawn.targets).double()
        assert outputs.shape == (task.steps, batch, task.outputs)
        assert not task.measures(outputs, drawn.targets, drawn.mask)["error"].any()
        assert mean_over_supervised(task.loss(outputs, drawn.targets), drawn.mask).isfinite().all()
        assert 0 <= task.least_loss < task.chance.loss
        assert 0 < task.chance.error <= 1
        assert not task.criterion.met(task.chance.error)

    holds()


@pytest.mark.parametrize("name", TASKS)
def test_measures_need_only_the_supervised_steps(name):
    """The training loop passes only the steps at which any sequence is supervised."""

    @settings(max_examples=10, deadline=None, derandomize=True, database=None)
    @given(task=TASKS[name], seed=st.integers(0, 2**31))
    def holds(task, seed):
        source = torch.Generator().manual_seed(seed)
        drawn = task.sample(5, source)
        outputs = torch.randn(task.steps, 5, task.outputs, generator=source, dtype=torch.float64)
        rows = drawn.mask.any(1).nonzero().flatten()
        everywhere = task.measures(outputs, drawn.targets, drawn.mask)
        there = task.measures(outputs[rows], drawn.targets[rows], drawn.mask[rows])
        assert everywhere.keys() == there.keys()
        for measure in everywhere:
            torch.testing.assert_close(everywhere[measure], there[measure])

    holds()
