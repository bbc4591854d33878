"""What the pages say about speed is what was measured; and a small benchmark runs."""

import math
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import end_to_end, jax_scan, limits, scan_peers, store_size, symbols, tables, training_step
from benchmarks.outcomes import agree
from benchmarks.results_file import read_results
from rnnstudy.cells import GRU, LRU, LSTM, Elman, MinGRU
from rnnstudy.cells.initialisation import PyTorchDefault
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.run import Training
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("page", "text"), [("docs/speed.md", tables.essential), ("benchmarks/README.md", tables.whole)]
)
def test_the_tables_are_those_of_the_results(page, text):
    assert tables.on_page(ROOT / page) == text()


def test_results_name_what_they_compare():
    found = read_results("training_step")
    assert found is not None
    places = [tables.place(row) for row in found["results"]]
    assert len(places) == len(set(places))
    for row in found["results"]:
        assert {"torch_nn", "loop_with_retain_grad"} <= set(row["times_faster"])
        assert all(one["lowest"] <= one["median"] <= one["highest"] for one in row["times_faster"].values())


@pytest.mark.slow
@pytest.mark.parametrize("cell", [Elman(width=7), LSTM(width=7), GRU(width=7)], ids=repr)
def test_a_small_comparison(cell, monkeypatch):
    monkeypatch.setattr(training_step, "ROUNDS", 2)
    threads = torch.get_num_threads()
    found = training_step.compare(cell, 10, 3, 2)
    assert torch.get_num_threads() == threads
    assert {"torch_nn", "loop_with_retain_grad", "reference"} <= set(found["times_faster"])


@pytest.mark.slow
@pytest.mark.skipif(not jax_scan.there(), reason="jax is not installed")
def test_the_jax_peer_computes_every_norm():
    for cell in (Elman(width=7), LSTM(width=7), GRU(width=7)):
        _, norms = jax_scan.jax_scan(cell, 10, 3, 2)()
        assert len(norms) == len(cell.states)
        assert all(one.shape == (2, 10, 3) and np.isfinite(np.asarray(one)).all() for one in norms)


@pytest.mark.parametrize("cell", [MinGRU(width=7), LRU(width=7)], ids=repr)
def test_the_parallel_scans_have_the_gradients_of_the_engine(cell):
    # 13 steps: the last pass of the doubling reaches beyond the first step.
    given = scan_peers.drawn(cell, 13, 3, 2)
    own, *others = (step() for step in scan_peers.sides(cell, given).values())
    assert others
    for gradients in others:
        assert gradients.keys() == own.keys()
        for name, expected in own.items():
            # JAX has the angles of the LRU in float32.
            found = torch.tensor(gradients[name].tolist())
            torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.slow
def test_symbols_and_one_hot_vectors_learn_the_same(monkeypatch):
    monkeypatch.setattr(symbols, "CELLS", (LSTM(width=4),))
    training = Training(steps=3, batch=4, check_every=3, validation_sequences=5, test_sequences=5)
    [found] = symbols.measure(training, rounds=1)
    assert found["batch_bytes"] == {"symbols": 4 * 40 * 4, "dense": 4 * 40 * 4 * found["features"]}
    assert found["times_faster"]["median"] > 0


@pytest.mark.slow
def test_a_small_agreement():
    training = Training(steps=20, batch=4, check_every=10, validation_sequences=20, test_sequences=20)
    found = agree(Elman(width=5), length=10, seeds=3, training=training)
    assert found["mcnemar_p"] == 1.0
    assert found["solved"]["reference"] == found["solved"]["compiled"]


def test_the_end_to_end_runs_are_those_of_the_quickstart():
    runs = end_to_end.quickstart()
    assert len({run.key for run in runs}) == len(runs) == end_to_end.RUNS
    published = load_experiment(end_to_end.QUICKSTART).runs(Scale.DESK)
    assert {run.key for run in published} <= {run.key for run in runs}
    assert {type(run.cell) for run in runs[: end_to_end.TO_WARM_UP]} == {Elman, LSTM}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload``")  # MLflow's own way of asking sqlalchemy
def test_the_sweep_and_the_separate_processes_both_end(tmp_path):
    assert end_to_end.as_a_sweep(1, tmp_path / "sweep") > 0
    (tmp_path / "separate").mkdir()
    assert end_to_end.as_separate_processes(1, tmp_path / "separate") > 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'separate' / 'mlflow.db'}")
    [run] = client.search_runs([client.get_experiment_by_name("separate processes").experiment_id])
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "loss")) >= 20
    assert 0 <= run.data.metrics["test_error"] < 0.8


@pytest.mark.slow
def test_commands_begin_as_soon_on_a_store_of_ten_thousand_runs(monkeypatch):
    """`list` took 18 s, `sweep` 14 s."""
    monkeypatch.setattr(store_size, "ROUNDS", 2)
    for row in store_size.measure():
        assert row["runs"] == store_size.RUNS == 10_000
        assert row["seconds"]["full"] < row["seconds"]["empty"] + row["limit"], row


@pytest.mark.parametrize("cell", [Elman(width=7), LSTM(width=7), GRU(width=7)], ids=repr)
def test_the_operations_of_the_kernels_are_those_that_torch_counts(cell):
    """Of the reference engine, which needs no gradient of the state before the first step."""
    length, batch = 9, 3
    drawn = PyTorchDefault().draw(cell.parameters(limits.FEATURES, 4), cell.width, torch.Generator().manual_seed(0))
    parameters = {name: value.unsqueeze(0).requires_grad_() for name, value in drawn.items()}
    inputs = torch.randn(length, 1, batch, limits.FEATURES)
    widths = {state: cell.width for state in cell.states}
    with FlopCounterMode(display=False) as counter:
        found = ReferenceEngine().unroll(cell, parameters, inputs, widths=widths, steps=[length - 1], observed=False)
        found.outputs.sum().backward()
    before_the_first = 2 * batch * cell.width * limits.BLOCKS[type(cell)] * cell.width
    assert limits.counted(cell, batch, length)["operations"] - before_the_first == counter.get_total_flops()


def test_elementary_rates_are_numbers():
    assert 0 < limits.functions_a_second() < math.inf
    assert 0 < limits.bytes_a_second(4096) < math.inf
