# ---
# jupyter:
#   rnnstudy:
#     order: 55
#     experiments: [tuned_comparison, untuned_comparison]
# ---

# %% [markdown]
# # Each cell at its own best settings, and what the search was worth
#
# A vanilla RNN that fails with the settings of an LSTM may only be badly tuned. Here each cell has, at each length, a
# search of its own, and beside its winner stand the settings that one would take without a search.

# %%
import pandas as pd

from rnnstudy import figures
from rnnstudy.report import Notebook, ReportError
from rnnstudy.results.results import Results

here = Notebook("tuned_comparison")
study, untuned = here.study(), here.study("untuned_comparison")
searches = here.searches()
CELLS = {"Elman": "RNN", "LSTM": "LSTM", "GRU": "GRU"}
# `tuned_comparison/desk/elman-T100` is named as in the figures, and stands after T = 50.
parts = searches.trials["study"].str.rpartition("/")[2].str.split("-T", expand=True)
cell = parts[0].map({name.lower(): words for name, words in CELLS.items()})
trials = searches.trials.assign(study=cell + ", T = " + parts[1], cell=cell, length=parts[1].astype(int))
trials["place"] = trials["cell"].map(list(CELLS.values()).index)
trials = trials.sort_values(["place", "length", "trial"]).drop(columns=["cell", "length", "place"])
value = "updates to solve, or more"
logarithmic = ("learning_rate", "clip_threshold")
here.say(study.summary)
here.say(untuned.summary)

# %% [markdown]
# ## What was done
#
# Temporal order at each length; one study (Optuna's tree-structured Parzen estimator) for each cell and length, with a
# sampler seed of its own and the same number of candidates, seeds and updates for all. The space: learning rate,
# clipping threshold, the recurrent matrix at the start (as PyTorch draws it, orthogonal times a gain, and for the
# vanilla RNN the identity), and for gated cells the forget gate's bias. The value of a candidate is the number of
# updates until it solved the task, the median over three seeds that are the same in all studies; where it did not
# solve it, its budget and more, by how large its validation error is, so that no two candidates tie at zero. Test
# sequences are not used. The winner of each study was trained again on fresh seeds, which no search has used. *Untuned*
# is learning rate 0.001, clipping at norm 1, PyTorch's matrices, and a forget bias of 1, on the same fresh seeds. The
# lowest value of a search is too optimistic, because it was selected as the lowest: only fresh seeds are compared.

# %%
fresh = [key for key in searches.fresh_keys if key in study.results.runs.index]
if not fresh:
    raise ReportError(
        f"no winner of a search has been trained on fresh seeds yet; `{study.command}` continues the search"
    )
winners = trials[trials["fresh"] != ""].set_index("study")
at_best = [run for run in study.results.per_run if run.header["key"] in set(fresh)]
both = Results([*at_best, *(run for run in untuned.results.per_run if run.header["key"] not in set(fresh))])
runs = both.runs
tuned = set(fresh)
side_of = {
    key: f"{words}, {kind}"
    for cell, words in CELLS.items()
    for kind in ("untuned", "tuned")
    for key in runs.index
    if runs.loc[key, "cell"] == cell and (key in tuned) == (kind == "tuned")
}
tasks = {run.task for run in untuned.definition.runs(untuned.scale)}
chance = {type(task).__name__: task.chance.error for task in tasks}
runs = runs.assign(side=pd.Series(side_of), solved=figures.true(runs["solved"]))
groups = runs.groupby(["length", "side"], sort=False)["solved"]
counts = {setting: (int(solved.sum()), len(solved)) for setting, solved in groups}


def told(length: int, kind: str) -> str:
    """How many runs of each cell solved this length."""
    shares = [
        (words, counts[length, f"{words}, {kind}"])
        for words in CELLS.values()
        if (length, f"{words}, {kind}") in counts
    ]
    return ", ".join(f"{words} {solved} of {count}" for words, (solved, count) in shares)


lengths = sorted(runs["length"].unique())
here.show(
    figures.comparison(both, side_of, chance),
    "tuned_comparison",
    title="Each cell at its own best settings, and without a search",
    takeaway=" ".join(
        f"T = {length}: untuned {told(length, 'untuned')}; tuned {told(length, 'tuned')}." for length in lengths
    )
    + " On seeds that no search has seen.",
)

# %% [markdown]
# ## Which of these differences are more than chance?
#
# On how many seeds only one of two sides solved the task; p by McNemar's exact test, adjusted by Holm for all tests of
# this table. A side *leads* where the adjusted p is below 0.05, else these runs *cannot tell*.

# %%
pairs = [(f"{words}, tuned", f"{words}, untuned") for words in CELLS.values()]
pairs += [("LSTM, tuned", "RNN, tuned"), ("GRU, tuned", "RNN, tuned"), ("GRU, tuned", "LSTM, tuned")]
rows = []
for length in lengths:
    solved = runs[runs["length"] == length].pivot(index="seed", columns="side", values="solved")
    for first, second in pairs:
        if {first, second} <= set(solved.columns):
            seeds = solved[[first, second]].dropna().astype(bool)
            one, other, p = figures.mcnemar(seeds[first].to_numpy(), seeds[second].to_numpy())
            rows.append(
                {"T": length, "first": first, "second": second, "seeds": len(seeds), "first alone": one,
                 "second alone": other, "p": p}
            )  # fmt: skip
