"""Specifications refuse impossible values in one line that says what is allowed; equal meaning, equal identity."""

import dataclasses
from typing import Annotated, Any, Literal

import pytest

from rnnstudy.cells import LSTM, Elman
from rnnstudy.cells.initialisation import Chrono, ForgetBias, Gaussian, Orthogonal, PyTorchDefault
from rnnstudy.optimisers import SGD, Adam, ClipNorm
from rnnstudy.run import Run, Training
from rnnstudy.spec import (
    Spec,
    SpecError,
    above,
    assign,
    at_least,
    between,
    build,
    canonical,
    digest,
    field_values,
    flatten,
)
from rnnstudy.tasks import Adding, CopyMemory, TemporalOrder


class Ramp(Spec):
    steps: Annotated[int, at_least(1)] = 10
    rate: Annotated[float, above(0)] = 0.1
    share: Annotated[float, between(0, 1)] | None = None
    shape: Literal["linear", "cosine"] = "linear"
    pair: tuple[int, float] = (1, 2.0)
    warm: bool = False


REFUSED = [
    (lambda: Ramp(step=3), "Ramp has no field 'step'; did you mean 'steps'?"),
    (lambda: Ramp(zzz=3), "Ramp has no field 'zzz'; Its fields: steps, rate"),
    (lambda: Ramp(3), "Ramp takes its fields by keyword only, for example steps=…"),
    (lambda: Ramp(steps=0), "Ramp.steps is 0; it must be at least 1"),
    (lambda: Ramp(steps=1.5), "Ramp.steps is 1.5; it takes a whole number"),
    (lambda: Ramp(steps=True), "Ramp.steps is True; it takes a whole number"),
    (lambda: Ramp(steps="3"), "Ramp.steps is '3'; it takes a whole number"),
    (lambda: Ramp(rate=0), "Ramp.rate is 0.0; it must be greater than 0"),
    (lambda: Ramp(rate=float("nan")), "Ramp.rate is nan; it takes a finite number"),
    (lambda: Ramp(rate=float("inf")), "Ramp.rate is inf; it takes a finite number"),
    (lambda: Ramp(rate=None), "Ramp.rate is None; it takes a finite number"),
    (lambda: Ramp(share=1.5), "Ramp.share is 1.5; it must be between 0 and 1"),
    (lambda: Ramp(share="half"), "Ramp.share is 'half'; it takes a finite number or None"),
    (lambda: Ramp(shape="cosin"), "Ramp.shape is 'cosin'; did you mean 'cosine'? It takes 'linear', 'cosine'"),
    (lambda: Ramp(pair=(1, 2.0, 3)), "Ramp.pair has 3 values; it takes 2"),
    (lambda: Ramp(pair=(1.5, 2.0)), "Ramp.pair[0] is 1.5; it takes a whole number"),
    (lambda: Ramp(pair=7), "Ramp.pair is 7; it takes a tuple of a whole number"),
    (lambda: Ramp(warm=1), "Ramp.warm is 1; it takes True or False"),
    (lambda: Chrono(), "Chrono needs longest"),
    (lambda: Chrono(longest=2), "Chrono.longest is 2; it must be at least 3"),
    (lambda: Gaussian(std=0), "Gaussian.std is 0.0; it must be greater than 0"),
    (lambda: Adam(beta1=1.0), "Adam.beta1 is 1.0; it must be between 0 and"),
    (lambda: SGD(momentun=0.9), "SGD has no field 'momentun'; did you mean 'momentum'?"),
    (lambda: Elman(activation="tahn"), "Elman.activation is 'tahn'; did you mean 'tanh'?"),
    (lambda: LSTM(width=0), "LSTM.width is 0; it must be at least 1"),
    (lambda: TemporalOrder(length=0), "TemporalOrder.length is 0; it must be at least 1"),
    (lambda: TemporalOrder(length=5), "TemporalOrder.length is 5; it must be at least 10"),
    (lambda: Adding(length=1), "Adding.length is 1; it must be at least 2"),
    (lambda: Adding(length=9, variant="pascanu"), "Adding.length is 9; it must be at least 10"),
    (lambda: Adding(length=21, variant="hochreiter"), "Adding.length is 21; it must be at least 22"),
    (lambda: CopyMemory(), "CopyMemory needs length"),
    (lambda: Training(stepps=3), "Training has no field 'stepps'; did you mean 'steps'?"),
    (lambda: Training(optimiser=ClipNorm()), "Training.optimiser is ClipNorm(); it takes"),
    (lambda: Training(other_lengths=(50, 0)), "Training.other_lengths[1] is 0; it must be at least 1"),
    (lambda: Run(task=TemporalOrder(length=10), cell=LSTM), "it takes a Cell"),
    (lambda: Run(task=TemporalOrder(length=10)), "Run needs cell"),
    (lambda: Run(task=TemporalOrder(length=10), cell=LSTM(), seed=-1), "Run.seed is -1; it must be at least 0"),
    (
        lambda: Run(
            task=TemporalOrder(length=10), cell=Elman(), initialisation=Orthogonal(gate_bias=Chrono(longest=9))
        ),
        "Elman() has no forget gate for Chrono(longest=9); leave gate_bias out",
    ),
    (
        lambda: Run(task=TemporalOrder(length=10), cell=Elman(), initialisation=PyTorchDefault(gate_bias=ForgetBias())),
        "Elman() has no forget gate for ForgetBias()",
    ),
    (
        lambda: Run(task=TemporalOrder(length=50), cell=LSTM(), training=Training(other_lengths=(100, 5))),
        "TemporalOrder.length is 5; it must be at least 10",
    ),
    (lambda: assign(Ramp(), "stepps", 3), "Ramp has no field 'stepps'; did you mean 'steps'? Its fields: steps, rate"),
    (lambda: assign(Ramp(), "zzz", 3), "Ramp has no field 'zzz'; Its fields: steps, rate"),
    (lambda: assign(Ramp(), "steps.more", 3), "Ramp.steps is 10 and has no field 'more'"),
    (lambda: build({"class": "rnnstudy.tasks.adding:Addin", "fields": {}}), "rnnstudy.tasks.adding:Addin cannot be"),
    (lambda: build({"class": "no_such_module:Task", "fields": {}}), "no_such_module:Task cannot be found"),
]


