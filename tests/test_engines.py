"""Fast engines against the reference engine in float64, and beyond the range of floats."""

import gc
import importlib.util
import itertools
import logging
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from rnnstudy.cells import CIFG, GRU, LSTM, Elman, Jordan
from rnnstudy.cells.initialisation import PyTorchDefault
from rnnstudy.cli import app
from rnnstudy.engines import ENGINE_NAMES
from rnnstudy.engines.buffers import BufferPool, Buffers
from rnnstudy.engines.choice import ENGINE_CLASSES, _warn_without_numba, choose
from rnnstudy.engines.compiled import CompiledEngine
from rnnstudy.engines.engine import Engine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.traced import TracedEngine
from rnnstudy.run import Run, Training
from rnnstudy.spec import RequestError
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.batches import TrainingBatches
from rnnstudy.training.grouping import populations
from rnnstudy.training.learner import Learner
from rnnstudy.training.loop import train
from rnnstudy.training.model import Model
from rnnstudy.training.population import Population
from rnnstudy.training.randomness import generator

CPU = torch.device("cpu")
FEATURES, OUTPUTS, TIME = 3, 2, 40
ENGINES = [CompiledEngine()]
ACTIVATIONS = ["tanh", "relu", "sigmoid", "linear"]
CELLS = [*(Elman(width=13, activation=activation) for activation in ACTIVATIONS), GRU(width=13), LSTM(width=13)]
KINDS = [CELLS[0], *CELLS[-2:]]
LEAST_COMPARED = -140.0
"""Below 10⁻¹⁴⁰ the float64 reference's own squares come near the end of its range."""

every_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
every_cell = pytest.mark.parametrize("cell", CELLS, ids=repr)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(cell, replicas, layers=1):
    model = Model(cell=cell, layers=layers, features=FEATURES, outputs=OUTPUTS)
    values = [model.draw(PyTorchDefault(), generator(seed, "initialisation")) for seed in range(replicas)]
    return model, {name: torch.stack([one[name] for one in values]) for name in values[0]}


def backwards(engine, model, parameters, inputs, judge, dtype=torch.float32):
    """Outputs, every gradient and every layer's log norms for L = Σ judge ⊙ outputs; `judge` may hold zeros."""
    parameters = {name: value.to(dtype).clone().requires_grad_() for name, value in parameters.items()}
    inputs = inputs.to(dtype).clone().requires_grad_()
    steps = tuple(judge.flatten(1).any(1).nonzero().flatten().tolist())
    outputs, trajectories = model.forward(engine, parameters, inputs, steps=steps, observed=True)
    (outputs * judge[list(steps)].to(dtype)).sum().backward()
    gradients = {name: value.grad for name, value in parameters.items()} | {"inputs": inputs.grad}
    norms = [one.log_norms(state) for one in trajectories for state in model.cell.states]
    return outputs.detach(), gradients, norms


def assert_alike(found, expected, tolerance=3e-6):
    """Values relative to the largest, norms in decades."""
    assert found[0].shape == expected[0].shape
    pairs = [(found[0], expected[0]), *((found[1][name], expected[1][name]) for name in expected[1])]
    for one, other in pairs:
        assert (one.double() - other).abs().max() <= tolerance * other.abs().max()
    for one, other in zip(found[2], expected[2], strict=True):
        assert one.dtype == torch.float64
        assert one.shape == other.shape
        assert torch.equal(one == -torch.inf, other == -torch.inf)
        compared = other > LEAST_COMPARED
        assert compared.any()
        assert (one - other)[compared].abs().max() < 5e-5


