"""The graph engine: fixed arrays, failed captures, and what can be read after a pass."""

import logging
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.agreement import JUDGED, Case, Leaky, against_reference, passed
from rnnstudy.cells import CIFG, GRU, LSTM, Elman
from rnnstudy.engines import cuda_graph as graph
from rnnstudy.engines import triton as triton_engine
from rnnstudy.engines.choice import choose, require
from rnnstudy.engines.cuda_graph import GraphEngine, exact_products
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.optimisers import SGD, Omega
from rnnstudy.run import Run, Training
from rnnstudy.spec import RequestError
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training import loop
from rnnstudy.training.batches import TrainingBatches
from rnnstudy.training.learner import Learner
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CELLS = [Elman(width=7), LSTM(width=7), GRU(width=7), Leaky(width=7), CIFG(width=7)]
"""With an explicit backward pass, and without."""

SMALL = Training(steps=6, batch=4, validation_sequences=4, test_sequences=4, check_every=3)

every_cell = pytest.mark.parametrize("cell", CELLS, ids=repr)


def again(work):
    """Instead of a capture: the replay runs the work itself again on the same arrays."""
    work()
    return work


def unrolled(engine, cell, seed=0, observed=True, steps=None):
    source = torch.Generator().manual_seed(seed)
    parameters = {
        name: (0.3 * torch.randn(2, *one.shape, generator=source)).requires_grad_()
        for name, one in cell.parameters(3, 2).items()
    }
    inputs = torch.randn(9, 2, 4, 3, generator=source)
    widths = dict.fromkeys(cell.states, cell.width)
    return engine.unroll(cell, parameters, inputs, widths=widths, observed=observed, steps=steps), parameters


