"""The traced engine: any cell's own step, against the reference engine; and each reason why there is no program."""

import ctypes
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from benchmarks.agreement import DIAGONAL, JUDGED, TRACED, Case, Leaky, against_reference, beyond_floats, passed
from rnnstudy.cells import GRU, JANET, LSTM, MLSTM, SLSTM, Elman, MinGRU
from rnnstudy.cells.cell import Cell, Parameter
from rnnstudy.engines import choice, traced
from rnnstudy.engines.choice import LEAST_SECONDS_TRACED, MOST_NUMBERS_TRACED, Load, choose
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.engines.step_compiler import library as step_library
from rnnstudy.engines.step_compiler import rows as step_rows
from rnnstudy.engines.step_compiler.library import CompilingError, library
from rnnstudy.engines.step_compiler.prelude import PRELUDE
from rnnstudy.engines.traced import NoProgramError, TracedEngine, disagreement, why_not
from rnnstudy.run import Run, Training
from rnnstudy.spec import RequestError
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.cost import load_of
from rnnstudy.training.loop import train

CPU = torch.device("cpu")
LONG = Load(seconds=10 * LEAST_SECONDS_TRACED)

pytestmark = pytest.mark.skipif(step_library.compiler() is None, reason="there is no C compiler")


@pytest.fixture(autouse=True)
def compiled_quickly(monkeypatch):
    """Without optimisation, which takes most of a compiler's time."""
    monkeypatch.setattr(step_library, "OPTIONS", ("-O1", *step_library.OPTIONS[1:]))


@pytest.fixture
def forgetful():
    """Nothing that was found about a cell before is remembered, and nothing stays known afterwards."""
    caches = (why_not, disagreement, traced._kernels, library, choice.say_reference_trains, step_library._folder)
    for one in caches:
        one.cache_clear()
    yield
    for one in caches:
        one.cache_clear()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Own(Cell):
    """A cell of one state, whose step is `target` of h_{t−1} W_hh + p_t and h_{t−1}."""

    source: ClassVar[str] = "a test"
    states: ClassVar[tuple[str, ...]] = ("h",)

    def parameters(self, features, outputs):
        return {
            "W_xh": Parameter("input", (features, self.width), ("h",)),
            "W_hh": Parameter("recurrent", (self.width, self.width), ("h",)),
            "b_h": Parameter("bias", (self.width,), ("h",)),
        }

    def step(self, parameters, projected, state, observe):
        a = torch.baddbmm(projected, state["h"], parameters["W_hh"])
        return {"h": observe("h", self.target(a, state["h"]))}

    def target(self, a, h):
        raise NotImplementedError


class Elementwise(Own):
    """Most operations on single numbers."""

    def target(self, a, h):
        mixed = torch.where(a > 0.1, a.abs().sqrt(), (a.square() + 1).log()) + a.exp().log1p() - (a / 4).expm1()
        mixed = mixed + torch.maximum(a, h) - torch.minimum(a, 2 * h) + a.clamp(-0.5, 0.5) + (a * a + 1).rsqrt()
        mixed = mixed + a.sin() * h.cos() + torch.nn.functional.softplus(a) + torch.nn.functional.gelu(h) + a.pow(3) / 9
        return torch.lerp(h, (mixed / 4).sigmoid(), 0.7) + ((a > 0) & (h < 0.5)).to(a.dtype) * a.sign() * h


