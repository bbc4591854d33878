# ---
# jupyter:
#   rnnstudy:
#     order: 70
#     experiments: [spectra]
# ---

# %% [markdown]
# # Spectra: in how many directions a network remembers
#
# The norm of a gradient is one number for each lag. It comes from a matrix, the product of Jacobians
# ∂s_τ/∂s_t = J_τ ⋯ J_{t+1}: the effect of a small change of the state at step t on the state at the end. Its singular
# values show how much of the change remains in each direction. For an LSTM the state is c and h *together*. The figure
# also shows its two paths, each with the other state held fixed: the cell path, a product of forget gates, and the
# hidden path, which goes through W_hh as in a vanilla RNN. (Published spectra of LSTMs often hold c fixed, and so leave
# out the part that distinguishes an LSTM from a vanilla RNN.)
#
# Both networks have orthogonal recurrent matrices at the start; the LSTM's forget biases are spread by chrono
# initialisation, which is told T: its cell path before training is given, not learned. The task is temporal order.

# %%
from rnnstudy import figures
from rnnstudy.report import NOT_RUN, Notebook, power_of_ten, value_at

here = Notebook("spectra")
study = here.study()
results = study.results
runs = results.runs
here.say(study.summary)
ended = runs.assign(solved=figures.true(runs["solved"])).groupby(["cell", "length"])
here.table(ended.agg(runs=("solved", "size"), solved=("solved", "sum"), median_error=("error", "median")).reset_index())

# %% [markdown]
# ## 1. Singular values by lag

# %%
length = int(runs["length"].max())
picture = figures.singular_values_by_lag(results, length=length)
data = picture.data


def left(stage: str, cell: str, path: str, which: str = "largest") -> str:
    """The singular value at the longest lag at which it is drawn, as text."""
    line = data[(data["stage"] == stage) & (data["cell"] == cell) & (data["path"] == path)]
    line = line[line["singular_value"] == which]
    if line.empty:
        return NOT_RUN if data[data["cell"] == cell].empty else "nothing"
    last = line.iloc[line["lag"].argmax()]
    return f"{power_of_ten(last['median'])} at lag {int(last['lag'])}"


lasts = data[(data["stage"] == "initial") & (data["singular_value"] == "largest")].sort_values("lag")
lasts = lasts.groupby(["cell", "path"])[["lag", "median"]].last()
here.show(
    picture,
    "singular_values_by_lag",
    title=f"Untrained, the most lasting direction changes over {value_at(lasts['lag'], ('Elman', 'h'), '{:.0f}')} "
    f"steps by {value_at(lasts['median'], ('Elman', 'h'))} decades in the RNN, by "
    f"{value_at(lasts['median'], ('LSTM', 'joint'))} in the LSTM",
    takeaway=f"""
    Before training (above) the largest singular value of the RNN has fallen to {
        left("initial", "Elman", "h")
    }; that of the LSTM's joint state is {left("initial", "LSTM", "joint")}, and that of the cell path alone, a
    product of forget gates, {left("initial", "LSTM", "c")}. The hidden path alone, which is all that
    many published spectra show, has {left("initial", "LSTM", "h of several")}. The spread of the lines of a panel
    shows in how many directions something remains: a quarter of the cell path's directions are above {
        left("initial", "LSTM", "c", "upper quartile")
    }, the smallest is {left("initial", "LSTM", "c", "smallest")}. After training (below): RNN {
        left("final", "Elman", "h")
    }, joint {left("final", "LSTM", "joint")}, cell path {left("final", "LSTM", "c")}, hidden path
    {left("final", "LSTM", "h of several")}. Where the joint state is far above both paths, neither path alone is the
    memory: what remains then moves back and forth between c and h. A value above 0 decades is a disturbance that grew.
    """,
)

# %% [markdown]
# ## 2. Lyapunov exponents

# %%
picture = figures.lyapunov_spectrum(results, length=length)
exponents = picture.data.set_index(["stage", "cell", "index"])["median"].sort_index()


def slow(stage: str, cell: str) -> str:
    """Largest exponent, and the share of directions that take more than 20 steps to fall to 1/e."""
    if (stage, cell) not in exponents.index.droplevel("index"):
        return NOT_RUN
    of_cell = exponents.loc[stage, cell]
    return f"{of_cell.max():.3f} ({100 * (of_cell > -0.05).mean():.0f} % of the directions above −0.05)"


def lasting(cell: str) -> str:
    """The share of directions that take more than 20 steps to fall to 1/e after training."""
    known = ("final", cell) in exponents.index.droplevel("index")
    return f"{100 * (exponents.loc['final', cell] > -0.05).mean():.0f} %" if known else NOT_RUN


here.show(
    picture,
    "lyapunov_spectrum",
    title=f"After training {lasting('LSTM')} of the LSTM's directions last for 20 steps or more, {lasting('Elman')} of "
    "the RNN's",
    takeaway=f"""
    A direction with exponent 0 lasts for ever; with −0.05 it lasts for 20 steps. The largest exponent before training
    is {slow("initial", "Elman")} for the RNN and {slow("initial", "LSTM")} for the LSTM; after training
    {slow("final", "Elman")} and {slow("final", "LSTM")}. At equal width the LSTM has twice as many directions, those of
    c and of h. Look for the step between a slow and a fast part of its line, and for its position. The exponents are
    averages over a whole sequence; as the sequence is finite, they include its first steps.
    """,
)
