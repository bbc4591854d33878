# ---
# jupyter:
#   rnnstudy:
#     order: 120
#     experiments: [sequence_length]
# ---

# %% [markdown]
# # Does the gradient before training predict success?
#
# The other pages show that networks in which the gradient reaches far back learn long tasks. This is a statement about
# *kinds* of network. Here is a harder question. Take two networks of the same cell, at the same length and learning
# rate, that differ only in their random initial weights: does the one whose gradient reaches further at initialisation
# do better? If it does, the gradient before training could tell which network is worth training.
#
# The score is the normalised gradient at the first time step (log10 ratio), before any update. *Within strata* compares
# runs that differ only in their seed. *Across lengths* also compares runs of different length: everything that falls
# with T predicts success there, so such a number proves nothing about seeds.

# %%
from rnnstudy import figures
from rnnstudy.report import Notebook

here = Notebook("prediction")
study = here.study("sequence_length")
results = study.results
here.say(study.summary)

# %% [markdown]
# ## 1. The score of every run, and what it predicts

# %%
score = "log10_ratio_initial"
picture = figures.prediction(results, score, label="log₁₀ gradient at the first step, relative to the last")
table = picture.data.set_index(["comparison", "target", "cell"])


def result(comparison: str, target: str, cell: str = "all") -> str:
    """Value with interval as text, or the reason why there is none."""
    if (comparison, target, cell) not in table.index:
        return "not run"
    row = table.loc[(comparison, target, cell)]
    if row["pairs"] == 0:
        return "no two runs to compare"
    interval = (
        f"{row['low']:.2f} to {row['high']:.2f}, " if row["low"] == row["low"] else "too few runs for an interval, "
    )
    chance = f"p = {row['p']:.2g}, " if row["p"] == row["p"] else ""
    return f"{row['value']:.2f} ({interval}{chance}{int(row['pairs'])} pairs)"


within = table.loc[("within strata", "solved", "all")]
share_right = f"{100 * within['value']:.0f} %" if within["pairs"] else "none"
cells = sorted(results.runs["cell"].unique(), key=figures.cell_position)
by_cell = "; ".join(f"{figures.style(cell).label} {result('within strata', 'sooner', cell)}" for cell in cells)
here.show(
    picture,
    "prediction",
    title=f"Where only the seed differs, the gradient before training ranks {share_right} of pairs rightly "
    "(50 %: no relation)",
    takeaway=f"""
    AUC is the probability that of two runs, one that solved the task and one that did not, the first has the higher
    score. Across lengths it is {result("across lengths", "solved")} for all cells together; this includes the effect of
    the length, which determines both score and success. Of {int(within["strata"])} strata, only
    {int(within["informative"])} contain both solved and unsolved runs, since most settings are solved always or never;
    within them the AUC is {result("within strata", "solved")}. Whether a run solved the task sooner or later can be
    compared in more strata: Harrell's C is {result("within strata", "sooner")}; by cell, {by_cell}. An interval that
    contains 1/2 means that these runs cannot tell whether there is a relation among networks of one kind, not that
    there is none: the wider the interval, the less they say. p is the probability that a random
    assignment of the scores to the seeds gives a number at least as far from 1/2.
    """,
)

# %% [markdown]
# The same in numbers. *strata*: how many there are; *informative*: how many of them contain runs that can be compared.

# %%
here.table(picture.data)
