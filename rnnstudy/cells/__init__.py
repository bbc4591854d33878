"""Cells: recurrences, one file each, and how their weights begin.

What comes in: parameters, one step's projected input, the previous states. What goes out: the new states.
Every cell file states its equations. Begin with `cell.py` (what a cell declares and computes), then `elman.py` and
`lstm.py`; `initialisation.py` draws the weights. A new cell is one new file.
"""

from rnnstudy.spec import export_specifications

__getattr__ = export_specifications(globals())
