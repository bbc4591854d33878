"""Cells: recurrences, one file each, and the initialisation of their weights.

What comes in: parameters, one step's projected input, the previous states. What goes out: the new states.
The docstring of every cell states its equations. Begin with `cell.py` (the contract), then `elman.py` and `lstm.py`;
`initialisation.py` draws the initial weights. A new cell is one new file.
"""

from rnnstudy.spec import export_specifications

__getattr__ = export_specifications(globals())
