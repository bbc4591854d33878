# ---
# jupyter:
#   rnnstudy:
#     order: 90
#     experiments: [gate_bias]
# ---

# %% [markdown]
# # The forget gate's bias: how long an LSTM remembers before it has learned anything
#
# Were the forget gate constant, f = σ(b), the gradient along the cell state would fall by that factor at each step and
# halve every log 2/(−log σ(b)) steps. That is a closed form; here it is held against measured half-lives, and those
# against what is learned. Chrono initialisation (Tallec & Ollivier 2018) draws the biases of the units as log u with u
# uniform up to the length of the sequence, so that half-lives are spread instead of chosen, and shuts the input gates
# accordingly (b_i = −b_f).

# %%
import numpy as np

from rnnstudy import figures
from rnnstudy.notebook import Notebook
from rnnstudy.tasks.temporal_order import TemporalOrder

here = Notebook("gate_bias")
study = here.study()
results = study.results
runs = results.runs
task = TemporalOrder(length=int(runs["length"].max()))
bias = "initialisation.gate_bias.value"
here.say(study.words)

# %% [markdown]
# ## 1. Half-life

# %%
picture = figures.half_life_by_bias(results, bias, longest=task.length)
measured = picture.data[picture.data["rule"] == "bias"].set_index(["stage", "state", "bias"])["median"]
biases = sorted(runs[bias].dropna().unique())
theory = dict(zip(biases, figures.half_life_of_bias(np.array(biases)), strict=True))
chrono = picture.data[(picture.data["rule"] == "chrono") & (picture.data["stage"] == "initial")].set_index("state")
listed = "; ".join(
    f"b = {value:g}: {measured['initial', 'c', value]:.3g} against {theory[value]:.3g}" for value in biases
)
here.show(
    picture,
    "half_life_by_bias",
    title="Half-life against forget-gate bias",
    see=f"""
    Before training (left), measured against the closed form, in steps: {listed}. The two differ where something
    else than the constant gate carries or cuts the gradient: at small biases the way through the other gates
    and W_hh, which the formula leaves out; at large ones the half-life is longer than the sequence, and the
    slope over T = {task.length} steps has little to go on. Chrono (grey bar: the half-lives of its single
    units) has a measured half-life of {chrono.loc["c", "median"]:.3g} steps along c. After training (right) the
    marks have moved away from the line: the bias is where learning starts from, not what it ends with.
    """,
)

# %% [markdown]
# ## 2. Learning

# %%
labels = {f"{value:g}": f"{value:g}" for value in biases} | {"chrono": "chrono"}
runs["start"] = runs[bias].map(lambda value: "chrono" if np.isnan(value) else f"{value:g}")
solved = runs.assign(solved=runs["solved"].eq(True).fillna(False).astype(bool)).groupby("start")
counts = solved["solved"].agg(["sum", "size"])
told = ", ".join(
    f"{name}: {counts.loc[name, 'sum']}/{counts.loc[name, 'size']}" for name in labels if name in counts.index
)
updates = runs["training.steps"].max()
here.show(
    figures.success_by_setting(
        results,
        "start",
        label="forget-gate bias b at the start",
        chance=task.chance.error,
        error="test error",
        words={name: word for name, word in labels.items() if name in counts.index},
    ),
    "success_by_bias",
    title="What the bias does for learning",
    see=f"""
    Runs that solved T = {task.length} within {updates} updates, by forget-gate bias: {told}. The earlier mark stands
    {task.length - task.windows[0][1]} to {task.length - 1 - task.windows[0][0]} steps before the answer. Compare with
    the half-lives above: where the gradient has halved many times over that lag, the error stays near chance or near
    one half (one mark known).
    """,
)
