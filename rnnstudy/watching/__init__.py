"""Gradients through time in anybody's own torch model: `with rnnstudy.watch(model) as flow: …`.

What comes in: any `nn.Module` with `nn.RNN`, `nn.LSTM`, `nn.GRU` or a loop over a cell inside, and its own backward
pass. What goes out: a `Flow`, from the name of each module to log10 ‖dL/dh_t‖ of its states; the model stays as it is.
Begin with `watch.py`; `hooks.py` keeps the calls, `recompute.py` goes from a call to the gradients, `recurrences.py`
has the equations, and `own.py` is for loops that people wrote themselves.
"""
