# ---
# jupyter:
#   rnnstudy:
#     order: 55
#     experiments: [tuned_comparison]
# ---

# %% [markdown]
# # Each cell at its own best settings
#
# A vanilla RNN that fails with the settings of an LSTM may only be badly tuned. Here each cell has, at each length, a
# search of its own (Optuna's tree-structured Parzen estimator) over learning rate, clipping threshold and the gain of
# an orthogonal W_hh. The value of a candidate is the median validation error over seeds that are the same in all
# searches; test sequences are not used. The winner of each search is trained again on fresh seeds, which no search has
# used, and only those runs are compared: the lowest value of a search is too optimistic, because it was selected as the
# lowest. With 12 candidates or fewer these searches do not search yet: the estimator draws its first ten at random, and
# the same ones in every study; and the objective, the error, cannot tell two candidates that both reach zero apart.

# %%
from dataclasses import replace

from rnnstudy import figures
from rnnstudy.report import Notebook, ReportError
from rnnstudy.tasks import TemporalOrder

here = Notebook("tuned_comparison")
study = here.study()
searches = here.searches()
trials = searches.trials
value = "validation error"
logarithmic = ("learning_rate", "clip_threshold")
here.say(study.summary)

# %% [markdown]
# ## 1. The comparison

# %%
runs = study.results.runs
lengths = sorted(runs["length"].unique())
fresh = [key for key in searches.fresh_keys if key in runs.index]
if not fresh:
    raise ReportError(
        f"no winner of a search has been trained on fresh seeds yet; `{study.command}` continues the search"
    )
task = TemporalOrder(length=int(lengths[-1]))
picture = figures.success(study.results, chance=task.chance.error, error_interval=True, keys=fresh)
about = "Each cell at the settings that won its own search at that length, on seeds that the search has not seen."
picture = replace(picture, caption=f"{about} {picture.caption}")
solved = ", ".join(f"{row.cell} T = {row.length} {row.solved}/{row.runs}" for row in picture.data.itertuples())
here.show(
    picture,
    "tuned_comparison",
    title="Each cell at its own best settings",
    takeaway=f"""
    Runs on fresh seeds that solved the task: {solved}. The settings of each point won a search for this cell and this
    length alone, so a difference that remains is not due to tuning within these ranges (learning rate, clipping
    threshold, gain) and this number of updates.
    """,
)

# %% [markdown]
# The settings that won, their value in the search, and their results on fresh seeds.

# %%
winners = trials[trials["fresh"] != ""].set_index("study")
of_winner = {
    name: runs.loc[[key for key in keys.split() if key in runs.index]] for name, keys in winners["fresh"].items()
}
table = winners[["learning_rate", "clip_threshold", "gain"]].assign(
    validation_error_in_the_search=winners["value"],
    median_test_error_on_fresh_seeds=[float(of_winner[name]["error"].median()) for name in winners.index],
    solved=[f"{of_winner[name]['solved'].eq(True).sum()} of {len(of_winner[name])}" for name in winners.index],
)
here.table(table.reset_index())

# %% [markdown]
# ## 2. The course of the searches

# %%
picture = figures.optimisation_history(trials, value=value)
last = picture.data.groupby("study")["order"].max()
found = picture.data.loc[picture.data.groupby("study")["value"].idxmin()]
late = ", ".join(f"{row.study.rpartition('/')[2]} {row.order} of {last[row.study]}" for row in found.itertuples())
here.show(
    picture,
    "optimisation_history",
    title="Searches, candidate by candidate",
    takeaway=f"""
    The number of the winning candidate in its search: {late}. A winner near the end means that a longer search might
    find a better candidate. {int((trials["state"] == "pruned").sum())} of {len(trials)} candidates were pruned.
    """,
)

# %%
picture = figures.parameter_importances(searches.importances, trials)
first = picture.data.sort_values("importance").groupby("study").last()
most = ", ".join(f"{name.rpartition('/')[2]}: {row.parameter.replace('_', ' ')}" for name, row in first.iterrows())
here.show(
    picture,
    "parameter_importances",
    title="Which parameter matters most",
    takeaway=f"""
    The parameter with the greatest importance: {most}. With so few candidates these shares are rough estimates; the
    slices below show the candidates themselves.
    """,
)

# %%
here.show(
    figures.slices(trials, value=value, logarithmic=logarithmic),
    "slices",
    title="Where the good candidates lie",
    takeaway="""
    Each column is a parameter, each row a search. A parameter that matters shows a valley; a parameter whose points
    scatter like a cloud matters little within its range. A winner at the edge of a range means that the range should be
    wider.
    """,
)

# %%
here.show(
    figures.parallel_coordinates(trials, value=value, logarithmic=logarithmic),
    "parallel_coordinates",
    title="Good candidates as lines",
    takeaway="""
    Where the lines of good candidates meet near one point of an axis, that parameter matters and its best value is
    known; where they spread over the whole axis, many values are equally good. All axes have the same range in all
    panels.
    """,
)
