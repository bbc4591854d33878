# ---
# jupyter:
#   rnnstudy:
#     order: 55
#     experiments: [tuned_comparison]
# ---

# %% [markdown]
# # Each cell at its own best settings, and at settings that nobody searched for
#
# A vanilla RNN that fails may only be badly tuned. Here each cell has, at each length, a search of its own (Optuna's
# tree-structured Parzen estimator): the same number of candidates, seeds and updates for each. Beside each stands what
# a user would write who searches for nothing.

# %%
import pandas as pd

from rnnstudy import figures
from rnnstudy.report import Notebook, ReportError
from rnnstudy.tasks import TemporalOrder

USUAL = ", usual settings"

here = Notebook("tuned_comparison")
study = here.study()
searches = here.searches()
searched = searches.trials[~searches.trials["study"].str.endswith(USUAL)].reset_index(drop=True)
logarithmic = ("learning_rate", "clip_threshold")
value = "updates until solved"
here.say(study.summary)

# %%
counts = searched.groupby("study").size()
here.say(
    f"""**What was done.** {len(counts)} searches of {" or ".join(map(str, sorted(set(counts))))} candidates over
    learning rate (0.0001 to 0.3), clipping threshold (0.1 to 10), start of the matrices (as PyTorch draws them,
    orthogonal; for the vanilla RNN also the identity) and, for GRU and LSTM, the bias of the forget gate (−1 to 5).
    A candidate's value is the number of updates until validation meets the criterion twice in a row, the median over
    seeds that are the same in all searches; unsolved, it is the budget and up to as much again, by the error. Each
    study draws candidates of its own. The winner is trained again on fresh seeds, which no search has used: the lowest
    value of a search is too optimistic, because it was selected as the lowest. *Usual settings*: learning rate 0.001,
    clipping at norm 1, matrices as PyTorch draws them, forget bias 1; trained on the same fresh seeds."""
)

# %% [markdown]
# ## What came out

# %%
runs = study.results.runs
of_winner = {row.study: row.fresh.split() for row in searches.trials.itertuples() if row.fresh}
side_of: dict[str, str] = {}
for cell in ("RNN", "GRU", "LSTM"):
    for kind in ("usual settings", "searched"):
        for name, keys in of_winner.items():
            own = name.rpartition("/")[2]
            if own.startswith(cell) and own.endswith(USUAL) == (kind == "usual settings"):
                side_of |= {key: f"{cell}, {kind}" for key in keys if key in runs.index}
if not side_of:
    raise ReportError(
        f"no winner of a search has been trained on fresh seeds yet; `{study.command}` continues the search"
    )
task = TemporalOrder(length=int(runs["length"].max()))
here.show(
    figures.comparison(study.results, side_of, {"TemporalOrder": task.chance.error}),
    "tuned_comparison",
    title="Each cell with a search of its own, and with none",
    takeaway="""Compare the two rows of a cell: same fresh seeds, budget and width; the lower row's settings won a
    search for this cell and this length alone.""",
)

# %% [markdown]
# The same fresh seeds on both sides: on how many only one of the two solved the task (McNemar's exact test, p adjusted
# by Holm for the number of tests).

# %%
chosen = runs.loc[list(side_of)].assign(side=pd.Series(side_of), solved=lambda table: figures.true(table["solved"]))
PAIRS = [(f"{cell}, searched", f"{cell}, usual settings") for cell in ("RNN", "GRU", "LSTM")] + [
    ("GRU, searched", "RNN, searched"),
    ("LSTM, searched", "RNN, searched"),
    ("GRU, searched", "LSTM, searched"),
]
rows = []
for length, group in chosen.groupby("length"):
    solved = group.pivot(index="seed", columns="side", values="solved")
    for first, second in PAIRS:
        if {first, second} <= set(solved.columns):
            both = solved[[first, second]].dropna().astype(bool)
            alone, other, p = figures.mcnemar(both[first].to_numpy(), both[second].to_numpy())
            rows.append(
                {"T": length, "first": first, "second": second, "seeds": len(both),
                 "first solves": int(both[first].sum()), "second solves": int(both[second].sum()),
                 "first alone": alone, "second alone": other, "p": p}
            )  # fmt: skip
tests = pd.DataFrame(rows)
tests["p, adjusted"] = figures.holm(tests["p"].tolist())
tests["verdict"] = [
    "cannot tell" if p >= 0.05 else f"{row['first']} more often" if row["first alone"] > row["second alone"] else
    f"{row['second']} more often"
    for p, row in zip(tests["p, adjusted"], rows, strict=True)
]  # fmt: skip
here.table(tests.drop(columns="p"))

# %% [markdown]
# ## The settings that won
#
# *Value*: updates until solved in the search, the median over its seeds; above the budget where the median did not
# solve. *Among the best*: the range of each number over the candidates whose value is at most a tenth above the
# winner's; a wide range means that the search could not tell them apart.

# %%
rows = []
for name, own in searched[searched["value"].notna()].groupby("study", sort=False):
    winner = own.loc[own["value"].idxmin()]
    near = own[own["value"] <= 1.1 * winner["value"]]
    row: dict[str, object] = {"search": name.rpartition("/")[2], "value": winner["value"], "as good": len(near)}
    for number in ("learning_rate", "clip_threshold", "forget_bias"):
        words = number.replace("_", " ")
        missing = pd.isna(winner[number])
        row[words] = "" if missing else f"{winner[number]:.2g}"
        row[f"{words}, among the best"] = "" if missing else f"{near[number].min():.2g} to {near[number].max():.2g}"
    row["start"] = winner["start"]
    keys = of_winner.get(name, [])
    solved = figures.true(runs.loc[[key for key in keys if key in runs.index], "solved"])
    row["solved on fresh seeds"] = f"{int(solved.sum())} of {len(solved)}" if len(solved) else "not trained"
    rows.append(row)
here.table(pd.DataFrame(rows))

# %% [markdown]
# ## The course of the searches

# %%
picture = figures.optimisation_history(searched, value=value)
last = picture.data.groupby("study")["order"].max()
found = picture.data.loc[picture.data.groupby("study")["value"].idxmin()]
late = ", ".join(f"{row.study.rpartition('/')[2]}: {row.order} of {last[row.study]}" for row in found.itertuples())
ties = searched.groupby("study")["value"].apply(lambda values: int((values == values.min()).sum()))
here.show(
    picture,
    "optimisation_history",
    title="Searches, candidate by candidate",
    takeaway=f"""The number of the winning candidate in its search: {late}. A winner near the end means that a longer
    search might find a better one. {int((searched["state"] == "pruned").sum())} of {len(searched)} candidates were
    pruned. As many as {int(ties.max())} candidates share the lowest value of a search.""",
)

# %%
here.show(
    figures.slices(searched, value=value, logarithmic=logarithmic),
    "slices",
    title="Where the good candidates lie",
    takeaway="""Each column is a parameter, each row a search; low is good. A parameter that matters shows a valley; one
    whose points scatter like a cloud matters little within its range.""",
)

# %% [markdown]
# ## What this does not show
#
# One task, one width, one optimiser. A search of this size finds a good setting, not the best; where many candidates
# are about as good, which of them won is chance. The value of a candidate is of few seeds: a winner that solved on all
# of them may fail on fresh ones, and that is why only these are compared.