class Reshaping(Own):
    """Halves, rows and columns: views, joins, sums within a sequence, products of matrices of a sequence."""

    def target(self, a, h):
        first, second = a[..., : self.width // 2], a[..., self.width // 2 :]
        turned = torch.cat([-second, first.tanh()], dim=-1)
        table = a.unflatten(-1, (2, -1))
        table = (table - table.mean(-1, keepdim=True)).softmax(-1) * table.amax(1).unsqueeze(-2).mean()[..., None]
        return turned.sigmoid() * h + table.flatten(-2)


class Rows(Own):
    """As `Reshaping`, without mixing sequences."""

    def target(self, a, h):
        first, second = a[..., : self.width // 2], a[..., self.width // 2 :]
        turned = torch.cat([-second, first.tanh()], dim=-1)
        table = a.unflatten(-1, (2, -1))
        table = (table - table.mean(-1, keepdim=True)).softmax(-1) * torch.stack([first, second], dim=-2).amax(
            -1, keepdim=True
        )
        gram = table @ table.mT @ table
        normed = torch.nn.functional.layer_norm(turned, (self.width,))
        return normed.sigmoid() * h + gram.flatten(-2) + 0.1 * torch.nn.functional.elu(turned)


class Deciding(Own):
    def target(self, a, h):
        return a.tanh() if a.sum() > 0 else a


class Random(Own):
    def target(self, a, h):
        return torch.nn.functional.dropout(a, 0.5).tanh()


class Sorting(Own):
    def target(self, a, h):
        return a.sort(-1).values


class Double(Own):
    def target(self, a, h):
        return a.double().tanh().float()


class Averaging(Own):
    def target(self, a, h):
        return (a - h.mean(1, keepdim=True)).tanh()


class Counting(Own):
    def target(self, a, h):
        return a.tanh() / a.shape[1] ** 0.5


class Numeric(Own):
    def target(self, a, h):
        return torch.from_numpy(a.detach().numpy())


# Against the reference engine. (Whole networks and all judgements: test_agreement.py.)


@pytest.mark.parametrize("cell", [Elementwise(width=6), Rows(width=6), LSTM(width=5), MLSTM(width=3)], ids=repr)
def test_operations(cell):
    cases = Case(cell, JUDGED[1], 8, 5, 2), Case(cell, JUDGED[0], 5, 34, 1)
    for case in cases:
        wrong = against_reference(TracedEngine(), case, CPU)
        # The stabiliser of an mLSTM has no gradient in exact arithmetic, and rounding here.
        assert not wrong or (isinstance(cell, MLSTM) and wrong == "other norms are exactly zero")


@pytest.mark.slow
@pytest.mark.parametrize("cell", TRACED, ids=repr)
def test_every_cell_in_full(cell, monkeypatch):
    """As it is compiled for training.

    In two cases (Jordan, whose gradient cancels, and ExpRNN's W_hh) the rounding of 32 bits leaves the limits by less
    than twice, on the scaled engine as well.
    """
    monkeypatch.undo()
    for judged in JUDGED:
        for width in (17, 50):
            case = Case(cell.replace(width=width), judged, 60, 20, 3)
            found = against_reference(TracedEngine(), case, CPU)
            assert not found or against_reference(ScaledEngine(), case, CPU), found


@pytest.mark.slow
def test_the_gradients_of_an_slstm():
    """All but the norm of its stabiliser, which has no gradient in exact arithmetic."""
    case = Case(SLSTM(width=9), JUDGED[1], 20, 5, 2)
    expected, expected_norms = passed(ReferenceEngine(), case, CPU, torch.float64)
    found, norms = passed(TracedEngine(), case, CPU, torch.float32)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=0, atol=1e-5 * value.abs().max().item())
    for one, other in zip(norms[1:], expected_norms[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=5e-5)


@pytest.mark.slow
def test_ten_thousand_steps_equal_their_closed_form():
    assert not beyond_floats(TracedEngine(), CPU, 10_000)


def test_weight_gradients_come_from_steps_whose_gradient_a_float_cannot_hold():
    """h_T = Σ 1.5^(T−t) x_t w: dh_T/dx_1 leaves float32, dh_T/dw with x_1 = 10^−25 does not."""
    time, cell = 300, Elman(width=4, activation="linear")
    parameters = {"W_xh": torch.ones(1, 1, 4), "W_hh": 1.5 * torch.eye(4)[None], "b_h": torch.zeros(1, 4)}
    own = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    inputs = torch.zeros(time, 1, 40, 1)
    inputs[0] = 1e-25
    inputs.requires_grad_()
    trajectory = TracedEngine().unroll(cell, own, inputs, widths={"h": 4}, observed=True, steps=(time - 1,))
    trajectory.outputs.sum().backward()
    exact = 40 * 1e-25 * 1.5**299
    torch.testing.assert_close(own["W_xh"].grad.double(), torch.full((1, 1, 4), exact).double(), rtol=1e-4, atol=0)
    assert inputs.grad[0].isinf().all()
    torch.testing.assert_close(inputs.grad[-3:, 0, :, 0], torch.tensor([[9.0], [6.0], [4.0]]).expand(-1, 40))


def test_bits_depend_neither_on_threads_nor_on_other_replicas():
    cell = JANET(width=13)
    parameters = {name: 0.3 * noise(4, *one.shape) for name, one in cell.parameters(3, 2).items()}
    inputs, judge = noise(20, 4, 35, 3), noise(20, 4, 35, 13, seed=1)

    def bits(replicas):
        own = {name: value[replicas].clone().requires_grad_() for name, value in parameters.items()}
        one = TracedEngine().unroll(cell, own, inputs[:, replicas], widths={"h": 13}, observed=True)
        (one.outputs * judge[:, replicas]).sum().backward()
        norms = one.log_norms("h")
        return [one.outputs.transpose(0, 1), norms.transpose(0, 1), *(value.grad for value in own.values())]

    threads, together = torch.get_num_threads(), bits(slice(0, 4))
    try:
        torch.set_num_threads(3 - min(threads, 2))
        again = bits(slice(0, 4))
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, together, again))
    for replica in range(4):
        for alone, among in zip(bits(slice(replica, replica + 1)), together, strict=True):
            assert torch.equal(alone[0], among[replica])