@pytest.mark.parametrize(("mistake", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_mistake_is_refused_in_one_line(mistake, words):
    with pytest.raises(SpecError) as caught:
        mistake()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_class_of_a_package_suggests_the_most_similar():
    import rnnstudy.cells
    import rnnstudy.tasks

    with pytest.raises(AttributeError, match=r"rnnstudy\.cells has no 'LSTMM'; did you mean 'LSTM'"):
        _ = rnnstudy.cells.LSTMM
    with pytest.raises(ImportError):
        exec("from rnnstudy.tasks import TemporalOrdr")


def test_a_spec_is_frozen_and_equal_by_value():
    ramp = Ramp(steps=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ramp.steps = 4
    assert ramp == Ramp(steps=3)
    assert ramp != Ramp(steps=4)
    assert len({ramp, Ramp(steps=3)}) == 1


def test_integers_and_floats_of_equal_value_mean_the_same():
    assert Ramp(rate=1) == Ramp(rate=1.0)
    assert digest(canonical(Ramp(rate=1))) == digest(canonical(Ramp(rate=1.0)))
    assert type(Ramp(rate=1).rate) is float
    assert type(Ramp(pair=(1, 2)).pair[1]) is float
    assert Ramp(pair=[3, 4]) == Ramp(pair=(3, 4.0))


def test_canonical_names_the_class_and_leaves_defaults_out():
    described = canonical(Ramp(steps=3, shape="cosine"))
    assert described == {"class": f"{__name__}:Ramp", "fields": {"steps": 3, "shape": "cosine"}}
    assert canonical(Ramp(steps=10, rate=0.1)) == {"class": f"{__name__}:Ramp", "fields": {}}


def shaped(version: int = 1, **later: Any) -> type[Spec]:
    """A class called `Wave`, as its source may look at different times."""
    annotations = {"height": float, **{name: type(default) for name, default in later.items()}}
    body = {"__module__": __name__, "__qualname__": "Wave", "__annotations__": annotations, "version": version}
    return type(Spec)("Wave", (Spec,), {**body, **later})


def test_a_new_field_with_a_default_keeps_the_key_and_a_new_version_changes_it():
    def key(cls: type[Spec], **given: Any) -> str:
        return digest(canonical(cls(**given)))

    before, after, changed = shaped(), shaped(period=2), shaped(version=2)
    assert key(after, height=1.0) == key(before, height=1.0)
    assert key(after, height=1.0, period=2) == key(before, height=1.0)
    assert key(after, height=1.0, period=3) != key(before, height=1.0)
    assert key(changed, height=1.0) != key(before, height=1.0)


def test_build_refuses_another_version_of_a_class(monkeypatch):
    described = canonical(Adding(length=50))
    monkeypatch.setattr(Adding, "version", 2)
    with pytest.raises(SpecError, match="Adding was stored as version 1 and is now version 2"):
        build(described)
    assert build(canonical(Adding(length=50))) == Adding(length=50)


def test_replace_and_assign_check_again():
    assert Ramp(steps=3).replace(rate=2) == Ramp(steps=3, rate=2.0)
    with pytest.raises(SpecError, match="at least 1"):
        Ramp().replace(steps=0)
    run = Run(task=TemporalOrder(length=50), cell=LSTM())
    changed = assign(run, "training.clip.threshold", 2)
    assert field_values(changed.training) == {**field_values(run.training), "clip": ClipNorm(threshold=2.0)}
    assert changed.task is run.task
    with pytest.raises(SpecError, match="must be at least 10"):
        assign(run, "task.length", 3)


def test_flatten_returns_every_field_under_its_path():
    run = Run(task=Adding(length=50), cell=LSTM(width=7), training=Training(clip=None), data_seed=5)
    flat = flatten(run)
    assert flat["task"] == "Adding"
    assert flat["task.length"] == 50
    assert flat["task.variant"] == "modern"
    assert flat["cell.width"] == 7
    assert flat["training.optimiser.beta2"] == 0.999
    assert flat["training.clip"] is None
    assert "training.clip.threshold" not in flat
    assert (flat["seed"], flat["data_seed"]) == (0, 5)
    assert flat["probes"] == "ParameterGradients(), GradientThroughTime()"


def test_numpy_numbers_mean_the_same_as_python_numbers():
    import numpy as np

    plain = Training(steps=5, learning_rate=0.5)
    assert Training(steps=np.int64(5), learning_rate=np.float32(0.5)) == plain
    assert type(Training(steps=np.int64(5)).steps) is int


@pytest.mark.parametrize(
    "described", [{"class": "math:pi", "fields": {}}, {"fields": {}}, {"class": "builtins:int", "fields": {}}]
)
def test_a_description_of_something_else_is_refused(described):
    with pytest.raises(SpecError):
        build(described)
