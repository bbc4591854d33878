# ---
# jupyter:
#   rnnstudy:
#     order: 40
#     experiments: [sequence_length]
# ---

# %% [markdown]
# # What the gradient's fate means for learning
#
# The same runs as in the first report, judged by what they learned: which share of them solves temporal order at each
# length, and after how many updates.

# %%
from rnnstudy import figures
from rnnstudy.notebook import Notebook
from rnnstudy.tasks.temporal_order import TemporalOrder

here = Notebook("success_by_length")
study = here.study("sequence_length")
here.say(study.words)

# %%
results = study.results
best = figures.best_by_validation(results)
task = TemporalOrder(length=int(results.runs["length"].max()))
here.say(
    f"*Solved* means the published criterion, judged once on fresh test sequences: {task.criterion.words}. Guessing "
    f"gets an error of {task.chance.error:.3g} and solves nothing. For each cell and length the learning rate was "
    "chosen by validation alone; a diverged run counts as unsolved."
)

# %% [markdown]
# ## How often

# %%
picture = figures.success_by_length(
    results, chance=task.chance.error, error=f"test:\n{task.criterion.error}", keys=best
)
table = picture.data


def counts(cell: str) -> str:
    """Solved of all, length by length."""
    rows = table[table["cell"] == cell].sort_values("length")
    return ", ".join(f"{row.solved} of {row.runs} at T = {row.length}" for row in rows.itertuples())


here.show(
    picture,
    "success_by_length",
    title="The longer the sequence, the fewer RNNs solve it; gated cells go on",
    see=f"""
    Left, read the points from short to long sequences. The RNN solves {counts("Elman")}; the LSTM {counts("LSTM")}; the
    GRU {counts("GRU")}. The bars are Wilson 95 % intervals: where two of them hardly overlap, the cells differ by more
    than luck. Right, every run's own error: a run on the dashed line has learned nothing, one half-way down has found
    the later mark alone, one at zero has found both. All cells had the same width, the same sequences and the same
    learning rates.""",
)

# %% [markdown]
# ## How soon

# %%
picture = figures.time_to_solve(results, keys=best)
solved = results.runs.loc[best]
typical = solved.groupby(["cell", "length"])["steps_to_solve"].median()


def times(cell: str) -> str:
    """Median updates of those that solved, length by length."""
    known = typical[cell].dropna().sort_index() if cell in typical.index.get_level_values(0) else []
    return ", ".join(f"{int(value)} at T = {length}" for length, value in known.items()) if len(known) else "none"


here.show(
    picture,
    "time_to_solve",
    title="Gated cells solve the task sooner, and the gap widens with the length",
    see=f"""
    Each curve begins at 1, all runs unsolved, and steps down whenever one of them solves the task; a curve that stays
    up and ends in a tick holds runs that never did within the budget. Such runs are censored, not left out: leaving
    them out would make the slow cell look fast. Medians of those that did solve it, in updates: RNN {times("Elman")};
    LSTM {times("LSTM")}; GRU {times("GRU")}. The drop is sudden: a run stays at its plateau until the gradient from
    the first mark is found, and is then done within few updates.""",
)

# %% [markdown]
# ## Every setting
#
# How each learning rate did in validation, and which one was chosen.

# %%
settings = figures.validation_table(results)
here.table(settings.assign(chosen=settings["chosen"].map({True: "chosen", False: ""})))
