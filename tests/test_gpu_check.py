"""The check for GPU machines runs completely, here at tiny sizes, without MLflow, Optuna or Numba."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_check

ROOT = Path(__file__).parent.parent

PARTS = """
import sys
from pathlib import Path
for name in ("mlflow", "optuna", "sqlalchemy", "numba", "jax", "beartype", "pytest"):
    sys.modules[name] = None  # as if it were not installed
from benchmarks import gpu_check
for part in ("steps", "variants", "jax_peer"):
    gpu_check.PARTS[part](gpu_check.Results(Path(sys.argv[1]) / f"{part}.json"), True)
"""


def test_its_parts_need_only_torch_and_write_results_as_they_run(tmp_path):
    subprocess.run([sys.executable, "-c", PARTS, tmp_path], cwd=ROOT, check=True, timeout=300)
    steps = json.loads((tmp_path / "steps.json").read_text())
    assert set(steps) == {f"{cell} K={replicas} B=20 H=4 T=10" for cell in ("Elman", "LSTM") for replicas in (1, 2)}
    for found in steps.values():
        assert set(found) == {"graph", "reference", "cudnn one after another"}
        assert all(one["lowest"] <= one["median"] <= one["highest"] for one in found.values())
    assert "need CUDA" in json.loads((tmp_path / "variants.json").read_text())["triton"]
    assert "not installed" in json.loads((tmp_path / "jax_peer.json").read_text())["jax"]


def test_a_part_that_takes_too_long_or_fails_does_not_affect_the_others(tmp_path):
    assert gpu_check.run_part("variants", 0.01, tmp_path, cpu=True) == "stopped at its limit of 0.01 s"
    (tmp_path / "variants.json").mkdir()
    assert gpu_check.run_part("variants", 100, tmp_path, cpu=True) == "exit code 1"
    assert "IsADirectoryError" in (tmp_path / "log.txt").read_text()


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check", str(tmp_path)])
    with pytest.raises(SystemExit, match="there is no CUDA device; --cpu shows that the check itself runs"):
        gpu_check.main()


def test_all_limits_together_leave_it_within_ten_minutes():
    assert sum(gpu_check.LIMITS.values()) < 600
    assert set(gpu_check.LIMITS) == set(gpu_check.PARTS)


@pytest.mark.slow
def test_the_whole_check(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", tmp_path, "--cpu"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + (tmp_path / "log.txt").read_text()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {part: summary[part]["verdict"] for part in gpu_check.LIMITS} == dict.fromkeys(gpu_check.LIMITS, "done")
    assert json.loads((tmp_path / "study.json").read_text())["smoke"]["runs"] == {"finished, trained by graph": 16}
    assert (tmp_path / "study.tar.gz").stat().st_size > 0
