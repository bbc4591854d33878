"""Training: runs in, records out. Knows neither store nor figures.

What comes in: runs; `grouping.populations` groups those that can train together.
What goes out: `records.Record`s, yielded by `loop.train` once the checkpoint that contains them is on disk.
Begin with `loop.py`, which is the whole training on one screen; `learner.py` holds the state that it changes.
"""