tests = pd.DataFrame(rows, columns=["T", "first", "second", "seeds", "first alone", "second alone", "p"])
tests["p, adjusted"] = figures.holm(tests["p"].tolist())
tests["leads"] = [
    "cannot tell"
    if row["p, adjusted"] >= 0.05
    else row["first"]
    if row["first alone"] > row["second alone"]
    else row["second"]
    for _, row in tests.iterrows()
]
here.table(tests)


# %%
def verdict(first: str, second: str) -> str:
    """At which lengths which of two sides leads."""
    own = tests[(tests["first"] == first) & (tests["second"] == second)]
    by = {name: ", ".join(str(length) for length in rows["T"]) for name, rows in own.groupby("leads", sort=False)}
    return (
        "; ".join(
            f"cannot tell at T = {at}" if name == "cannot tell" else f"*{name}* leads at T = {at}"
            for name, at in by.items()
        )
        or "not run"
    )


here.say(
    f"""**What became of the hypothesis.** That the RNN gains from a search: {verdict("RNN, tuned", "RNN, untuned")}.
    What a search gave the others: LSTM: {verdict("LSTM, tuned", "LSTM, untuned")}; GRU:
    {verdict("GRU, tuned", "GRU, untuned")}. That the gated cells still lead at the longer length (T = {lengths[-1]} is
    the longest): LSTM against RNN: {verdict("LSTM, tuned", "RNN, tuned")}; GRU against RNN:
    {verdict("GRU, tuned", "RNN, tuned")}."""
)

# %% [markdown]
# ## The settings that won
#
# Their value in the search, and their results on fresh seeds. *Candidates that solved*: of all candidates of the study,
# how many solved the task on the median seed: how hard it is to find settings that do.

# %%
budget = int(runs["training.steps"].max())
settings = [name for name in trials.columns if name not in ("study", "trial", "state", "value", "keys", "fresh")]
of_winner = {
    name: study.results.runs.loc[[key for key in keys.split() if key in study.results.runs.index]]
    for name, keys in winners["fresh"].items()
}
table = winners[settings].assign(
    updates_in_the_search=winners["value"],
    solved_on_fresh_seeds=[
        f"{int(figures.true(of_winner[name]['solved']).sum())} of {len(of_winner[name])}" for name in winners.index
    ],
    candidates_that_solved=[
        f"{int((own['value'] < budget).sum())} of {len(own)}"
        for name in winners.index
        for own in [trials[trials["study"] == name]]
    ],
)
here.table(table.rename_axis("search").reset_index())
ties = trials.groupby("study", sort=False)["value"].agg(lambda values: int((values == values.min()).sum()))
unsolved = [name for name, row in winners.iterrows() if row["value"] > budget]
tied = "; ".join(f"{name}: {count}" for name, count in ties.items() if count > 1 and name not in unsolved)
here.say(
    (
        f"Of these searches no candidate solved the task: {'; '.join(unsolved)}. Their winner only has the lowest "
        "error, near chance. "
        if unsolved
        else ""
    )
    + (
        f"Candidates that share the lowest value, because validation comes every "
        f"{int(runs['training.check_every'].min())} updates: {tied}. Among them the first one won."
        if tied
        else ""
    )
)

# %% [markdown]
# ## The course of the searches

# %%
picture = figures.optimisation_history(trials, value=value)
last = picture.data.groupby("study")["order"].max()
found = picture.data.loc[picture.data.groupby("study")["value"].idxmin()]
late = "; ".join(f"{row.study}: {row.order} of {last[row.study]}" for row in found.itertuples())
here.show(
    picture,
    "optimisation_history",
    title="Searches, candidate by candidate",
    takeaway=f"""
    The number of the winning candidate in its search: {late}. The first ten candidates of each are drawn at random. A
    winner near the end means that a longer search might find a better one.
    """,
)

# %%
here.show(
    figures.slices(trials, value=value, logarithmic=logarithmic),
    "slices",
    title="Where the good candidates lie",
    takeaway=f"""
    Each column is a setting, each row a search; low is good, and what lies above {budget} did not solve the task. A
    setting that matters shows a valley; one whose points scatter matters little within its range. A winner at the edge
    of a range means that the range should be wider.
    """,
)

# %% [markdown]
# ## What this does not show
#
# One task, one width for all cells, one optimiser. A winner is the best of a few dozen candidates on three seeds: the
# next search may find another. Candidates are compared by how soon they solve the task within this budget; another
# budget, or the final error, may prefer others: with twice the updates a vanilla RNN that starts from the identity does
# solve T = 100 in most runs ([fair comparison](fair_comparison.ipynb)). The gated cells have one setting more to
# search, and as many candidates.
