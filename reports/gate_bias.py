# ---
# jupyter:
#   rnnstudy:
#     order: 90
#     experiments: [gate_bias]
# ---

# %% [markdown]
# # The forget gate's bias: a longer half-life is not better
#
# If the forget gate were constant, f = σ(b), the gradient along the cell state would fall by this factor at each step
# and halve every log 2/(−log σ(b)) steps. This report compares this closed form with measured half-lives, and these
# with what is learned. Chrono initialisation (Tallec & Ollivier 2018) draws the biases of the units as log u, with u
# uniform up to the length of the sequence, so that the half-lives of the units are spread, and closes the input gates
# accordingly (b_i = −b_f).

# %%
import numpy as np
import pandas as pd

from rnnstudy import figures
from rnnstudy.report import NOT_RUN, Notebook
from rnnstudy.tasks.temporal_order import TemporalOrder

here = Notebook("gate_bias")
study = here.study()
results = study.results
runs = results.runs
task = TemporalOrder(length=int(runs["length"].max()))
bias = "initialisation.gate_bias.value"
here.say(study.summary)

# %% [markdown]
# ## 1. Half-life
#
# A second closed form includes the gradient that returns to the cell through h. Near c = h = 0 the input gate and the
# output gate are 1/2, so h is about c/2, and the candidate adds half of h W_hh: the Jacobian along c is
# σ(b) I + W_hh^C̃/4. PyTorch's default draws W_hh^C̃ with a spectral radius near 1/√3 (circular law), so that the
# factor of a step is σ(b) + 1/(4√3) instead of σ(b).

# %%
loop = 1 / (4 * np.sqrt(3))
picture = figures.half_life_by_bias(results, bias, loop=loop, longest=task.length)
before, after = (picture.data[picture.data["stage"] == stage].set_index("start") for stage in ("initial", "final"))
biases = sorted(runs[bias].dropna().unique())


def steps(half_life: float) -> str:
    """A half-life as text."""
    if np.isnan(half_life):
        return NOT_RUN
    digits = f"{half_life:.0f}" if half_life >= 10 else f"{half_life:.2g}"
    return digits if np.isfinite(half_life) else "none, it does not fall"


def predicted(value: float, gain: float) -> str:
    """The half-life of the closed form as text."""
    return steps(float(figures.half_life_of_bias(np.array(value), gain)))


table = pd.DataFrame(
    {
        "bias b": start,
        "before training": steps(before["half_life"].get(start, np.nan)),
        "constant gate": predicted(value, 0.0) if value is not None else "",
        "with the loop through h": predicted(value, loop) if value is not None else "",
        "after training": steps(after["half_life"].get(start, np.nan)),
    }
    for start, value in [*((f"{value:g}", value) for value in biases), ("chrono", None)]
    if start in before.index
)
chrono = steps(before["half_life"].get("chrono", np.nan))
does_not_fall = [value for value in biases if np.isinf(before["half_life"].get(f"{value:g}", np.nan))]
lasting = f"; from {does_not_fall[0]:g} on it does not fall" if does_not_fall else ""
border = float(-np.log(1 / (1 - loop) - 1))
here.show(
    picture,
    "half_life_by_bias",
    title=f"Before training a bias of {biases[0]:g} halves the gradient every "
    f"{steps(before['half_life'].get(f'{biases[0]:g}', np.nan))} steps{lasting}",
    takeaway=f"""
    The first closed form, a constant gate, leaves out the loop through h, which adds to the gate. The second leaves out
    the tanh and sigmoid functions, which limit the loop: from b = {border:.1f} on it predicts a gradient that grows on
    its way back. The largest measured rate is {before["rate"].max():.3f} decades per step; a rate above 0 means that
    the gradient grows. Chrono closes the input gates as it opens the forget gates, which makes the loop small; its
    half-life before training is {chrono} steps, and the half-lives of its single units are spread over the grey bar.
    The numbers in the strip count the runs whose gradient does not fall. The table has the half-lives of dL/dc in
    steps: measured before training, of the two closed forms, and measured after training.
    """,
)
here.table(table)

# %% [markdown]
# ## 2. Learning

# %%
labels = {f"{value:g}": f"{value:g}" for value in biases} | {"chrono": "chrono"}
runs["start"] = runs[bias].map(lambda value: "chrono" if np.isnan(value) else f"{value:g}")
solved = runs.assign(solved=figures.true(runs["solved"])).groupby("start")
counts = solved["solved"].agg(["sum", "size"])
solved_by_bias = ", ".join(
    f"{name}: {counts.loc[name, 'sum']}/{counts.loc[name, 'size']}" for name in labels if name in counts.index
)
updates = runs["training.steps"].max()
shares = counts["sum"] / counts["size"]
numbers = [f"{value:g}" for value in biases if f"{value:g}" in counts.index]
most = max(numbers, key=lambda name: shares[name])
here.show(
    figures.success(
        results,
        "start",
        label="forget-gate bias b at the start",
        chance=task.chance.error,
        error="test error",
        words={name: word for name, word in labels.items() if name in counts.index},
    ),
    "success_by_bias",
    title=f"Of the constant biases b = {most} solves the task most often: {counts.loc[most, 'sum']} of "
    f"{counts.loc[most, 'size']} runs",
    takeaway=f"""
    Above, the share of runs that solved T = {task.length} within {updates} updates: {solved_by_bias}. The earlier mark
    is {task.length - task.windows[0][1]} to {task.length - 1 - task.windows[0][0]} steps before the answer. An error
    near one half means that one mark is known. Compare with the half-lives above.
    """,
)

# %%
# A gradient that does not fall has no half-life: it counts as longer than any other.
half_lives = runs["half_life_initial_c"].astype(float).fillna(np.inf).groupby(runs["start"]).median()
lag = task.length - 1 - task.windows[0][1]
reaching = [name for name in numbers if half_lives.get(name, 0.0) >= lag]
longest = max(reaching, key=lambda name: shares[name], default=most)
best_low, _ = figures.wilson(int(counts.loc[most, "sum"]), int(counts.loc[most, "size"]))
_, longest_high = figures.wilson(int(counts.loc[longest, "sum"]), int(counts.loc[longest, "size"]))
here.say(
    f"""The hypothesis of the experiment was that the task is learned only where the half-life before training comes
    close to the lag of the earlier mark, about {lag} steps. The constant bias with the most solved runs is b = {most},
    with {counts.loc[most, "sum"]} of {counts.loc[most, "size"]} and a median half-life of {
        steps(half_lives[most])
    } steps;
    where the median half-life reaches the lag, or the gradient does not fall (b = {", ".join(reaching) or "none"}),
    {", ".join(f"{counts.loc[name, 'sum']} of {counts.loc[name, 'size']}" for name in reaching) or "no run"} solve it.
    {
        "So a longer half-life is not better, and one that reaches the earlier mark is not enough"
        if shares[most] > shares[longest] and most not in reaching
        else "These runs do not speak against it"
    }. The two
    intervals {
        "do not overlap" if best_low > longest_high else "just overlap"
    }, and the two biases were compared because
    of their results; that a half-life of the same order as the lags is needed, these runs do not refute."""
)

# %% [markdown]
# ## What this does not show
#
# One learning rate, 600 updates, matrices as PyTorch draws them. With orthogonal matrices, or more updates, a forget
# bias of 1 may be enough, as Jozefowicz, Zaremba & Sutskever (2015) report; the page on what each side was given has it
# at several rates.
