# ---
# jupyter:
#   rnnstudy:
#     order: 10
#     experiments: [sequence_length]
# ---

# %% [markdown]
# # Why a vanilla RNN forgets, and what the LSTM changes
#
# A recurrent network learns from the past through one channel only: the gradient that travels back through time. This
# report measures its size at every time step, before and after training, in a vanilla RNN and in an LSTM of equal
# width, on sequences of several lengths.
#
# **The task** is temporal order (Pascanu, Mikolov & Bengio 2013): T symbols of noise, except for two marks, one in the
# second tenth of the sequence and one just after its middle. At the last step the network reports which marks it saw,
# and in which order. So it must remember the first mark for at least 0.8 T steps.
#
# **The figures show** log10 of ‖∂L/∂h_t‖, the *total* derivative of the last step's loss with respect to the hidden
# state at step t, by lag τ − t; the norm is taken for each sequence. For the LSTM they also show ∂L/∂c_t, at the cell
# state.

# %%
import pandas as pd

from rnnstudy import figures
from rnnstudy.report import NOT_RUN, Notebook, power_of_ten, value_at
from rnnstudy.tasks.temporal_order import TemporalOrder

here = Notebook("forgetting")
study = here.study("sequence_length")
here.say(study.summary)

# %% [markdown]
# Both cells were trained with the same learning rates. For each cell and length, the figures show the rate that did
# best in validation. The test sequences are not used for this choice.

# %%
results = study.results
best = figures.best_by_validation(results)
runs = results.runs.loc[best]
pair = runs.index[runs["cell"].isin(["Elman", "LSTM"])].tolist()
longest = int(runs["length"].max())


def median(cell: str, column: str) -> float:
    """Over the runs of a cell at the longest length."""
    return float(runs.loc[(runs["cell"] == cell) & (runs["length"] == longest), column].astype(float).median())


def times_smaller(decades: float) -> str:
    """A factor as text: −6.6 decades is 10 to the 6.6 times smaller."""
    if pd.isna(decades):
        return NOT_RUN
    return f"{power_of_ten(abs(decades))} times {'smaller' if decades < 0 else 'larger'}"


def factor(cell: str) -> str:
    """The factor of each step back before training, and the half-life in steps."""
    rate, half = median(cell, "rate_initial"), median(cell, "half_life_initial")
    if pd.isna(rate):
        return NOT_RUN
    return f"{10**rate:.3f} ({'it does not fall' if pd.isna(half) else f'it halves every {half:.0f} steps'})"


def as_text(decades: float) -> str:
    """Decades as text; `none` for NaN."""
    return "none" if pd.isna(decades) else f"{decades:.1f}".replace("-", "−")


# %% [markdown]
# ## Before training

# %%
picture = figures.gradient_by_lag(results, states=("h", "c"), bound=True, keys=pair)
here.show(
    picture,
    "gradient_by_lag_initial",
    title=f"Before training the gradient at the first of {longest} steps, relative to the last: "
    f"{as_text(median('Elman', 'log10_ratio_initial'))} decades in the RNN, "
    f"{as_text(median('LSTM', 'log10_ratio_initial'))} in the LSTM",
    takeaway=f"""
    Follow a line from left (the last step, where the loss is) to right (the distant past). A straight line on this
    logarithmic axis is exponential decay. Where the lines of all lengths coincide, the gradient depends on the lag
    alone. At T = {longest} each step back multiplies the RNN's gradient by {factor("Elman")}; at the
    first step it is {times_smaller(median("Elman", "log10_ratio_initial"))} than at the last. The RNN's recurrent
    weights are orthogonal, so the upper bound (dashed, for the median run; a single run has a bound of its own) is
    flat: it would allow the gradient to survive. The gradient shrinks because the slope of the tanh units is below 1
    wherever they are active. The biases of the LSTM's gates were spread over the length of the sequence, which is a
    hint that the RNN does not get: where its lines bend, the contribution of units that forget quickly ends, and that
    of units that forget slowly remains. At T = {longest} its gradient at the first step is
    {times_smaller(median("LSTM", "log10_ratio_initial"))} than at the last. The panel of the cell state c shows the
    path that an RNN does not have.""",
)

# %% [markdown]
# ## After training

# %%
picture = figures.gradient_of_runs(results, stage="final", states=("h", "c"), normalised=True, keys=pair)
# Of each run the gradient at the first step of the longest sequences, relative to the last.
arrives = picture.data[(picture.data["state"] == "h") & (picture.data["lag"] == longest - 1)].groupby("cell")["value"]
apart = arrives.max() - arrives.min()


def before_and_after() -> pd.DataFrame:
    """For each cell and length: decades at the first step relative to the last, before and after; how many solved."""
    rows = []
    for (cell, length), group in runs.loc[pair].groupby(["cell", "length"]):
        before, after = (float(group[f"log10_ratio_{stage}"].median()) for stage in ("initial", "final"))
        solved = f"{int(figures.true(group['solved']).sum())} of {len(group)}"
        label = figures.style(cell).label
        rows.append(
            {
                "cell": label,
                "T": length,
                "decades before training": as_text(before),
                "decades after training": as_text(after),
                "runs that solved the task": solved,
            }
        )
    return pd.DataFrame(rows)


here.show(
    picture,
    "gradient_by_lag_final_normalised",
    title=f"After training the gradient at the first of {longest} steps differs between runs by "
    f"{value_at(apart, 'Elman', '{:.0f}')} decades in the RNN, by {value_at(apart, 'LSTM')} in the LSTM",
    takeaway="""
    The same after training, each run a line: the runs fall into groups, between which a median would stand where no run
    is. Each sequence's gradient is divided by its own value at lag 0, because a network that has solved its task has a
    small gradient everywhere. A line near 0 means that the gradient reaches the distant past as strongly as the
    present. This is necessary to learn from the past, but not sufficient: compare the decades in the table (at the
    first step relative to the last, medians over runs) with how many runs solved the task.""",
)
here.table(before_and_after())

# %% [markdown]
# ## While the network learns

# %%
task = TemporalOrder(length=longest)
marks = figures.informative_stretches(task)
picture = figures.gradient_heat_map(results, marks=marks, moving=True, keys=pair)
# The median over training: the spike of a single update would tell little about how a network learned.
first = picture.data[picture.data["time"] == 1].groupby("cell")["value"].median()
last = picture.data[picture.data["time"] == longest].groupby("cell")["value"].median()
fallen = first - last
at_first = picture.data[picture.data["time"] == 1].groupby("cell")["value"]
swing = at_first.max() - at_first.min()
here.show(
    picture,
    "gradient_heat_map",
    title=f"While it learns, an RNN's gradient at the first step moves over {value_at(swing, 'Elman', '{:.0f}')} "
    f"decades, an LSTM's over {value_at(swing, 'LSTM', '{:.0f}')}",
    takeaway=f"""
    One run of each cell at T = {longest}. Each row is one moment of training, from the bottom upwards; each column is
    one time step, with the answer at the right edge. Light colours are large gradients, dark colours small ones; the
    black bars show where the marks to be remembered are. Do the light colours reach the bars? The median
    over training of log10 of the gradient at the first time step is {value_at(first, "Elman")} in the RNN and
    {value_at(first, "LSTM")} in the LSTM; relative to the last step {value_at(fallen, "Elman")} and
    {value_at(fallen, "LSTM")} decades. A horizontal stripe is a moment at which the whole profile changes: the same
    matrix is multiplied at every step, so the effect of a small change of it is raised to the power of the lag. Where
    the light colours reach the bars and the network still does not learn, what arrives is not a signal: the page on
    state and gradient measures that.""",
)
