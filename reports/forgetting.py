# ---
# jupyter:
#   rnnstudy:
#     order: 10
#     experiments: [sequence_length]
# ---

# %% [markdown]
# # Why a vanilla RNN forgets, and what the LSTM changes
#
# A recurrent network learns from the past through one channel only: the gradient that travels back through time. Here
# its size is read at every step of its way, before and after training, in a vanilla RNN and in an LSTM of equal width,
# on sequences of several lengths.
#
# **The task** is temporal order (Pascanu, Mikolov & Bengio 2013): T symbols of noise, but for two marks, one in the
# second tenth of the sequence and one just after its middle; at the last step the network says which marks it saw, in
# which order. So the first mark must be carried over at least 0.8 T steps.
#
# **What is drawn** is log10 of ‖∂L/∂h_t‖, the *total* derivative of the last step's loss with respect to the hidden
# state at step t, by lag τ − t; the norm is taken sequence by sequence. For the LSTM also ∂L/∂c_t, at its cell state.

# %%
import pandas as pd

from rnnstudy import figures
from rnnstudy.report import NOT_RUN, Notebook, power_of_ten, value_at
from rnnstudy.tasks.temporal_order import TemporalOrder

here = Notebook("forgetting")
study = here.study("sequence_length")
here.say(study.summary)

# %% [markdown]
# Both cells were given the same learning rates; drawn is, for each cell and length, the rate that did best in
# validation. The test sequences play no part in the choice.

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
    """In words: −6.6 is 10 to the 6.6 times smaller."""
    if pd.isna(decades):
        return NOT_RUN
    return f"{power_of_ten(abs(decades))} times {'smaller' if decades < 0 else 'larger'}"


def factor(cell: str) -> str:
    """What each step back costs before training, and after how many steps half is left."""
    rate, half = median(cell, "rate_initial"), median(cell, "half_life_initial")
    if pd.isna(rate):
        return NOT_RUN
    return f"{10**rate:.3f} ({'it does not fall' if pd.isna(half) else f'it halves every {half:.0f} steps'})"


# %% [markdown]
# ## Before any learning

# %%
picture = figures.gradient_by_lag(results, states=("h", "c"), bound=True, keys=pair)
here.show(
    picture,
    "gradient_by_lag_initial",
    title="Before any learning: how the gradient fades on its way back",
    takeaway=f"""
    Follow a line from left (the last step, where the loss is) to right (the distant past). A straight line on this
    logarithmic axis is exponential decay. Where lines of all lengths lie on top of one another, what matters is only
    how far back one looks. At T = {longest} each step back multiplies the RNN's gradient by {factor("Elman")}; at the
    first step it is {times_smaller(median("Elman", "log10_ratio_initial"))} than at the last. The RNN's weights are
    orthogonal, so the upper bound (dashed) is flat: it allows the gradient to survive, and what eats it is the slope of
    the tanh units, below 1 wherever they are active. The biases of the LSTM's gates were spread over the length of the
    sequence: where its lines bend, units that forget soon are done, and units that forget slowly carry on. At
    T = {longest} its first step's gradient is {times_smaller(median("LSTM", "log10_ratio_initial"))} than the last. The
    panel of the cell state c shows the path that an RNN has not.""",
)

# %% [markdown]
# ## After training

# %%
picture = figures.gradient_by_lag(results, stage="final", states=("h", "c"), normalised=True, bound=True, keys=pair)


def worded(decades: float) -> str:
    """Decades, or that there are none."""
    return "none" if pd.isna(decades) else f"{decades:.1f}".replace("-", "−")


def before_and_after(cell: str) -> str:
    """For each length, decades at the first step relative to the last, before and after training, and who solved."""
    told = []
    for length, group in runs[runs["cell"] == cell].groupby("length"):
        before, after = (float(group[f"log10_ratio_{stage}"].median()) for stage in ("initial", "final"))
        solved = int(figures.true(group["solved"]).sum())
        told.append(f"{worded(before)} to {worded(after)} at T = {length} ({solved} of {len(group)} solved)")
    return "; ".join(told) or NOT_RUN


here.show(
    picture,
    "gradient_by_lag_final_normalised",
    title="After training: how much of the gradient now reaches the beginning",
    takeaway=f"""
    The same after training, each sequence's gradient divided by its own value at lag 0, because a network that has
    solved its task has a small gradient everywhere. Compare with the figure above: has a line been lifted? In
    decades, the first step relative to the last, before and after training, the RNN went from
    {before_and_after("Elman")}; the LSTM from {before_and_after("LSTM")}. A line near 0 means that the distant past
    is heard as well as the present. That is needed to learn from it, and not enough: compare the numbers with who
    solved the task. Where the bound (dashed) rises and leaves the panel, training has enlarged σ_max(W_hh), which
    permits a gradient to grow without making it do so.""",
)

# %% [markdown]
# ## While the network learns

# %%
task = TemporalOrder(length=longest)
marks = figures.informative_stretches(task)
picture = figures.gradient_heat_map(results, marks=marks, keys=pair)
# The median over training: a single update's spike would say little about how a network learned.
first = picture.data[picture.data["time"] == 1].groupby("cell")["value"].median()
last = picture.data[picture.data["time"] == longest].groupby("cell")["value"].median()
fallen = first - last
here.show(
    picture,
    "gradient_heat_map",
    title="While learning: how far back the gradient is felt, update by update",
    takeaway=f"""
    One run of each cell at T = {longest}. Each row is one moment of training, from the bottom upwards; each column a
    time step, the answer being due at the right edge. Light is a large gradient, dark a small one; the black bars
    show where the marks to be remembered stand. Ask whether light colours reach the bars. The median
    over training of log10 of the gradient at the first time step is {value_at(first, "Elman")} in the RNN and
    {value_at(first, "LSTM")} in the LSTM; relative to the last step {value_at(fallen, "Elman")} and
    {value_at(fallen, "LSTM")} decades. A horizontal stripe, where there is one, is a moment at which the whole profile
    changes: one matrix is multiplied at every step, so a small change of it acts with the power of the lag.""",
)
