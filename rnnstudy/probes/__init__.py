"""Probes: what is measured, one file each.

What comes in: a `Moment` of training. What goes out: `Reading`s, with the batch reduced. Probes never change training.
Begin with `probe.py` and `reading.py`, then `gradient_through_time.py`. `schedule.py` says when a probe is read.
A new probe is one new file.
"""

from rnnstudy.spec import export_specifications

__getattr__ = export_specifications(globals())
