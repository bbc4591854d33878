# ---
# jupyter:
#   rnnstudy:
#     order: 20
# ---

# %% [markdown]
# # From vanishing to exploding, by turning one knob
#
# A gradient that goes back one step is multiplied by the recurrent matrix and by the slopes of the units. Many steps
# raise this factor to a power, so it must vanish or explode, but for a narrow boundary between the two. Here the
# factor is turned by hand: the recurrent matrices of untrained networks are g times a random orthogonal matrix, and g
# goes from 0.5 to 3. The LSTM's four recurrent blocks are scaled alike; its forget bias is 1.

# %%
from rnnstudy import figures
from rnnstudy.notebook import Notebook

here = Notebook("vanishing_to_exploding")
study = here.study()
here.say(study.words)

# %%
picture = figures.vanishing_to_exploding(study.results)
rates = picture.data.groupby(["kind", "gain"])["rate"].first()
length = int(study.results.runs["length"].max())


def turns(kind: str) -> str:
    """Between which gains the rate changes its sign."""
    of_kind = rates[kind].dropna().sort_index()
    above = of_kind.index[of_kind > 0]
    if not len(above) or above[0] == of_kind.index[0]:
        return "outside the gains drawn here"
    below = of_kind.index[of_kind.index < above[0]][-1]
    return f"between g = {below:g} and g = {above[0]:g}"


def span(kind: str) -> str:
    """The factor over all lags, from the lowest to the highest gain."""
    of_kind = rates[kind].dropna().sort_index() * (length - 1)
    return f"10<sup>{of_kind.iloc[0]:.0f}</sup> to 10<sup>{of_kind.iloc[-1]:.0f}</sup>"


here.show(
    picture,
    "vanishing_to_exploding",
    title="One knob takes an RNN from vanishing to exploding; the LSTM hardly notices",
    see=f"""
    Blue is a gradient that vanishes on its way back, red one that explodes, white one that keeps its size; read each
    row from left to right. In the RNNs a fan opens: a little above or below one value of the gain, colour deepens
    quickly with the lag. The turning point of the tanh RNN lies {turns("Elman tanh")}, not at g = 1: its units'
    slopes are below 1 and must be made up for (g ≤ 1, below the dashed line, is where vanishing is certain). The relu
    RNN, in which many units are silent and pass nothing back, turns {turns("Elman relu")}. Over all {length} steps
    the factor goes from {span("Elman tanh")} in the tanh RNN and from {span("Elman relu")} in the relu RNN. In the
    LSTM the same change of the gain moves it only from {span("LSTM")}: most of its gradient does not pass through the
    recurrent matrix at all, but along the cell state, where the forget gate, not the gain, sets the rate. On the
    right, the slopes: the LSTM's line is nearly flat around zero, the RNNs' lines cross it steeply.""",
)
