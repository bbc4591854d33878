"""Engines: how a cell runs over time, and how its gradient comes back.

What comes in: a cell, parameters, inputs. What goes out: a `Trajectory`, which holds the gradient of every state.
Begin with `engine.py` (the contract) and `reference.py` (the definition); every other engine is one file, held against
the reference; `choice.py` picks one. `numba_kernels/` and `triton_kernels/` are the inner loops.
"""
