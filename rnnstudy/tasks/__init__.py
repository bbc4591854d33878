"""Tasks: synthetic sequences whose answer depends on something seen long ago, one file each.

What comes in: a batch size and a random generator. What goes out: a `Batch`; the task also defines loss, measures,
success criterion and chance level. Begin with `task.py` (the contract), `classification.py`, then `temporal_order.py`.
A new task is one new file.
"""

from rnnstudy.spec import export_specifications

__getattr__ = export_specifications(globals())
