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
from rnnstudy import figures
from rnnstudy.notebook import Notebook
from rnnstudy.tasks.temporal_order import TemporalOrder

here = Notebook("forgetting")
study = here.study("sequence_length")
here.say(study.words)

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
    return f"10<sup>{-decades:.1f}</sup> times smaller" if decades < 0 else f"10<sup>{decades:.1f}</sup> times larger"


# %% [markdown]
# ## Before any learning

# %%
picture = figures.gradient_by_lag(results, states=("h", "c"), bound=True, keys=pair)
here.show(
    picture,
    "gradient_by_lag_initial",
    title="Before any learning, the RNN's gradient already fades exponentially on its way back",
    see=f"""
    Follow a line from left (the last step, where the loss is) to right (the distant past). A straight line on this
    logarithmic axis is exponential decay. In the RNN the lines of all lengths lie on top of one another: each step back
    costs the same factor, {10 ** median("Elman", "rate_initial"):.3f} (it halves every
    {median("Elman", "half_life_initial"):.0f} steps), so what matters is only how far back one looks. At T = {longest}
    the gradient at the first step is {times_smaller(median("Elman", "log10_ratio_initial"))} than at the last. Its
    weights are orthogonal, so the upper bound (dashed) is flat: the bound allows the gradient to survive, and it is the
    slope of the tanh units, below 1 wherever they are active, that eats it. In the LSTM the lines bend: after a first
    drop they fall more slowly, the more so the longer the sequence, because the biases of its gates were spread over
    that length; at T = {longest} the first step's gradient is {times_smaller(median("LSTM", "log10_ratio_initial"))}.
    The cell state c (third panel) is the path on which it survives.""",
)

# %% [markdown]
# ## After training

# %%
picture = figures.gradient_by_lag(results, stage="final", states=("h", "c"), normalised=True, bound=True, keys=pair)


def before_and_after(cell: str) -> str:
    """For each length, decades at the first step relative to the last, before and after training, and who solved."""
    told = []
    for length, group in runs[runs["cell"] == cell].groupby("length"):
        before, after = (float(group[f"log10_ratio_{stage}"].median()) for stage in ("initial", "final"))
        solved = int(group["solved"].eq(True).fillna(False).sum())
        told.append(f"{before:.1f} to {after:.1f} at T = {length} ({solved} of {len(group)} solved)")
    return "; ".join(told)


here.show(
    picture,
    "gradient_by_lag_final_normalised",
    title="After training: how much of the gradient now reaches the beginning",
    see=f"""
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
words = {cell: results.runs.loc[key] for cell, key in picture.data.groupby("cell")["key"].first().items()}
first = {
    cell: picture.data[(picture.data["cell"] == cell) & (picture.data["time"] == 1)]["value"].max() for cell in words
}
here.show(
    picture,
    "gradient_heat_map",
    title="While learning: how far back the gradient is felt, update by update",
    see=f"""
    One run of each cell at T = {longest}. Each row is one moment of training, from the bottom upwards; each column a
    time step, the answer being due at the right edge. Light is a large gradient, dark a small one; the black bars
    show where the marks to be remembered stand. Ask whether light colours reach the bars. At the first time step the
    RNN's gradient is never larger than 10<sup>{first["Elman"]:.1f}</sup> during training; the LSTM's reaches
    10<sup>{first["LSTM"]:.1f}</sup>. Horizontal stripes in the RNN are moments at which its profile changes as a
    whole, from vanishing to nearly exploding and back: one matrix is multiplied at every step, so a small change of
    it acts with the power of the lag.""",
)