def judged(kind, replicas, batch):
    """Which outputs the loss reads: the last step, some, every step with magnitudes far apart, or varying lengths."""
    judge = noise(TIME, replicas, batch, OUTPUTS, seed=1)
    if kind == "last":
        judge[:-1] = 0
    if kind == "some":
        judge[[t for t in range(TIME) if t not in (0, 7, 30)]] = 0
    if kind == "every, of all sizes":
        judge *= (
            10.0
            ** torch.linspace(3, -25, TIME)[torch.randperm(TIME, generator=torch.Generator().manual_seed(3))][
                :, None, None, None
            ]
        )
    if kind == "varying lengths":
        last = torch.randint(3, TIME, (replicas, batch), generator=torch.Generator().manual_seed(4))
        judge *= (torch.arange(TIME)[:, None, None] == last)[..., None]
    return judge


def bits(found, replica):
    outputs, gradients, norms = found
    own = [gradient[:, replica] if name == "inputs" else gradient[replica] for name, gradient in gradients.items()]
    return [outputs[:, replica], *own, *(norm[:, replica] for norm in norms)]


def assert_same_bits(one, other):
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.view(torch.int64 if a.dtype == torch.float64 else torch.int32), b.view(
            torch.int64 if b.dtype == torch.float64 else torch.int32
        ))  # fmt: skip


# Against the reference.


@every_engine
@every_cell
@pytest.mark.parametrize("kind", ["last", "some", "every, of all sizes", "varying lengths"])
def test_outputs_gradients_and_norms(engine, cell, kind):
    model, parameters = drawn(cell, replicas=2)
    inputs, judge = noise(TIME, 2, 7, FEATURES), judged(kind, 2, 7)
    expected = backwards(ReferenceEngine(), model, parameters, inputs, judge, torch.float64)
    assert_alike(backwards(engine, model, parameters, inputs, judge), expected)


@every_engine
@pytest.mark.parametrize("cell", KINDS, ids=repr)
@pytest.mark.parametrize("layers", [2, 3])
def test_several_layers(engine, cell, layers):
    model, parameters = drawn(cell, 2, layers)
    inputs, judge = noise(TIME, 2, 5, FEATURES), judged("some", 2, 5)
    expected = backwards(ReferenceEngine(), model, parameters, inputs, judge, torch.float64)
    assert_alike(backwards(engine, model, parameters, inputs, judge), expected)


@every_engine
@pytest.mark.parametrize(("width", "batch"), [(1, 1), (16, 3), (17, 4), (50, 20), (70, 33), (130, 2)])
@pytest.mark.parametrize("kind", [Elman, GRU, LSTM])
def test_all_sizes(engine, kind, width, batch):
    model, parameters = drawn(kind(width=width), 2)
    inputs, judge = noise(TIME, 2, batch, FEATURES), judged("some", 2, batch)
    expected = backwards(ReferenceEngine(), model, parameters, inputs, judge, torch.float64)
    assert_alike(backwards(engine, model, parameters, inputs, judge), expected, 1e-5)


@every_engine
def test_only_what_is_requested_is_returned(engine):
    cell = LSTM(width=5)
    model, parameters = drawn(cell, 2)
    inputs = noise(9, 2, 4, FEATURES)
    whole = engine.unroll(cell, parameters, inputs, widths=model.widths, observed=False)
    assert whole.outputs.shape == (9, 2, 4, 5)
    assert not whole.outputs.requires_grad
    some = engine.unroll(cell, parameters, inputs, widths=model.widths, observed=False, steps=(0, 3, 8))
    assert torch.equal(some.outputs, whole.outputs[[0, 3, 8]])
    with pytest.raises(RuntimeError, match="state 'c' was not observed; observed: none"):
        some.log_norms("c")
    seen = engine.unroll(cell, parameters, inputs, widths=model.widths, observed=True)
    with pytest.raises(RuntimeError, match="only after the backward pass"):
        seen.log_norms("h")
    with pytest.raises(RuntimeError, match="no compiled kernels"):
        engine.unroll(Jordan(width=5), parameters, inputs, widths=model.widths, observed=False)
    with pytest.raises(RuntimeError, match="float32 on the CPU"):
        engine.unroll(cell, parameters, inputs.double(), widths=model.widths, observed=False)


# Beyond the range of floats.