@every_cell
@pytest.mark.parametrize("judged", JUDGED)
def test_float64_equals_the_reference_to_its_own_precision(cell, judged):
    case = Case(cell, judged, time=30, layers=2)
    (found, norms), (expected, expected_norms) = (
        passed(engine, case, CPU, torch.float64) for engine in (GraphEngine(), ReferenceEngine())
    )
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-12 * value.abs().max(), name
    for one, other in zip(norms, expected_norms, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@every_cell
def test_captured_passes_are_replayed_on_new_numbers(cell):
    """Two layers of the same shape have two captures; the batches use the same arrays one after another."""
    recorded = []

    def record(work):
        recorded.append(work)
        return again(work)

    engine = GraphEngine(capture=record)
    for judged in ("some steps", "every step, of all sizes", "some steps"):
        case = Case(cell.replace(width=3), judged, layers=3)
        assert against_reference(engine, case, CPU) == ""
    # The layers differ in shape (the lowest reads the inputs, the topmost gives some steps), forward and backward each.
    assert len(recorded) == 2 * (3 + 1)


def test_a_forward_pass_without_a_backward_pass_releases_its_capture():
    recorded = []
    engine = GraphEngine(capture=lambda work: recorded.append(work) or again(work))
    for _ in range(3):
        unrolled(engine, CELLS[0])
    assert len(recorded) == 2


def test_shapes_unused_for_long_are_dropped(monkeypatch):
    monkeypatch.setattr(graph, "MOST_SHAPES", 2)
    engine = GraphEngine(capture=again)
    for step in range(5):
        trajectory, _ = unrolled(engine, CELLS[0], steps=(step,))
        trajectory.outputs.sum().backward()
    assert [shape.output_steps for shape in engine._free] == [(3,), (4,)]


def test_a_failed_capture_is_logged_once_and_the_loop_continues(caplog):
    tried = []

    def fails(work):
        tried.append(work)
        raise RuntimeError("operation not permitted when stream is capturing\nand a long trace")

    engine = GraphEngine(capture=fails)
    case = Case(CELLS[1], "some steps", layers=2)
    with caplog.at_level(logging.INFO, "rnnstudy"):
        assert against_reference(engine, case, CPU) == ""
        assert against_reference(engine, case, CPU) == ""
    [said] = caplog.messages
    assert said == (
        "no CUDA graph could be captured, so the loop runs slower without one: "
        "operation not permitted when stream is capturing"
    )
    assert len(tried) == 1


@every_cell
def test_states_and_gradients_can_be_read_until_they_are_overwritten(cell):
    engine = GraphEngine(capture=again)
    trajectory, _ = unrolled(engine, cell)
    with pytest.raises(RuntimeError, match="only after the backward pass"):
        trajectory.log_norms("h")
    trajectory.outputs.square().sum().backward()
    expected, _ = unrolled(ReferenceEngine(), cell)
    expected.outputs.square().sum().backward()
    for state in cell.states:
        torch.testing.assert_close(trajectory.values(state), expected.values(state))
        torch.testing.assert_close(trajectory.gradient(state), expected.gradient(state), rtol=1e-4, atol=1e-6)
    norms = trajectory.log_norms("h").clone()
    later, _ = unrolled(engine, cell, seed=1)
    later.outputs.sum().backward()
    with pytest.raises(RuntimeError, match="overwritten"):
        trajectory.gradient("h")
    torch.testing.assert_close(trajectory.log_norms("h"), norms, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="state 'x' was not observed; observed: "):
        trajectory.log_norms("x")


def test_what_is_not_served_is_refused():
    engine, cell, inputs = GraphEngine(), CELLS[0], torch.zeros(3, 1, 2, 4)
    parameters = {name: torch.zeros(1, *one.shape) for name, one in cell.parameters(4, 2).items()}
    with pytest.raises(RuntimeError, match=r"the graph engine does not serve .* with changed gradients"):
        engine.unroll(cell, parameters, inputs, widths={"h": cell.width}, observed=False, constant_norm=True)
    assert engine.serves(CELLS[0], frozenset({"states and their gradients"}))
    assert not engine.serves(CELLS[0], frozenset({"cuts"}))


def test_training_with_omega_agrees_with_the_reference():
    training = SMALL.replace(omega=Omega(strength=2.0))
    run = Run(task=TemporalOrder(length=10), cell=CELLS[0], training=training)
    ends = [next(one for one in train(run, engine=engine) if one.outcome) for engine in ("graph", "reference")]
    assert [one.outcome.engine for one in ends] == ["graph", "reference"]
    for name, value in ends[1].weights.items():
        torch.testing.assert_close(
            torch.as_tensor(ends[0].weights[name]), torch.as_tensor(value), rtol=1e-3, atol=1e-4, msg=name
        )


@pytest.mark.parametrize("through", ["allow_tf32", "fp32_precision"])
def test_products_take_no_tf32_and_the_callers_setting_is_restored(through):
    matmul, plain = torch.backends.cuda.matmul, torch.backends.cuda.matmul.fp32_precision
    try:
        setattr(matmul, through, True if through == "allow_tf32" else "tf32")
        with exact_products():
            assert matmul.fp32_precision != "tf32"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = plain
        matmul.allow_tf32 = False


# Which engine trains on which device.


def test_devices_and_engines():
    assert choose(GRU(), frozenset(), CUDA).name == "graph"
    assert choose(LSTM(variant="1997"), frozenset(), CUDA).name == "reference"
    assert choose(LSTM(), frozenset({"cuts"}), CUDA, "graph").name == "reference"
    assert choose(LSTM(), frozenset(), CPU, "graph").name == "graph"
    with pytest.raises(
        RequestError, match="the compiled engine trains on the CPU, not on cuda; use --engine auto or gra"
    ):
        require("compiled", CUDA)
    with pytest.raises(RequestError, match="the triton engine trains on CUDA, not on cpu; use --engine auto or graph"):
        train(Run(task=TemporalOrder(length=10), cell=Elman(width=5)), engine="triton", device="cpu")


def test_a_sweep_with_an_engine_that_cannot_work_on_the_device_does_not_start(rnnstudy, project):
    answer = rnnstudy("sweep", "experiments/small.py", "--device", "cpu", "--engine", "triton")
    assert answer.returncode == 2
    assert "the triton engine trains on CUDA, not on cpu; use --engine auto or graph" in answer.stderr
    assert not list((project / "mlruns").iterdir())


def test_triton_trains_only_where_its_kernels_are_verified(monkeypatch, caplog):
    monkeypatch.setattr(triton_engine, "_disagreement", lambda cell, device: "W_hh differs by 1.0e-03")
    triton_engine.verified.cache_clear()
    monkeypatch.setattr(triton_engine, "installed", lambda package: True)
    with caplog.at_level(logging.INFO, "rnnstudy"):
        for _ in range(2):
            assert choose(Elman(), frozenset(), CUDA, "triton").name == "graph"
    [said] = caplog.messages
    assert said == (
        "the Triton kernels of Elman() are not used, the graph engine trains instead: W_hh differs by 1.0e-03"
    )
    triton_engine.verified.cache_clear()
    monkeypatch.setattr(triton_engine, "_disagreement", lambda cell, device: "")
    assert choose(Elman(), frozenset(), CUDA, "triton").name == "triton"
    # Without kernels: too wide, another cell, or methods that ask for more than norms.
    assert choose(LSTM(width=65), frozenset(), CUDA, "triton").name == "graph"
    assert choose(GRU(), frozenset(), CUDA, "triton").name == "graph"
    assert choose(Elman(), frozenset({"states and their gradients"}), CUDA, "triton").name == "graph"
    triton_engine.verified.cache_clear()


def test_an_error_during_verification_counts_as_a_failure(monkeypatch, caplog):
    def breaks(cell, device):
        raise ValueError("no kernel image is available")

    monkeypatch.setattr(triton_engine, "_disagreement", breaks)
    triton_engine.verified.cache_clear()
    assert not triton_engine.verified(Elman(), CUDA)
    assert "ValueError: no kernel image is available" in caplog.messages[0]
    triton_engine.verified.cache_clear()


# Nothing in a training step waits for the device.


class Waits(TorchDispatchMode):
    """Records where an operation copies a number to the host, or makes a shape depend on one."""

    OPERATIONS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "item")

    def __init__(self):
        super().__init__()
        self.places = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__.strip("_").removesuffix("_dense") in {
            name.strip("_").removesuffix("_dense") for name in self.OPERATIONS
        }:
            frame = sys._getframe()
            while frame is not None and "rnnstudy" not in frame.f_code.co_filename:
                frame = frame.f_back
            self.places.append(f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "?")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("engine", ["graph", "reference"])
