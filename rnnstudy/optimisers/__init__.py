"""Optimisers: update rules, clipping, schedules, regularisers and gradient cuts, one file each.

What comes in: the parameter gradients of a population. What goes out: clipped gradients and updates.
Begin with `optimiser.py` and `clipping.py`; `gradient_cut.py` is the base of truncation and h-detach.
"""

from rnnstudy.spec import export_specifications

__getattr__ = export_specifications(globals())
