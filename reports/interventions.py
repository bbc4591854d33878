# ---
# jupyter:
#   rnnstudy:
#     order: 58
#     experiments: [interventions]
# ---

# %% [markdown]
# # Restore the gradient, or remove it: who learns then?
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
# Temporal order at T = 100: the first mark lies 81 to 90 steps before the end, the second 41 to 50. *Constant norm*:
# each step back keeps the direction of the gradient and gets back its length. *Omega*: Pascanu's regulariser.
# *h-detach*: the gates' path is cut at random, the cell's path stays. *Cut*: truncated backpropagation, in chunks of so
# many steps, counted from the end. Every side has three learning rates, the same for each cell, and all are shown.


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
order = list(dict.fromkeys(runs["side"]))
side_of = {key: name for name in order for key in runs.index[runs["side"] == name]}
task = study.definition.runs(study.scale)[0].task
for cell in ("Elman", "LSTM", "GRU"):
    own = list(runs.index[runs["cell"] == cell])
    if own:
        words = {"Elman": "vanilla RNN"}.get(cell, cell)
        here.show(
            figures.comparison(
                results, side_of, {type(task).__name__: task.chance.error}, across="learning_rate",
                label="learning rate", keys=own,
            ),
            f"interventions_{cell}",
            title=f"The {words} with its gradient as it is, restored, or cut",
            takeaway="Compare each row with the first of its cell: same cell, start, sequences and learning rates.",
        )  # fmt: skip

# %% [markdown]
# ## In numbers
#
# Against the same cell with the gradient as it is, on the same seeds and learning rates: on how many seeds only one of
# the two solved the task at any of its rates (McNemar's exact test, p adjusted by Holm for the number of tests).

# %%
solved = runs.assign(solved=figures.true(runs["solved"])).groupby(["side", "seed"])["solved"].max().unstack(0)
rows = []
for name in order:
    base = f"{name.split(': ')[0]}: the gradient as it is"
    if name == base or base not in solved:
        continue
    both = solved[[name, base]].dropna().astype(bool)
    alone, base_alone, p = figures.mcnemar(both[name].to_numpy(), both[base].to_numpy())
    rows.append(
        {"side": name, "seeds": len(both), "solved": int(both[name].sum()), "solved as it is": int(both[base].sum()),
         "this alone": alone, "as it is alone": base_alone, "p": p}
    )  # fmt: skip
tests = pd.DataFrame(rows)
tests["p, adjusted"] = figures.holm(tests["p"].tolist())
tests["verdict"] = [
    "cannot tell" if p >= 0.05 else "solves more often" if more > less else "solves less often"
    for p, more, less in zip(tests["p, adjusted"], tests["this alone"], tests["as it is alone"], strict=True)
]
here.table(tests.drop(columns="p"))

# %% [markdown]
# ## What this does not show
#
# A restored gradient has the right length and the direction that is left of it: where the direction itself is noise,
# restoring the length cannot help, and that is a result, not a fault of the method. One task, one length, one width.