@every_cell
def test_a_training_step_copies_no_number_to_the_host(engine, cell, monkeypatch):
    """Between validation checks. On a CPU nothing waits, so the test looks for operations that would wait on a GPU."""
    # Adam counts its steps on the host, whatever the device, and asks for the count.
    training = SMALL.replace(steps=30, check_every=30, optimiser=SGD())
    run = Run(task=TemporalOrder(length=10), cell=cell, training=training)
    population = Population((run, run.replace(seed=1)))
    batches = TrainingBatches(population, 0, CPU)
    drawn = [next(batches) for _ in range(3)]
    monkeypatch.setattr(loop, "TrainingBatches", lambda *_: iter([drawn[0], drawn[1], *drawn]))
    waits, between = Waits(), []
    inner = Learner.update

    def update(self, *arguments):
        # From the end of the first update to the end of the third lie two whole steps of the loop.
        inner(self, *arguments)
        between.append(len(waits.places))

    monkeypatch.setattr(Learner, "update", update)
    for name in ("cpu", "tolist", "numpy", "item"):
        whole = getattr(torch.Tensor, name)

        def noted(self, *arguments, _whole=whole, _name=name, **options):
            waits.places.append(_name)
            return _whole(self, *arguments, **options)

        monkeypatch.setattr(torch.Tensor, name, noted)
    asked = iter(range(100))
    with waits:
        list(train(population, engine=engine, stop=lambda: next(asked) == 3))
    assert between[2] == between[0], waits.places[between[0] : between[2]]
    assert len(waits.places) > between[2], "what comes after does bring numbers to the host, so they can be seen"