@every_engine
@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5])
def test_a_linear_network_follows_its_radius_beyond_the_range_of_floats(engine, radius):
    """W_hh = ρQ with Q orthogonal: log10 ‖dL/dh_t‖ changes by log10 ρ a step, here to 10⁻⁶⁰² or 10³⁵²."""
    time, width = 2000, 20
    orthogonal = torch.linalg.qr(noise(width, width).double()).Q
    zeros = {"W_xh": torch.zeros(1, FEATURES, width), "b_h": torch.zeros(1, width)}
    parameters = {"W_hh": (radius * orthogonal)[None].float().requires_grad_(), **zeros}
    inputs = torch.zeros(time, 1, 3, FEATURES)
    cell = Elman(width=width, activation="linear")
    trajectory = engine.unroll(cell, parameters, inputs, widths={"h": width}, observed=True, steps=(time - 1,))
    (trajectory.outputs * noise(1, 1, 3, width, seed=1)).sum().backward()
    log_norms = trajectory.log_norms("h")
    lags = torch.arange(time - 1, -1, -1, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(log_norms, log_norms[-1] + math.log10(radius) * lags, rtol=0, atol=2e-4)
    assert log_norms[0].isfinite().all()


@every_engine
def test_weight_gradients_come_from_steps_whose_gradient_a_float_cannot_hold(engine):
    """A faint signal at t = 1, the loss at T = 300: dL/dh_1 ~ 1.5³⁰⁰ leaves float32, dL/dW_xh does not."""
    time, width = 300, 20
    cell = Elman(width=width, activation="linear")
    model, parameters = drawn(cell, 1)
    parameters["W_hh"] = (1.5 * torch.linalg.qr(noise(width, width).double()).Q)[None].float()
    parameters["b_h"] *= 0
    inputs, judge = torch.zeros(time, 1, 3, FEATURES), torch.zeros(time, 1, 3, OUTPUTS)
    inputs[0], judge[-1] = 1e-25 * noise(1, 3, FEATURES), noise(1, 3, OUTPUTS)
    expected = backwards(ReferenceEngine(), model, parameters, inputs, judge, torch.float64)
    found = backwards(engine, model, parameters, inputs, judge)
    assert (found[2][0] - expected[2][0]).abs().max() < 5e-5
    wanted = expected[1]["W_xh"]
    assert 1e-37 < wanted.abs().max() < 1e37
    assert (found[1]["W_xh"] - wanted).abs().max() < 1e-4 * wanted.abs().max()
    # What leaves float32's range becomes zero or infinite, never a wrong number.
    wanted = expected[1]["inputs"]
    largest = wanted.abs().amax(-1)
    near = (found[1]["inputs"] - wanted).abs().amax(-1) < 1e-4 * largest
    assert near[(largest > 1e-36) & (largest < 1e38)].all()
    assert (found[1]["inputs"][largest < 1e-38].abs() < 2e-38).all()
    assert (found[1]["inputs"].abs() == torch.inf)[wanted.abs() > 4e38].all()


@every_engine
def test_a_grus_gradient_decays_by_its_update_gate(engine):
    """With W_hh = 0 and a constant gate z log10 ‖dL/dh_t‖ falls by −log10 z a step, all the way back."""
    time, width = 1500, 6
    cell = GRU(width=width)
    parameters = {name: torch.zeros(1, *one.shape) for name, one in cell.parameters(FEATURES, OUTPUTS).items()}
    parameters["b_h"][:, width : 2 * width] = -3.0
    inputs = torch.zeros(time, 1, 2, FEATURES)
    trajectory = engine.unroll(cell, parameters, inputs, widths={"h": width}, observed=True, steps=(time - 1,))
    (trajectory.outputs * noise(1, 1, 2, width)).sum().backward()
    log_norms = trajectory.log_norms("h")
    lags = torch.arange(time - 1, -1, -1, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(log_norms, log_norms[-1] - math.log10(1 + math.exp(3)) * lags, rtol=0, atol=2e-4)
    assert log_norms[0].max() < -1900


@every_engine
def test_a_cell_states_gradient_decays_by_its_forget_gate(engine):
    """With W_hh = 0 and constant gates log10 ‖dL/dc_t‖ falls by −log10 f a step, and dL/dh_t is exactly zero before."""
    time, width = 1500, 6
    cell = LSTM(width=width)
    parameters = {name: torch.zeros(1, *one.shape) for name, one in cell.parameters(FEATURES, OUTPUTS).items()}
    parameters["b_h"][:, :width] = -3.0
    inputs = torch.zeros(time, 1, 2, FEATURES)
    trajectory = engine.unroll(cell, parameters, inputs, widths={"c": width, "h": width}, observed=True, steps=(1499,))
    (trajectory.outputs * noise(1, 1, 2, width)).sum().backward()
    by_c, by_h = trajectory.log_norms("c"), trajectory.log_norms("h")
    lags = torch.arange(time - 1, -1, -1, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(by_c, by_c[-1] - math.log10(1 + math.exp(3)) * lags, rtol=0, atol=2e-4)
    assert by_c[0].max() < -1900
    assert (by_h[:-1] == -torch.inf).all()
    assert by_h[-1].isfinite().all()


# Replicas on their own.


@every_engine
@pytest.mark.parametrize("cell", KINDS, ids=repr)
def test_bits_depend_neither_on_threads_nor_on_other_replicas(engine, cell):
    _, parameters = drawn(cell, 5)
    inputs, judge = noise(TIME, 5, 6, FEATURES), noise(TIME, 5, 6, cell.width, seed=1)

    def unrolled(replicas):
        """Without the readout: torch's batched products may round differently for other populations."""
        own = {name: parameters[name][replicas].clone().requires_grad_() for name in cell.parameters(1, 1)}
        x = inputs[:, replicas].clone().requires_grad_()
        widths = dict.fromkeys(cell.states, cell.width)
        trajectory = engine.unroll(cell, own, x, widths=widths, observed=True)
        (trajectory.outputs * judge[:, replicas]).sum().backward()
        norms = [trajectory.log_norms(state) for state in cell.states]
        return trajectory.outputs, {name: value.grad for name, value in own.items()} | {"inputs": x.grad}, norms

    together = unrolled(slice(0, 5))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        in_two_threads = unrolled(slice(0, 5))
    finally:
        torch.set_num_threads(threads)
    for replica in range(5):
        assert_same_bits(bits(in_two_threads, replica), bits(together, replica))
        assert_same_bits(bits(unrolled(slice(replica, replica + 1)), 0), bits(together, replica))


@every_engine
def test_the_callers_denormal_setting_is_restored_and_does_not_matter(engine):
    cell = Elman(width=13)
    model, parameters = drawn(cell, 2)
    parameters["W_hh"] *= 0.01
    inputs, judge = noise(TIME, 2, 4, FEATURES), judged("last", 2, 4)
    found = []
    try:
        for flushed in (True, False):
            torch.set_flush_denormal(flushed)
            found.append(backwards(engine, model, parameters, inputs, judge))
            assert (sys.float_info.min / 2 == 0) == flushed
    finally:
        torch.set_flush_denormal(False)
    assert_same_bits(found[0][2], found[1][2])


@every_engine
@pytest.mark.parametrize("fault", ["not a number", "overflow"])
@pytest.mark.parametrize("cell", [CELLS[3], CELLS[1], *CELLS[-2:]], ids=repr)
def test_numbers_that_are_not_finite_stay_in_their_replica(engine, cell, fault):
    model, parameters = drawn(cell, 3)
    inputs, judge = noise(TIME, 3, 6, FEATURES), judged("some", 3, 6)
    sound = backwards(engine, model, parameters, inputs, judge)
    if fault == "not a number":
        parameters["W_hh"][1, 2, 3] = torch.nan
    else:
        parameters["W_hh"][1] *= 1e38
        parameters["W_xh"][1] *= 1e38
    faulted = backwards(engine, model, parameters, inputs, judge)
    for replica in (0, 2):
        assert_same_bits(bits(faulted, replica), bits(sound, replica))
    if fault == "not a number" or isinstance(cell, Elman):
        assert not all(value.isfinite().all() for value in bits(faulted, 1)[:-1])


@every_engine
def test_a_diverged_run_is_reported_and_the_other_runs_end_with_the_same_bits(engine):
    """The same bits as beside a run that does not diverge."""
    training = Training(steps=6, batch=4, validation_sequences=4, test_sequences=4, check_every=3)
    base = Run(task=TemporalOrder(length=10), cell=Elman(width=5, activation="linear"), training=training)
    sound, other, calm = (base.replace(seed=seed) for seed in (1, 2, 3))
    wild = calm.replace(training=training.replace(learning_rate=1e30))
    ends = [
        {one.key: one for one in train(Population((sound, third, other)), engine=engine) if one.outcome}
        for third in (wild, calm)
    ]
    assert ends[0][wild.key].outcome.status == "diverged"
    assert ends[1][calm.key].outcome.status == "finished"
    for run in (sound, other):
        with_wild, with_calm = (one[run.key] for one in ends)
        assert with_wild.outcome.engine == engine.name
        for name, value in with_calm.weights.items():
            np.testing.assert_array_equal(with_wild.weights[name], value)


@every_engine
@pytest.mark.parametrize(("cell", "most"), [(Elman(), 8), (GRU(), 40), (LSTM(), 40)], ids=repr)
def test_bytes_kept_for_the_backward_pass(engine, cell, most):
    model, parameters = drawn(cell, 2)
    inputs = noise(100, 2, 20, FEATURES)
    parameters = {name: value.requires_grad_() for name, value in parameters.items()}
    outputs = engine.unroll(cell, parameters, inputs, widths=model.widths, observed=True, steps=(99,)).outputs
    kept = sum(array.nbytes for array in outputs.grad_fn.buffers.arrays)
    assert kept / (100 * 2 * 20 * cell.width) <= most


@pytest.mark.parametrize(("engine", "cell"), [(CompiledEngine(), LSTM(width=3)), (TracedEngine(), CIFG(width=3))])
def test_arrays_return_to_the_pool_when_a_step_ends(engine, cell):
    """Not only when cycles of references are collected, which in a long run of few objects comes too late."""
    run = Run(task=TemporalOrder(length=10), cell=cell)
    learner = Learner.begin(Population((run,)), torch.device("cpu"))
    data = next(TrainingBatches(learner.population, 0, torch.device("cpu")))

    def arrays():
        return {id(one) for one in gc.get_objects() if type(one) is Buffers}

    def step():
        outputs, _ = learner.population.model.forward(
            engine, learner.parameters, data.inputs, steps=data.steps, observed=False
        )
        during = arrays()
        learner.backward(data.loss(run.task, outputs).mean(-1))
        return during

    before = arrays()
    gc.disable()
    try:
        assert step() - before
        assert arrays() <= before
    finally:
        gc.enable()


def test_arrays_are_reused_and_dropped_when_there_are_too_many():
    pool = BufferPool(most_bytes=1000)
    first = pool.acquire([(10, 10), (5,)])
    addresses = {array.ctypes.data for array in first.arrays}
    second = pool.acquire([(10, 10)])
    assert second.arrays[0].ctypes.data not in addresses
    del first
    again = pool.acquire([(5,), (10, 10)])
    assert {array.ctypes.data for array in again.arrays} == addresses
    assert [array.shape for array in again.arrays] == [(5,), (10, 10)]
    del again, second
    pool.acquire([(1,)])
    assert sum(array.nbytes for array in pool._free) <= 1000


# Training.


@every_engine
def test_a_step_of_the_quickstart_agrees_with_the_reference(engine):
    experiment = load_experiment(Path(__file__).parent.parent / "experiments" / "quickstart.py")
    groups = populations(experiment.runs(Scale("smoke")))
    assert {type(group.runs[0].cell) for group in groups} == {Elman, LSTM}
    for group in groups:
        batch = next(TrainingBatches(group, 0, CPU))
        weights = []
        for one in (engine, ReferenceEngine()):
            learner = Learner.begin(group, CPU)
            outputs, _ = group.model.forward(one, learner.parameters, batch.inputs, steps=batch.steps, observed=True)
            loss = batch.loss(group.task, outputs).mean(-1)
            gradients = learner.backward(loss)
            weights.append({name: value.clone() for name, value in gradients.items()})
            learner.update(loss, gradients, learner.clip(gradients))
            weights[-1] |= {f"{name} after": value.detach() for name, value in learner.parameters.items()}
        for name, value in weights[1].items():
            torch.testing.assert_close(weights[0][name], value, rtol=1e-4, atol=1e-6, msg=name)


@every_engine
@pytest.mark.parametrize("cell", [Elman(width=5), GRU(width=5), LSTM(width=5)], ids=repr)
def test_a_run_resumed_from_a_checkpoint_ends_with_the_same_bits(engine, cell, tmp_path):
    training = Training(steps=40, batch=4, validation_sequences=4, test_sequences=4, check_every=10)
    run = Run(task=TemporalOrder(length=10), cell=cell, training=training)
    [whole] = [one for one in train(run, engine=engine) if one.outcome]
    asked = itertools.count()
    assert not [one for one in train(run, engine=engine, checkpoint=tmp_path / "c", stop=lambda: next(asked) == 17)
                if one.outcome]  # fmt: skip
    [pieces] = [one for one in train(run, engine=engine, checkpoint=tmp_path / "c") if one.outcome]
    for name, value in whole.weights.items():
        np.testing.assert_array_equal(pieces.weights[name], value)


# Which engine trains.


def test_the_choice():
    for cell in CELLS:
        assert choose(cell, frozenset(), CPU).name == "compiled"
        assert choose(cell, frozenset(), CPU, "compiled").name == "compiled"
        assert choose(cell, frozenset(), CPU, "reference").name == "reference"
        assert choose(cell, frozenset({"cuts"}), CPU).name == "reference"
        assert choose(cell, frozenset(), torch.device("cuda")).name == "graph"
    assert choose(LSTM(variant="1997"), frozenset(), CPU, "compiled").name == "reference"
    assert choose(Jordan(), frozenset(), CPU, "compiled").name == "reference"


def test_every_name_in_the_list_has_an_engine_class_of_that_name():
    assert ENGINE_NAMES[0] == "auto"
    assert tuple(ENGINE_CLASSES) == ENGINE_NAMES[1:]
    assert all(engine.name == name for name, engine in ENGINE_CLASSES.items())
    # Only the probes' engine cannot be asked for.
    assert {engine.name for engine in subclasses(Engine)} == {*ENGINE_NAMES[1:], "scaled"}


def subclasses(base):
    """The concrete engines of this package."""
    for child in base.__subclasses__():
        if "name" in vars(child) and child.__module__.startswith("rnnstudy."):
            yield child
        yield from subclasses(child)


def test_the_command_line_offers_exactly_the_names_in_the_list():
    shown = CliRunner().invoke(app, ["sweep", "--help"]).output
    [option] = re.findall(r"--engine\s+\[([^\]]*)\]", shown)
    assert re.split(r"\s*\|\s*", option) == list(ENGINE_NAMES)


def test_the_list_of_engines_is_imported_without_torch_or_numba():
    program = "import sys, rnnstudy.engines; print([name for name in ('torch', 'numba') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_subclass_of_a_served_cell_is_not_served():
    class Other(Elman):
        """Computes something else, perhaps."""

    assert choose(Other(), frozenset(), CPU).name == "reference"


def test_without_numba_the_reference_engine_trains_with_one_warning(monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    _warn_without_numba.cache_clear()
    with caplog.at_level(logging.INFO, "rnnstudy"):
        assert choose(Elman(), frozenset(), CPU).name == "reference"
        assert choose(LSTM(), frozenset(), CPU).name == "reference"
    assert caplog.messages == ["numba is not installed: the reference engine trains, several times slower"]
    with pytest.raises(RequestError, match="needs numba, which is not installed"):
        choose(Elman(), frozenset(), CPU, "compiled")


def test_a_run_keeps_the_engine_that_began_it(tmp_path):
    training = Training(steps=20, batch=4, validation_sequences=4, test_sequences=4, check_every=10)
    run = Run(task=TemporalOrder(length=10), cell=Elman(width=5), training=training)
    asked = itertools.count()
    list(train(run, engine="reference", checkpoint=tmp_path / "c", stop=lambda: next(asked) == 7))
    [ended] = [one for one in train(run, checkpoint=tmp_path / "c") if one.outcome]
    assert ended.outcome.engine == "reference"
    [fresh] = [one for one in train(run) if one.outcome]
    assert fresh.outcome.engine == "compiled"


def test_an_unknown_engine_raises_at_the_call():
    with pytest.raises(RequestError, match="engine 'compild' is unknown; did you mean 'compiled'"):
        train(Run(task=TemporalOrder(length=10), cell=Elman(width=5)), engine="compild")


# Kernels.


def test_elementary_functions():
    from rnnstudy.engines.numba_kernels.numbers import exponential, sigmoid, tanh

    x = np.concatenate([np.linspace(-20, 20, 4001), [0.0, 1e-30, -1e-30, 80, -80]]).astype(np.float32)
    exact = x.astype(np.float64)
    for function, truth, bound in [(tanh, np.tanh, 1e-7), (sigmoid, lambda v: 1 / (1 + np.exp(-v)), 1e-7)]:
        assert abs(np.array([function(v) for v in x]) - truth(exact)).max() < bound
    assert abs(np.array([exponential(v) for v in x]) / np.exp(exact) - 1).max() < 2e-7
    inside = abs(x) < 5
    assert abs(np.array([tanh(v) for v in x[inside & (x != 0)]]) / np.tanh(exact[inside & (x != 0)]) - 1).max() < 3e-7
    for function in (tanh, sigmoid, exponential):
        assert np.isnan(function(np.float32(np.nan)))
    assert [tanh(np.float32(v)) for v in (-np.inf, np.inf)] == [-1, 1]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 17), (3, 50, 50), (7, 3, 64), (20, 57, 50), (33, 2, 130)])
@pytest.mark.parametrize("flipped", [False, True])
def test_products_in_tiles_add_to_the_output_and_write_nothing_else(shape, flipped):
    from rnnstudy.engines.numba_kernels.tiles import LANES, add_product, padded

    rows, depth, columns = shape
    wide = padded(columns)
    assert wide % LANES == 0
    assert 0 <= wide - columns < LANES
    a = noise(depth, rows).numpy().T if flipped else noise(rows, depth).numpy()
    w = noise(depth, wide, seed=1).numpy()
    guarded = np.full((rows + 2, wide + 2 * LANES), np.nan, np.float32)
    out = guarded[1:-1, LANES:-LANES]
    before = noise(rows, wide, seed=2).numpy()
    out[:] = before
    add_product(a, w, out)
    np.testing.assert_allclose(out, before + a.astype(float) @ w.astype(float), rtol=0, atol=1e-5 * depth**0.5)
    out[:] = np.nan
    assert np.isnan(guarded).all()


@pytest.mark.parametrize("cell", KINDS, ids=repr)
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("reads", ["numbers", "symbols"])
def test_kernels_write_only_their_results(cell, batch, reads):
    """Every array lies between guards of NaN, and is itself filled completely."""
    from rnnstudy.engines.compiled import buffer_shapes, kernel_weights, kernels_of

    kernels = kernels_of(type(cell))
    _, parameters = drawn(cell, 1)
    weights = [weight[0].numpy() for weight in kernel_weights(cell, parameters)]
    guarded = []

    def between_guards(*shape, dtype=np.float32):
        guarded.append(np.full((shape[0] + 2, *shape[1:]), np.nan if dtype == np.float32 else -7, dtype))
        return guarded[-1][1:-1]

    kept = tuple(between_guards(*shape[1:]) for shape in buffer_shapes(cell, 1, TIME, batch))
    x, symbols = noise(TIME, batch, FEATURES).numpy(), np.empty((0, batch), np.int32)
    at_x = x
    if reads == "symbols":
        symbols = between_guards(TIME, batch, dtype=np.int32)
        symbols[:] = np.random.default_rng(0).integers(-1, FEATURES, symbols.shape)
        x, at_x = np.empty((TIME, batch, 0), np.float32), x[:0]
    kernels.forward(x, symbols, *weights, 0, kept)
    added, slots = noise(1, batch, cell.width).numpy(), np.full(TIME, -1, np.int32)
    slots[-1] = 0
    gradients = [between_guards(*like.shape) for like in (at_x, *weights)]
    squares = between_guards(len(cell.states), TIME, batch)
    exponents = between_guards(len(cell.states), TIME, batch, dtype=np.int32)
    kernels.backward(x, symbols, *weights, 0, kept, added, slots, *gradients, squares, exponents)
    for array in guarded:
        guard = np.isnan if array.dtype == np.float32 else (lambda numbers: numbers == -7)
        assert guard(array[[0, -1]]).all()
        assert array.dtype != np.float32 or np.isfinite(array[1:-1]).all()


@every_cell
@pytest.mark.parametrize("reads", ["numbers", "symbols"])
@pytest.mark.parametrize("steps", [(TIME - 1,), (0,), (0, 7, TIME - 1), tuple(range(TIME))], ids=len)
def test_what_is_only_evaluated_has_the_bits_of_what_is_trained(cell, reads, steps):
    """Where nothing is differentiated, the steps that the backward pass would need are not kept."""
    model, parameters = drawn(cell, 2)
    inputs = noise(TIME, 2, 5, FEATURES)
    if reads == "symbols":
        inputs = torch.randint(-1, FEATURES, (TIME, 2, 5, 1), generator=torch.Generator().manual_seed(0))
    engine, found = CompiledEngine(), []
    for trains in (True, False):
        own = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        with torch.set_grad_enabled(trains):
            outputs, _ = model.forward(engine, own, inputs, steps=steps, observed=False)
        assert outputs.requires_grad == trains
        found.append(outputs.detach())
    assert torch.equal(*found)


def test_an_evaluation_keeps_no_gates_of_earlier_steps(monkeypatch):
    from rnnstudy.engines import compiled

    cell, time = LSTM(width=16), 1000
    model, parameters = drawn(cell, 1)
    monkeypatch.setattr(compiled, "BUFFERS", compiled.BufferPool())
    with torch.no_grad():
        model.forward(CompiledEngine(), parameters, noise(time, 1, 4, FEATURES), steps=(time - 1,), observed=False)
    # Arrays come back to the pool when it is next asked.
    compiled.BUFFERS.acquire([])
    assert sum(array.size for array in compiled.BUFFERS._free) < 100 * 4 * 16


@pytest.mark.slow
def test_the_first_call_logs_that_it_compiles_and_the_next_process_uses_the_cache(tmp_path):
    program = (
        "import torch\nfrom rnnstudy.cells import Elman\nfrom rnnstudy.engines.compiled import CompiledEngine\n"
        "weights = {'W_xh': torch.ones(1, 2, 3), 'W_hh': torch.ones(1, 3, 3), 'b_h': torch.ones(1, 3)}\n"
        "for _ in range(2):\n"
        "    inputs = torch.ones(4, 1, 1, 2)\n"
        "    CompiledEngine().unroll(Elman(width=3), weights, inputs, widths={'h': 3}, observed=False)\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for _ in range(2)
    ]
    assert said[0].count("compiling the kernels of Elman") == 1
    assert said[1] == ""
