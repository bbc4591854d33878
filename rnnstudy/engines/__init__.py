"""Engines: how a cell runs over time, and how its gradient comes back.

What comes in: a cell, parameters, inputs. What goes out: a `Trajectory`, which holds the gradient of every state.
Begin with `engine.py` (the contract) and `reference.py` (the definition). The faster engines are tested against it:
`compiled.py`, `scan.py`, `traced.py` (with `step_compiler/`), `cuda_graph.py`, `triton.py`, and `scaled.py` (for
probes). `choice.py` picks one; the rest are helpers.
"""

from typing import Literal, get_args

EngineName = Literal[
    "auto",  # The fastest engine for the device: compiled, scan or traced on a CPU, graph on a GPU.
    "reference",  # Plain autograd over a Python loop, for any cell on any device.
    "compiled",  # Numba kernels on the CPU: Elman, LSTM and GRU in float32.
    "scan",  # Two compiled scans on the CPU: recurrences that are linear and diagonal in their state, in float32.
    "traced",  # A C program of the cell's own traced step, on the CPU: any cell whose step can be traced, in float32.
    "graph",  # All steps captured in a CUDA graph: batched products for Elman, LSTM and GRU, autograd for other cells.
    "triton",  # Triton kernels on an NVIDIA GPU: Elman and LSTM up to a certain width in float32.
]
"""What can be asked to train a run. `choice.py` maps each name but `auto` to its class."""

ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)