def test_without_gradients_the_outputs_have_the_same_bits_and_little_is_kept():
    cell, inputs = Leaky(width=7), noise(30, 2, 5, 3)
    parameters = {name: noise(2, *one.shape) for name, one in cell.parameters(3, 2).items()}
    differentiable = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    expected = TracedEngine().unroll(cell, differentiable, inputs, widths={"h": 7}, observed=True)
    with torch.no_grad():
        found = TracedEngine().unroll(cell, parameters, inputs, widths={"h": 7}, observed=False)
    assert torch.equal(found.outputs, expected.outputs)
    # States and tanh of each step, padded to 16 numbers each, and the inputs.
    kept = expected.outputs.grad_fn.one
    assert kept.kept.arrays[0].shape == (2, 31, 5, 32)
    with pytest.raises(RuntimeError, match="only after the backward pass"):
        expected.log_norms("h")


# Elementary functions.


def test_elementary_functions():
    names = {
        "exponential": np.exp, "exponential_less_one": np.expm1, "logarithm": np.log, "logarithm_of_one_plus": np.log1p,
        "logistic": lambda x: 1 / (1 + np.exp(-x)), "hyperbolic_tangent": np.tanh,
    }  # fmt: skip
    text = PRELUDE + "".join(
        f"void all_{name}(long n, const float *x, float *y) {{ for (long i = 0; i < n; i++) y[i] = {name}(x[i]); }}\n"
        for name in names
    )
    made = library(text, "elementary functions")
    spread = np.concatenate([np.linspace(-20, 20, 4001), 10.0 ** np.arange(-30, 31), -(10.0 ** np.arange(-30, 2))])
    edges = [0.0, -0.5, 88.0, 88.7, 89.0, -87.0, -104.0, np.inf, -np.inf, np.nan]
    x = np.concatenate([spread, edges]).astype(np.float32)
    for name, exact in names.items():
        found = np.empty_like(x)
        getattr(made, f"all_{name}")(
            ctypes.c_long(len(x)), x.ctypes.data_as(ctypes.c_void_p), found.ctypes.data_as(ctypes.c_void_p)
        )
        with np.errstate(all="ignore"):
            truth = exact(x.astype(np.float64))
        truth[abs(truth) > np.finfo(np.float32).max] = np.copysign(np.inf, truth[abs(truth) > 3.5e38])
        small = abs(truth) < 2e-38
        np.testing.assert_allclose(found[~small], truth[~small], rtol=6e-7, atol=1.5e-7 if name != "exponential" else 0)
        assert (abs(found[small]) < 1e-37).all(), name


# Why there is no program.

