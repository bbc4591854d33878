# ---
# jupyter:
#   rnnstudy:
#     order: 58
#     experiments: [interventions]
# ---

# %% [markdown]
# # Cut the gradient before every mark, and learning stops; restore its length, and few runs solve
#
# If a network fails *because* its gradient vanishes, it must learn when the gradient is restored; and a network that
# learns must stop when its gradient is cut before it reaches what must be remembered.

# %%
import pandas as pd

from rnnstudy import figures
from rnnstudy.report import Notebook

here = Notebook("interventions")
study = here.study()
here.say(study.summary)

# %% [markdown]
# ## What was done
#
# Temporal order at T = 100: the first mark lies 81 to 90 steps before the end, the second 41 to 50, and only the last
# step is judged. *Constant norm*: each step back keeps the direction of the gradient and gets back its length. *Omega*:
# Pascanu's regulariser. *h-detach*: the gates' path is cut at random, the cell's path stays. *Cut*: backpropagation
# stops so many steps before the end (chunks, of which only the last one has a loss): at 35 it reaches no mark, at 45
# some of the second marks, at 75 all second marks, at 95 both. What the state carries forward is never cut. Every side
# has three learning rates, the same for each cell, and all are shown. The cut at 35 was added after the others had been
# seen.


# %%
def side(run: pd.Series) -> str:
    bias = run.get("initialisation.gate_bias")
    start = "forget bias 1" if isinstance(bias, str) else "as drawn"
    cell = "RNN" if run["cell"] == "Elman" else f"{run['cell']}, {start}"
    if isinstance(run["training.constant_norm"], str):
        return f"{cell}: constant norm"
    if isinstance(run["training.omega"], str):
        return f"{cell}: Omega, strength {run['training.omega.strength']:g}"
    if isinstance(run["training.h_detach"], str):
        return f"{cell}: h-detach"
    if isinstance(run["training.truncation"], str):
        return f"{cell}: cut every {run['training.truncation.window']:g} steps"
    return f"{cell}: the gradient as it is"


results = study.results
runs = results.runs.assign(side=results.runs.apply(side, axis=1))
AS_IS = "the gradient as it is"
names = sorted(set(runs["side"]), key=lambda name: (name.split(": ")[0], name.split(": ")[1] != AS_IS, name))
side_of = {key: name for name in names for key in runs.index[runs["side"] == name]}
task = study.definition.runs(study.scale)[0].task


def shares(cell: str) -> str:
    """How many runs of each side of a cell solved the task, at each learning rate."""
    own = runs[runs["cell"] == cell].assign(solved=lambda table: figures.true(table["solved"]))
    told = []
    for name in [name for name in names if name in set(own["side"])]:
        by_rate = own[own["side"] == name].groupby("learning_rate")["solved"]
        told.append(f"{name.split(': ')[1]}: {', '.join(f'{int(one.sum())} of {len(one)}' for _, one in by_rate)}")
    return "; ".join(told)


WORDS = {"Elman": "The vanilla RNN", "LSTM": "The LSTM as drawn", "GRU": "The GRU with forget bias 1"}
for cell, words in WORDS.items():
    own = list(runs.index[runs["cell"] == cell])
    if own:
        here.show(
            figures.comparison(
                results, side_of, {type(task).__name__: task.chance.error}, across="learning_rate",
                label="learning rate", keys=own,
            ),
            f"interventions_{cell}",
            title=f"{words}: its gradient as it is, {'cut' if cell == 'GRU' else 'restored'}",
            takeaway=f"""Runs that solved the task, by learning rate. {shares(cell)}. Compare each row with the first:
            same cell, start, sequences and learning rates.""",
        )  # fmt: skip

# %% [markdown]
# ## In numbers
#
# Against the same cell with the gradient as it is, on the same seeds. *Solved*: on how many seeds only one of the two
# solved the task at any of its rates. *Error*: on how many seeds one had the lower test error, the mean over its three
# rates. How likely so uneven a division is by chance is told by the exact binomial test (for *solved*, McNemar's), p
# adjusted by Holm for all tests of this page.

# %%
chosen = runs.assign(solved=figures.true(runs["solved"]), error=runs["error"].astype(float).fillna(float("inf")))
solved = chosen.groupby(["side", "seed"])["solved"].max().unstack(0)
error = chosen.groupby(["side", "seed"])["error"].mean().unstack(0)
rows = []
for name in names:
    base = f"{name.split(': ')[0]}: {AS_IS}"
    if name == base or base not in solved:
        continue
    for by, first, second in (
        ("solved", solved[name], solved[base]),
        ("error", error[name] < error[base], error[base] < error[name]),
    ):
        alone, base_alone, p = figures.mcnemar(first.to_numpy(), second.to_numpy())
        rows.append(
            {"side": name, "by": by, "seeds": len(first), "this alone": alone, "as it is alone": base_alone, "p": p}
        )
tests = pd.DataFrame(rows)
tests["p, adjusted"] = figures.holm(tests["p"].tolist())
tests["verdict"] = [
    "cannot tell" if p >= 0.05 else "better than as it is" if more > less else "worse than as it is"
    for p, more, less in zip(tests["p, adjusted"], tests["this alone"], tests["as it is alone"], strict=True)
]
here.table(tests.drop(columns="p"))


# %%
told = tests[tests["verdict"] != "cannot tell"]
listed = "; ".join(f"*{row.side}*, by {row.by}: {row.verdict}" for row in told.itertuples())
here.say(
    f"""**What came out.** {listed}. In the other {len(tests) - len(told)} of {len(tests)} tests these runs cannot tell.
    Why the cut at 45 does not stop learning is likely this: a weight serves every step, so that what the gradient at
    some of the second marks teaches it serves the first mark too, where the gradient is zero."""
)

# %% [markdown]
# ## What this does not show
#
# A restored gradient has its length, and the direction that is left of it. The method changes the gradient of every
# step, hence also how the parts of an update weigh against each other, and Omega and h-detach change more than the
# gradient's length: that they do not help here does not show that the length does not matter. The marks of this task
# are alike, so that one can teach the other; where they are not, a cut between them may stop learning. One task, one
# length, one width, 2,000 updates, three learning rates.
