# ---
# jupyter:
#   rnnstudy:
#     order: 120
#     experiments: [sequence_length]
# ---

# %% [markdown]
# # Does the gradient before training predict success?
#
# Networks through which the gradient reaches far learn long tasks; that is what the other pages show, and it is a
# statement about *kinds* of network. Here is a harder question: of two networks of the same cell, at the same length
# and learning rate, which differ in their random initial weights alone, does the one whose gradient reaches further at
# initialisation do better? If it does, a look at the gradient before training could save the training.
#
# The score is the normalised gradient at the first time step (log10 ratio), before any update. *Within strata* compares
# runs that differ in their seed alone. *Across lengths* also compares runs of different length: whatever falls with T
# predicts success there, and such a number proves nothing about seeds.

# %%
from rnnstudy import figures
from rnnstudy.report import Notebook

here = Notebook("prediction")
study = here.study("sequence_length")
results = study.results
here.say(study.summary)

# %% [markdown]
# ## 1. The score of every run, and what it tells

# %%
score = "log10_ratio_initial"
picture = figures.prediction(results, score, label="log₁₀ gradient at the first step, relative to the last")
table = picture.data.set_index(["comparison", "target", "cell"])


def words(comparison: str, target: str, cell: str = "all") -> str:
    """Value with interval, or why there is none."""
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
cells = [cell for cell in results.runs["cell"].unique()]
here.show(
    picture,
    "prediction",
    title="Does the gradient before training predict success?",
    takeaway=f"""
    Of two runs of different length, the one with the higher score solved the task, and the other did not, as often as
    this: AUC {words("across lengths", "solved")} for all cells together. There the length speaks with: it sets both.
    Within strata only {int(within["informative"])} of
    {int(within["strata"])} hold solved and unsolved runs at all, since most settings are solved always or never; there
    the AUC is {words("within strata", "solved")}. Solved sooner or later can be compared in more of them: Harrell's C
    is {words("within strata", "sooner")}; by cell, {
        "; ".join(
            f"{figures.style(cell).label} {words('within strata', 'sooner', cell)}"
            for cell in sorted(cells, key=figures.cell_position)
        )
    }. An interval that
    holds 1/2 means that these runs show no relation among networks of one kind: the gradient at initialisation tells
    kinds of network apart, and then it may tell nothing about the luck of a seed. p: how often dealing the scores out
    to the seeds by chance would give a number as far from 1/2.
    """,
)

# %% [markdown]
# In numbers. *strata*: how many there are; *informative*: how many of them hold runs that can be compared.

# %%
here.table(picture.data)
