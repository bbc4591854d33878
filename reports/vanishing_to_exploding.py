# ---
# jupyter:
#   rnnstudy:
#     order: 20
# ---

# %% [markdown]
# # From vanishing to exploding, with one parameter
#
# A gradient that goes back one step is multiplied by the recurrent matrix and by the slopes of the units. Many steps
# raise this factor to a power, so the gradient must vanish or explode, except in a narrow range between the two. Here
# the factor is set directly: the recurrent matrices of untrained networks are g times a random orthogonal matrix, and g
# goes from 0.5 to 3. The four recurrent blocks of the LSTM are scaled equally; its forget bias is 1.

# %%
import pandas as pd

from rnnstudy import figures
from rnnstudy.report import NOT_RUN, Notebook

here = Notebook("vanishing_to_exploding")
study = here.study()
here.say(study.summary)

# %%
if "cell.activation" not in study.results.runs:
    # No RNN has been run; an LSTM has no field `activation`.
    study.results.runs["cell.activation"] = None
picture = figures.vanishing_to_exploding(study.results)
rates = picture.data.groupby(["kind", "gain"])["rate"].first()
length = int(study.results.runs["length"].max())


def of(kind: str) -> pd.Series:
    """The rate by gain."""
    return rates[kind].dropna().sort_index() if kind in rates.index.get_level_values(0) else pd.Series(dtype=float)


def turns(kind: str) -> str:
    """Between which gains the rate changes its sign."""
    of_kind = of(kind)
    if of_kind.empty:
        return f"nowhere ({NOT_RUN})"
    above = of_kind.index[of_kind > 0]
    if not len(above) or above[0] == of_kind.index[0]:
        return "outside the gains drawn here"
    below = of_kind.index[of_kind.index < above[0]][-1]
    return f"between g = {below:g} and g = {above[0]:g}"


def span(kind: str) -> str:
    """The decades over all lags, at the lowest and at the highest gain."""
    of_kind = of(kind) * (length - 1)
    if of_kind.empty:
        return NOT_RUN
    return f"{of_kind.iloc[0]:.0f} to {of_kind.iloc[-1]:.0f}".replace("-", "−")


def reach(kind: str) -> str:
    """How many decades lie between the lowest and the highest of its factors."""
    of_kind = of(kind) * (length - 1)
    return f"{of_kind.max() - of_kind.min():.1f}" if len(of_kind) else NOT_RUN


here.show(
    picture,
    "vanishing_to_exploding",
    title=f"The gradient of a tanh RNN turns from vanishing to exploding {turns('Elman tanh')}",
    takeaway=f"""
    Blue is a gradient that vanishes on its way back, red one that explodes, white one that keeps its size. Read each
    row from left to right: the faster the colour deepens, the faster the gradient changes with the lag. The turning
    point of the tanh RNN is {turns("Elman tanh")}: the slopes of its units are below 1, and the gain must compensate
    for them (at g ≤ 1, up to the dashed line, vanishing is certain). The relu RNN, in which inactive units pass nothing
    back, turns {turns("Elman relu")}; the LSTM turns {turns("LSTM")}. An LSTM has a second path, along the cell state,
    where the forget gate sets the rate; but the gradient that returns to the cell through h also passes the recurrent
    matrices, so the gain acts there as well. On the right, the slopes: the steeper a line crosses zero, the more
    precisely the gain must be set for a gradient to keep its size.""",
)
names = {"Elman tanh": "RNN, tanh", "Elman relu": "RNN, relu", "LSTM": "LSTM"}
here.table(
    pd.DataFrame(
        {
            "cell": label,
            f"decades over {length} steps, lowest to highest gain": span(kind),
            "decades between the lowest and the highest factor": reach(kind),
        }
        for kind, label in names.items()
    )
)
