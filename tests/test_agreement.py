"""One suite for every engine: against the reference in float64, on the CPU, in Triton's interpreter, and on a GPU.

The cases are those of benchmarks/agreement.py, which the GPU check runs too.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.agreement import agreement
from rnnstudy.engines.compiled import CompiledEngine
from rnnstudy.engines.cuda_graph import GraphEngine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.engines.scan import ScanEngine
from rnnstudy.engines.step_compiler import library as step_library
from rnnstudy.engines.traced import TracedEngine

ROOT = Path(__file__).parent.parent
MOST_SHARED = 232_448
"""Bytes of shared memory that a block of an sm_90 GPU can have."""

MOST_REGISTERS = 200
"""For a thread: below the 255 at which registers spill, so that a compiler has room."""

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def faults(wrong):
    return {name: what for name, what in wrong.items() if what}


def output_of(*command, **environment):
    """The output of a separate process: Triton decides on import whether it interprets or compiles."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-m", *command], env=variables, cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "engine",
    [ReferenceEngine(), ScaledEngine(), CompiledEngine(), ScanEngine(), TracedEngine(), GraphEngine()],
    ids=lambda engine: engine.name,
)
def test_on_the_cpu(engine, monkeypatch):
    # Most of a compiler's time goes into optimisation. (With it: test_traced.py.)
    monkeypatch.setattr(step_library, "OPTIONS", ("-O1", *step_library.OPTIONS[1:]))
    wrong = agreement(engine, torch.device("cpu"), small=True)
    # The range of plain numbers ends, which is why the other engines keep an exponent.
    ends = wrong.pop("beyond the range of floats")
    assert bool(ends) == (engine.name == "reference")
    assert not faults(wrong)


@needs_triton
def test_triton_kernels_in_the_interpreter():
    assert not faults(output_of("benchmarks.agreement", "triton", "cpu", "--small", TRITON_INTERPRET="1"))


@needs_cuda
@pytest.mark.parametrize("engine", ["graph", pytest.param("triton", marks=needs_triton)])
def test_on_the_device(engine):
    assert not faults(output_of("benchmarks.agreement", engine, "cuda", TRITON_INTERPRET="0"))


@needs_triton
def test_triton_kernels_fit_an_sm_90_gpu(tmp_path):
    kernels = output_of("benchmarks.sm90", TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))["kernels"]
    assert set(kernels) == {
        f"{cell} {way}" for cell in ("Elman 64", "Elman 128", "LSTM 64") for way in ("forward", "backward")
    }
    for name, one in kernels.items():
        assert one["stack"] == 0, name
        assert one["shared"] <= MOST_SHARED, name
        assert one["registers"] <= MOST_REGISTERS, name
        # 16 rows at a time, each instruction 8 columns by 8 terms; three of them where plain TF32 would be content with
        # one, and none where factors are taken as float32.
        cell, width, _ = name.split()
        products = (int(width) // 8) ** 2 * {"Elman": 1, "LSTM": 4}[cell]
        assert one["matrix"] * one["warps"] == 3 * products, name
