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
# an orthogonal W_hh. A candidate is worth the median validation error over seeds that are the same in all searches;
# test sequences are never asked. Each search's winner is trained again on fresh seeds, and only those runs are
# compared: the least value of a search is too good, being the least.

# %%
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
    raise ReportError(f"no winner of a search has been trained on fresh seeds yet; `{study.command}` goes on")
task = TemporalOrder(length=int(lengths[-1]))
picture = figures.tuned_comparison(study.results, chance=task.chance.error, error="test error", keys=fresh)
solved = ", ".join(f"{row.cell} T = {row.length} {row.solved}/{row.runs}" for row in picture.data.itertuples())
here.show(
    picture,
    "tuned_comparison",
    title="Each cell at its own best settings",
    takeaway=f"""
    Runs on fresh seeds that solved the task: {solved}. The settings of each point are those that won a search for
    that cell and that length alone, so that what is left of a difference is not one of tuning within these ranges
    (learning rate, clipping threshold, gain) and this number of updates.
    """,
)

# %% [markdown]
# The settings that won, what they were worth in their search, and what the same settings are worth on fresh seeds.

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
# ## 2. How the searches went

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
    The candidate that won, by its place in its search: {late}. A winner near the end says that a longer search might
    find better ones still. {int((trials["state"] == "pruned").sum())} of {len(trials)} candidates were given up early.
    """,
)

# %%
picture = figures.parameter_importances(searches.importances, trials)
first = picture.data.sort_values("importance").groupby("study").last()
most = ", ".join(f"{name.rpartition('/')[2]}: {row.parameter.replace('_', ' ')}" for name, row in first.iterrows())
here.show(
    picture,
    "parameter_importances",
    title="What decides how good a candidate is",
    takeaway=f"""
    The parameter of the greatest importance: {most}. With so few candidates these shares are rough; the slices below
    show the candidates themselves.
    """,
)

# %%
here.show(
    figures.slices(trials, value=value, logarithmic=logarithmic),
    "slices",
    title="Where the good candidates lie",
    takeaway="""
    Each column is a parameter, each row a search. A parameter that matters shows a valley; one whose points scatter
    like a cloud decides little within its range. A winner at the edge of a range asks for a wider range.
    """,
)

# %%
here.show(
    figures.parallel_coordinates(trials, value=value, logarithmic=logarithmic),
    "parallel_coordinates",
    title="Good candidates as lines",
    takeaway="""
    Lines of good candidates that run together through one point of an axis pin that parameter down; where they spread
    over all of an axis, several settings do as well. All axes have the same range in all panels.
    """,
)
