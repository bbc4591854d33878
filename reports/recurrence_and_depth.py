# ---
# jupyter:
#   rnnstudy:
#     order: 100
#     experiments: [recurrence_and_depth]
# ---

# %% [markdown]
# # What is fed back, and how deep: three recurrences, one to three layers
#
# A recurrent network can feed back its hidden layer (Elman: W_hh), its output into the hidden layer (Jordan: W_oh), or
# its output into the output (W_oo). In the last two, all memory is in as many numbers as there are outputs, four in
# this task (temporal order), and these numbers are also the answer. Depth adds layers within a step: more paths for the
# gradient, but none that is shorter in time.

# %%
import pandas as pd

from rnnstudy import figures
from rnnstudy.report import NOT_RUN, Notebook, value_at
from rnnstudy.tasks.temporal_order import TemporalOrder

here = Notebook("recurrence_and_depth")
study = here.study()
results = study.results
runs = results.runs
chance = TemporalOrder(length=int(runs["length"].max())).chance.error
here.say(study.summary)

# %% [markdown]
# ## 1. The gradient through time

# %%
single = list(runs.index[runs["layers"] == 1])
# Networks of several layers have a ratio for each layer, under other names.
ratios = runs.loc[single].reindex(columns=["cell", "length", "log10_ratio_initial"])
ratios = ratios.groupby(["cell", "length"])["log10_ratio_initial"].median()
state = {"Elman": "h", "Jordan": "o", "OutputRecurrent": "o"}
longest = int(runs["length"].max())


def decades(cell: str) -> str:
    """At the first step, relative to the last, at the longest length."""
    return value_at(ratios, (cell, longest))


def ratio(cell: str) -> str:
    """Decades at the first step, relative to the last, at the longest length."""
    return f"{figures.style(cell).label} {decades(cell)} (state {state[cell]})"


if not single:
    here.say(f"Networks of one layer: {NOT_RUN}. {study.missing_message}")
else:
    here.show(
        figures.gradient_of_cells(results, states=("h", "o"), normalised=True, keys=single),
        "gradient_by_lag",
        title=f"The gradient at the first of {longest} steps, relative to the last: {decades('Elman')} "
        f"decades (Elman), {decades('Jordan')} (Jordan), {decades('OutputRecurrent')} (output recurrence)",
        takeaway=f"""
    One layer, before training, relative to lag 0, the cells side by side at the longest length. At T = {longest} the
    gradient at the first step, in decades:
    {"; ".join(ratio(cell) for cell in state)}. In the Jordan
    network the gradient is multiplied by the matrix product W_ho W_oh at each step, and shrinks with it: how fast is
    mostly a matter of how small the two are drawn, and only then of their rank. The
    output recurrence with an orthogonal W_oo is linear, and each step preserves the size of the gradient. The next
    figure shows whether a gradient that reaches the first step is enough.
    """,
    )

# %% [markdown]
# ## 2. What is learned

# %%
counted = runs.assign(solved=figures.true(runs["solved"])).groupby(["cell", "length", "layers"])
counts = counted["solved"].agg(["sum", "size"])
lengths, depths = sorted(runs["length"].unique()), sorted(runs["layers"].unique())


def share(cell: str, length: int, layers: int) -> str:
    """How many runs of one setting solved the task, of how many."""
    if (cell, length, layers) not in counts.index:
        return NOT_RUN
    return f"{counts.loc[(cell, length, layers), 'sum']}/{counts.loc[(cell, length, layers), 'size']}"


def shares() -> pd.DataFrame:
    """How many runs of each cell solved the task, for each length and number of layers."""
    return pd.DataFrame(
        {"cell": figures.style(cell).label, "T": length}
        | {f"{layers} layer{'s' if layers > 1 else ''}": share(cell, length, layers) for layers in depths}
        for cell in state
        for length in lengths
    )


here.show(
    figures.success(results, "layers", each="length", label="layers", chance=chance, error="test error"),
    "success_by_layers",
    title=f"Output recurrence at T = {lengths[-1]}: {share('OutputRecurrent', lengths[-1], depths[0])} runs solve the "
    f"task with {depths[0]} layer{'s' if depths[0] > 1 else ''}, "
    f"{share('OutputRecurrent', lengths[-1], depths[-1])} with {depths[-1]}",
    takeaway="""
    The effect of depth can be read along the horizontal axis, at equal length. With one layer, the output recurrence
    keeps the past as a linear sum in four numbers, and its hidden layer sees one step at a time: this is the likely
    reason where it fails although its gradient reaches the first step. With more layers, each layer passes its four
    sums to the next at every step, so that the hidden layer above sees the past. The table counts the runs that solved
    the task.
    """,
)
here.table(shares())
