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
# its output into the output (W_oo). The last two send all memory through as many numbers as there are outputs, four in
# this task (temporal order), and these numbers are also the answer. Depth adds layers within a step: more ways for a
# gradient to go, but none that is shorter in time.

# %%
from rnnstudy import figures
from rnnstudy.notebook import Notebook
from rnnstudy.tasks.temporal_order import TemporalOrder

here = Notebook("recurrence_and_depth")
study = here.study()
results = study.results
runs = results.runs
chance = TemporalOrder(length=int(runs["length"].max())).chance.error
here.say(study.words)

# %% [markdown]
# ## 1. The gradient through time

# %%
single = list(runs.index[runs["layers"] == 1])
ratios = runs.loc[single].groupby(["cell", "length"])["log10_ratio_initial"].median()
state = {"Elman": "h", "Jordan": "o", "OutputRecurrent": "o"}
longest = int(runs["length"].max())
here.show(
    figures.gradient_by_lag(results, states=("h", "o"), normalised=True, keys=single),
    "gradient_by_lag",
    title="Hidden against output recurrence: the gradient before training",
    see=f"""
    One layer, before training, relative to lag 0. At T = {longest} the gradient at the first step, in decades:
    {", ".join(f"{figures.style(cell).label} {ratios[cell, longest]:.1f} (state {state[cell]})" for cell in state)}. The
    Jordan network loses the most for each step: its way back goes through the small matrix product W_ho W_oh. The
    output recurrence with an orthogonal W_oo is linear and loses nothing: a gradient that arrives undiminished. Whether
    that helps is the question of the next figure.
    """,
)

# %% [markdown]
# ## 2. What is learned

# %%
counted = runs.assign(solved=runs["solved"].eq(True).fillna(False).astype(bool)).groupby(["cell", "length", "layers"])
counts = counted["solved"].agg(["sum", "size"])
lengths, depths = sorted(runs["length"].unique()), sorted(runs["layers"].unique())


def told(cell: str) -> str:
    """Solved of all, layer by layer, length by length."""
    return "; ".join(
        f"T = {length}: "
        + ", ".join(f"{counts.loc[(cell, length, n), 'sum']}/{counts.loc[(cell, length, n), 'size']}" for n in depths)
        for length in lengths
    )


here.show(
    figures.success_by_setting(results, "layers", each="length", label="layers", chance=chance, error="test error"),
    "success_by_layers",
    title="Hidden against output recurrence, and depth: what is learned",
    see=f"""
    Runs that solved the task with {", ".join(map(str, depths))} layers. RNN (Elman): {told("Elman")}. RNN
    (Jordan): {told("Jordan")}. Output recurrence: {told("OutputRecurrent")}. An output recurrence without success
    is a gradient that arrives and does not help: its path through time is a linear sum in four numbers, and its
    hidden layer sees one step at a time. What depth does can be read along the horizontal axis, at equal length.
    """,
)