REASONS = {
    Deciding: "its step decides by the values of its tensors",
    Random: "its step draws random numbers",
    Sorting: "its step uses aten.sort.default, for which there is no code",
    Double: "its step computes in float64",
    Averaging: "its step mixes the sequences of a batch",
    Reshaping: "its step mixes the sequences of a batch",
    Counting: "its step computes with the size of the batch",
    Numeric: "its step cannot be traced",
}


@pytest.mark.parametrize("kind", REASONS, ids=lambda kind: kind.__name__)
def test_a_step_without_a_program_is_trained_by_the_reference_engine_and_one_line_says_why(kind, caplog):
    cell = kind(width=6)
    assert why_not(cell).startswith(REASONS[kind])
    assert "\n" not in why_not(cell)
    choice.say_reference_trains.cache_clear()
    with caplog.at_level(logging.WARNING, "rnnstudy"):
        assert choose(cell, frozenset(), CPU, "traced").name == "reference"
        assert choose(cell, frozenset(), CPU, "auto", LONG).name == "reference"
    said = [one.getMessage() for one in caplog.records if one.name == "rnnstudy"]
    assert said == [f"the reference engine trains {kind.__name__}, several times slower: {why_not(cell)}"]
    own = {name: noise(1, *one.shape) for name, one in cell.parameters(3, 2).items()}
    with pytest.raises(NoProgramError, match=REASONS[kind].split("(")[0]):
        TracedEngine().unroll(cell, own, noise(4, 1, 2, 3), widths={"h": 6}, observed=False)


def test_without_a_compiler(forgetful, monkeypatch, caplog):
    monkeypatch.setattr(step_library, "COMPILERS", ())
    monkeypatch.delenv("CC", raising=False)
    with caplog.at_level(logging.WARNING, "rnnstudy"):
        assert choose(Leaky(), frozenset(), CPU, "auto", LONG).name == "reference"
        assert choose(MinGRU(), frozenset(), CPU, "auto", LONG).name == "scan"
    assert caplog.messages == [
        "the reference engine trains Leaky, several times slower: there is no C compiler (cc, gcc or clang)"
    ]
    with pytest.raises(RequestError, match="the traced engine needs a C compiler"):
        choose(Leaky(), frozenset(), CPU, "traced")


RUN = Run(
    task=TemporalOrder(length=10),
    cell=Leaky(width=5),
    training=Training(steps=20, batch=8, learning_rate=1e-2, validation_sequences=8, test_sequences=8, check_every=10),
)


def trained(engine, run=RUN):
    [last] = [one for one in train(run, device="cpu", engine=engine) if one.outcome]
    return last


