# ---
# jupyter:
#   rnnstudy:
#     order: 80
#     experiments: [truncation]
# ---

# %% [markdown]
# # Truncation: what a short window cannot see
#
# Truncated backpropagation cuts the gradient every k steps: states continue across the cut, gradients do not. It is
# cheap, and most recurrent networks are trained with it. The task is temporal order: two marks, each A or B, one in the
# second tenth of the sequence and one just after its middle, must be named in order at the last step. Windows are
# counted back from that step, so that a window either reaches a mark or does not. The LSTM's gates start with chrono
# biases, which are told T.

# %%
import pandas as pd

from rnnstudy import figures
from rnnstudy.report import Notebook, value_at
from rnnstudy.tasks.temporal_order import TemporalOrder

here = Notebook("truncation")
study = here.study()
results = study.results
runs = results.runs
task = TemporalOrder(length=int(runs["length"].max()))
lags = [(task.length - high, task.length - 1 - low) for low, high in task.windows]
window = "training.truncation.window"
here.say(study.summary)
here.say(
    f"T = {task.length}: the later mark is {lags[1][0]} to {lags[1][1]} steps before the answer, the earlier one "
    f"{lags[0][0]} to {lags[0][1]}."
)

# %% [markdown]
# ## 1. What the window keeps of the gradient

# %%
whole = runs.index[runs[window] == runs[window].max()]
picture = figures.cosine_by_window(results, informative=lags, keys=whole)


def cosine(stage: str, cell: str, at: int) -> str:
    """The median cosine drawn."""
    return value_at(picture.data.set_index(["stage", "cell", "window"])["median"], (stage, cell, at), "{:.2f}")


between = (lags[0][0] + lags[1][1]) // 2
here.show(
    picture,
    "cosine_by_window",
    title=f"After training the last {between} steps keep a cosine with the whole gradient of "
    f"{cosine('final', 'Elman', between)} (RNN) and {cosine('final', 'LSTM', between)} (LSTM)",
    takeaway=f"""
    Networks trained with the whole gradient. Before training, the gradient of the last {between} steps, too few to
    reach the earlier mark, has a cosine with the full gradient of {cosine("initial", "Elman", between)} (RNN) and
    {cosine("initial", "LSTM", between)} (LSTM), although this window contains nothing about that mark: an untrained
    network's gradient is the mean of 32 sequences that hardly agree, so that its direction is mostly chance, and the
    same chance in both. After training
    the cosines are {cosine("final", "Elman", between)} and {cosine("final", "LSTM", between)}. Where a line rises
    within the shaded ranges, the steps around the marks contribute to the direction of the gradient, and a shorter
    window points in another direction; where it is at 1 before them, they contribute almost nothing. A cosine close to
    1 means that a window keeps the direction of the gradient, not that it keeps what the task needs.
    """,
)

# %% [markdown]
# ## 2. What truncated training learns

# %%
short = sorted(runs[window].unique())
solved = runs.assign(solved=figures.true(runs["solved"])).groupby(["cell", window])["solved"]
share, count = solved.sum(), solved.size()


def shortest(cell: str) -> str:
    """The shortest window with which at least half of the runs solved the task."""
    enough = [k for k in short if share.get((cell, k), 0) * 2 >= count.get((cell, k), 1)]
    return f"k = {enough[0]:g}" if enough else "none of these windows"


def by_window() -> pd.DataFrame:
    """Runs that solved the task, and their median test error, for each window and cell."""
    errors = runs.groupby(["cell", window])["error"].median()
    return pd.DataFrame(
        {"window k": f"{k:g}"}
        | {
            f"{figures.style(cell).label}: {what}": text
            for cell in ("Elman", "LSTM")
            if (cell, k) in count.index
            for what, text in (
                ("solved", f"{share[cell, k]:.0f} of {count[cell, k]}"),
                ("median error", f"{errors[cell, k]:.2f}"),
            )
        }
        for k in short
    )


picture = figures.success(results, window, label="window k (steps)", chance=task.chance.error, error="test error")
here.show(
    picture,
    "success_by_window",
    title=f"The shortest window with which half of the runs solve the task: {shortest('Elman')} (RNN), "
    f"{shortest('LSTM')} (LSTM)",
    takeaway=f"""
    An error of 3/4 is chance; one half means that one mark is known. The window can contain the earlier mark from
    k = {lags[0][0] + 1} on, and always contains it from k = {lags[0][1] + 1} on. A shorter window can be enough because
    states continue where gradients are cut: a network whose state happens to hold the mark when the window begins
    learns to read it out.
    """,
)
here.table(by_window())