def test_a_compiler_that_fails(forgetful, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(step_library, "_folder", lambda: tmp_path)
    monkeypatch.setenv("CC", shutil.which("false") or "false")
    with caplog.at_level(logging.WARNING, "rnnstudy"):
        assert trained("traced").outcome.engine == "reference"
    assert caplog.messages[-1] == (
        "the reference engine trains Leaky, several times slower: the C compiler failed: code 1"
    )
    monkeypatch.setattr(choice, "LEAST_SECONDS_TRACED", 1e-9)
    assert trained("auto", RUN.replace(cell=MinGRU(width=5))).outcome.engine == "scan"
    assert not any("trains MinGRU" in one for one in caplog.messages)
    # Nothing is left behind.
    assert not list(tmp_path.iterdir())
    with pytest.raises(CompilingError, match="the C compiler failed"):
        library("int x;", "a test")


def test_a_program_that_computes_something_else_is_found_out(forgetful, monkeypatch, caplog):
    monkeypatch.setitem(step_rows.POINTWISE, "tanh", "0.9f * hyperbolic_tangent({0})")
    with caplog.at_level(logging.WARNING, "rnnstudy"):
        assert trained("traced").outcome.engine == "reference"
    assert "the program made of its step computes other numbers (outputs differs by" in caplog.messages[-1]


# Which engine trains, and what it trains.


def test_the_choice():
    for cell in (Leaky(), JANET(), MLSTM(width=4)):
        assert choose(cell, frozenset(), CPU, "traced").name == "traced"
        assert choose(cell, frozenset(), CPU, "auto", LONG).name == "traced"
        # Compiling would take longer than it saves.
        assert choose(cell, frozenset(), CPU).name == "reference"
        assert choose(cell, frozenset({"cuts"}), CPU, "auto", LONG).name == "reference"
    assert choose(GRU(), frozenset(), CPU, "auto", LONG).name == "compiled"
    for cell in DIAGONAL:
        assert choose(cell, frozenset(), CPU, "auto", LONG).name == "traced"
        assert choose(cell, frozenset(), CPU, "auto", LONG._replace(numbers=2 * MOST_NUMBERS_TRACED)).name == "scan"
        assert choose(cell, frozenset(), CPU, "auto").name == "scan"
    # Nothing else runs it fast.
    assert choose(JANET(), frozenset(), CPU, "auto", LONG._replace(numbers=2 * MOST_NUMBERS_TRACED)).name == "traced"
    with pytest.raises(RequestError, match="the traced engine trains on the CPU, not on cuda"):
        choose(Leaky(), frozenset(), torch.device("cuda"), "traced")


def test_a_load_has_the_states_of_every_recurrence():
    run = Run(
        task=TemporalOrder(length=30), cell=LSTM(width=5), training=Training(batch=4), layers=3, bidirectional=True
    )
    assert load_of(run).numbers == 30 * 4 * (2 * 5) * (3 * 2)
    assert load_of(run.replace(layers=1, bidirectional=False)).numbers == 30 * 4 * (2 * 5)


def test_a_run_trains_as_on_the_reference_engine():
    found, expected = trained("traced"), trained("reference")
    assert (found.outcome.engine, found.outcome.status) == ("traced", "finished")
    for name in ("learning/loss", "through_time/h"):
        np.testing.assert_allclose(found.series[name].values, expected.series[name].values, rtol=0, atol=1e-4)


# The program on disk.

PROGRAM = """
import sys, logging, torch
from rnnstudy.engines.step_compiler import library as step_library
from pathlib import Path
step_library._folder = lambda: Path(sys.argv[1])
step_library.OPTIONS = ("-O1", *step_library.OPTIONS[1:])
from benchmarks.agreement import Leaky
from rnnstudy.engines.traced import disagreement
print(disagreement(Leaky(width=5), 3, 2))
"""


@pytest.mark.slow
def test_of_two_processes_one_compiles_and_a_third_finds_the_program(tmp_path):
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    options = {"cwd": root, "env": {**os.environ, "PYTHONPATH": str(root)}, "text": True, "stderr": subprocess.PIPE}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, **options) for _ in range(2)]
    said = [one.communicate(timeout=300) for one in both]
    assert [out.strip() for out, _ in said] == ["", ""]
    assert sum(error.count("compiling the kernels of Leaky") for _, error in said) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".so"]
    last = subprocess.run(command, stdout=subprocess.PIPE, check=True, **options)
    assert (last.stdout.strip(), last.stderr) == ("", "")


def test_a_lock_that_was_left_behind_does_not_stop_anybody(forgetful, monkeypatch, tmp_path):
    monkeypatch.setattr(step_library, "_folder", lambda: tmp_path)
    monkeypatch.setattr(step_library, "LIMIT", 0.2)
    monkeypatch.setattr(step_library, "_failure", lambda command: Path(command[-3]).write_bytes(b"") and "")
    path = step_library.library_path("int x;")
    path.with_suffix(".lock").touch()
    with pytest.raises(CompilingError, match="cannot be loaded"):
        library("int x;", "a test")
    assert path.exists()


def test_a_folder_that_others_may_write_is_not_used(forgetful, monkeypatch, tmp_path):
    monkeypatch.setattr(step_library, "__file__", str(tmp_path / "package" / "step_library.py"))
    monkeypatch.setattr(step_library.tempfile, "gettempdir", lambda: str(tmp_path))
    own = step_library._folder()
    assert own == tmp_path / "package" / "__pycache__" / "steps"
    own.chmod(0o777)
    step_library._folder.cache_clear()
    assert step_library._folder().parent == tmp_path
