# ---
# jupyter:
#   rnnstudy:
#     order: 46
#     experiments: [modern_recurrences]
# ---

# %% [markdown]
# # The recurrences of today
#
# Recurrences without a matrix that reads the state (minGRU, LRU, RG-LRU, S6, the heart of Mamba) can be trained in
# parallel over time, and can be started with a gradient that reaches far back. What do they gain by it, and what do
# they give up? Here the family stands beside RNN, GRU and LSTM, at equal parameters and equal tuning.

# %%
import math

import pandas as pd

from rnnstudy import figures
from rnnstudy.report import Notebook
from rnnstudy.results.selection import selection_table
from rnnstudy.tasks import PermutationComposition

here = Notebook("modern_recurrences")
study = here.study()
here.say(study.summary)

# %% [markdown]
# ## What each side was given


# %%
def named(task) -> str:
    """A setting's task in words. Composing the permutations of two items is parity, with one-hot inputs."""
    if isinstance(task, PermutationComposition):
        return "parity" if task.items == 2 else f"permutations of {task.items}"
    kind = type(task).__name__
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in kind).strip()


experiment, scale = study.definition.module, study.scale
side_of = {key: side for key, side in experiment.side_of_keys(scale).items() if key in study.results.runs.index}
sides = pd.Series(side_of, name="side")
reported = study.results.runs[study.results.runs["seed"].isin(list(experiment.REPORT_SEEDS[scale]))]
BY = ["task", "length", "side"]
chosen = selection_table(study.results, BY, experiment.SELECTION_SEEDS[scale], labels=sides.to_frame())
rates = chosen[chosen["chosen"]].set_index(BY)
runs = reported.join(sides).join(rates["learning_rate"].rename("rate"), on=BY)
runs = runs[runs["learning_rate"] == runs["rate"]]
tasks = {(type(task).__name__, task.length): task for task in experiment.tasks(scale)}
place = {setting: number for number, setting in enumerate(tasks)}
names = [side for side in experiment.every_side(3) if side in set(runs["side"])]
order = [(place[row.task, row.length], names.index(row.side)) for row in runs.itertuples()]
runs = runs.assign(order=order).sort_values(["order", "seed"], kind="stable")
keys = list(runs.index)
side_of = {key: runs.loc[key, "side"] for key in sorted(keys, key=lambda key: names.index(runs.loc[key, "side"]))}
shown = list(dict.fromkeys(zip(runs["task"], runs["length"], strict=True)))
words = {setting: named(tasks[setting]) for setting in shown}
called = {setting: f"{words[setting]}, T = {setting[1]}" for setting in shown}
chance = {setting: tasks[setting].chance.error for setting in shown}
panels = {row.Index: words[row.task, row.length] for row in runs.itertuples()}
solving = figures.comparison(
    study.results, side_of, {words[setting]: chance[setting] for setting in shown}, panels=panels, keys=keys
)
sizes = {setting: experiment.sides(tasks[setting], scale) for setting in shown}
numbers = {
    setting: [experiment.parameters(one, tasks[setting]) for one in sizes[setting].values()] for setting in shown
}
every = [number for of in numbers.values() for number in of]
seeds = runs.groupby(BY).size()
here.say(
    f"""Every side has between {min(every):,} and {max(every):,} trained parameters, all of them counted; the width
    follows from that. It has {len(set(chosen["learning_rate"]))} learning rates to choose from, on
    {len(experiment.SELECTION_SEEDS[scale])} seeds; what follows is of {figures.counted(seeds)} on other seeds, at that
    rate. Sequences, optimiser, clipping and the number of updates, {int(runs["training.steps"].max()):,}, are the same.
    Linear recurrences stand in two layers, in the blocks of their papers without convolutions; *LSTM, in blocks* is the
    LSTM in the block of S6. *S6, signed* is S6 with factors between −1 and 1 in place of 0 and 1. *Chrono* biases tell
    the LSTM the length, and are shown beside the same LSTM without them."""
)
rows = []
for setting in shown:
    for side, one in sizes[setting].items():
        around = "" if one.block is None else f"{one.block.norm} norm, {one.block.mix}"
        told = f"{experiment.parameters(one, tasks[setting]):,} ({one.cell.width} wide)"
        rows.append({"side": side, "layers": one.layers, "block": around, "setting": setting, "parameters": told})
wide = pd.DataFrame(rows).pivot(index=["side", "layers", "block"], columns="setting", values="parameters")
wide = wide.reindex(sorted(wide.index, key=lambda row: list(experiment.every_side(3)).index(row[0])))
wide.columns = [called[task, length] for task, length in wide.columns]
here.table(wide[[called[task, length] for task, length in shown]].fillna("").reset_index())

# %% [markdown]
# ## Who solves what
#
# A side *solves* a setting when the Wilson 95 % interval of its share of solved runs lies above one half, and *fails*
# when it lies below; else these runs *cannot tell*.


# %%
def found(solved: pd.Series) -> str:
    """The verdict on one side at one setting."""
    low, high = figures.wilson(int(figures.true(solved).sum()), len(solved))
    return "solves" if low > 0.5 else "fails" if high < 0.5 else "cannot tell"


verdicts = runs.groupby(BY)["solved"].apply(found)


def by_verdict(task: str, length: int, verdict: str) -> str:
    """The sides with this verdict at one setting."""
    own = verdicts.xs((task, length), level=("task", "length"))
    return ", ".join(side for side in names if own.get(side) == verdict) or "no side"


told = "; ".join(f"*{called[task, length]}*: {by_verdict(task, length, 'solves')}" for task, length in shown)
READS_ITS_STATE = ("RNN, orthogonal", "GRU, forget bias 1", "LSTM, forget bias 1", "LSTM, chrono", "LSTM, in blocks")
linear = [side for side in names if side not in READS_ITS_STATE]
solved_by_linear = []
for setting in shown:
    own = verdicts.xs(setting, level=("task", "length"))
    if set(linear) & set(own.index):
        solvers = [side for side in linear if own.get(side) == "solves"]
        solved_by_linear.append(f"{' and '.join(solvers) or 'none'} {words[setting]}")
here.show(
    solving,
    "comparison",
    title=f"Of the linear recurrences these solve: {'; '.join(solved_by_linear)}",
    takeaway=f"""Sides that solve a setting: {told}. Rows from the RNN to the LSTM in blocks read their state at every
    step; below them stand the linear recurrences, which do not. Where there is no tile a side was not trained.""",
)

# %% [markdown]
# ## Want of expressivity: parity and permutations
#
# Every bit, every permutation changes the answer at all later steps. A state that is only ever shrunk, kept and added
# to cannot change its sign when a one is read, whatever its gradient. A network can still learn by heart what a count
# of ones means, up to the length it was trained at; so it is tested at two and four times that length. At another
# length a side *stays right* when the error of every run is nearer to 0 than to chance, and *is lost* when every run is
# nearer to chance.

# %%
tracking = [setting for setting in shown if setting[0] in experiment.STATE_TRACKING]
errors = runs.loc[[task in experiment.STATE_TRACKING for task in runs["task"]], ["task", "length", "side"]]
longer = {}
if len(errors):
    found_errors = study.results.readings("generalisation/error", keys=errors.index).dropna(subset=["value"])
    for (task, length), own in errors.groupby(["task", "length"]):
        part = found_errors[found_errors["key"].astype(str).isin(own.index)]
        for at, values in part.groupby("length", observed=True):
            longer[task, length, round(at / length)] = pd.Series(
                values["value"].to_numpy(float), index=values["key"].astype(str)
            )


def error_at(task: str, length: int, factor: int) -> pd.Series:
    """The error of each run of a setting at `factor` times its length; that of chance where it diverged."""
    own = runs[(runs["task"] == task) & (runs["length"] == length)]
    values = own["error"].astype(float) if factor == 1 else longer.get((task, length, factor), pd.Series(dtype=float))
    return values.reindex(own.index).fillna(chance[task, length])


def nearer(task: str, length: int, factor: int, side: str) -> str:
    """Whether the runs of a side stay right at `factor` times the length of training."""
    own = runs[(runs["task"] == task) & (runs["length"] == length) & (runs["side"] == side)]
    values = error_at(task, length, factor).reindex(own.index)
    if not len(values):
        return "not run"
    right = values < chance[task, length] / 2
    return "stays right" if right.all() else "is lost" if not right.any() else "cannot tell"


rows = []
for task, length in tracking:
    for side in [side for side in names if side in sizes[task, length]]:
        own = runs[(runs["task"] == task) & (runs["length"] == length) & (runs["side"] == side)]
        row = {"task": called[task, length], "side": side}
        for factor in (1, 2, 4):
            values = error_at(task, length, factor).reindex(own.index)
            spread = f"{values.median():.2f} [{values.min():.2f}, {values.max():.2f}]" if len(values) else "not run"
            row[f"error at T = {length}" if factor == 1 else f"at {factor} T"] = spread
        rows.append({**row, "at 4 T": row["at 4 T"], "verdict at 4 T": nearer(task, length, 4, side)})
for task, length in tracking:
    here.say(
        f"**{words[task, length].capitalize()}**, median and range of the runs; guessing: {chance[task, length]:.2f}."
    )
    own = [row for row in rows if row["task"] == called[task, length]]
    here.table(pd.DataFrame(own).drop(columns="task"))

# %% [markdown]
# ## Not for want of gradient
#
# The gradient of the last step's loss with respect to the state of the lowest layer, at the first step relative to the
# last one, before training; beside it the error at four times the length.


# %%
def memory(side: str, cell: str, layers: int) -> str:
    """The state that carries the memory, in the lowest layer."""
    state = {"LSTM": "c", "SRU": "c", "LRU": "s", "S4D": "s", "S6": "s", "SignedS6": "s"}.get(cell, "h")
    return state if layers == 1 else f"{state}_layer1"


states = {row.side: memory(row.side, row.cell, row.layers) for row in runs.itertuples()}


def at_first_step(own: pd.DataFrame, stage: str) -> pd.Series:
    """log10 of the gradient at the first step, relative to the last one: the median over sequences of each run."""
    parts = []
    for side, group in own.groupby("side"):
        name = f"profile/{states[side]}_{stage}_normalised"
        frame = study.results.readings(name, quantile=0.5, keys=group.index).dropna(subset=["value"])
        frame = frame[frame["lag"] == group["length"].iloc[0] - 1]
        parts.append(pd.Series(frame["value"].to_numpy(float), index=frame["key"].astype(str)))
    return pd.concat(parts).reindex(own.index)


pictured = {}
for task, length in tracking:
    own = runs[(runs["task"] == task) & (runs["length"] == length)]
    measured = pd.DataFrame({"gradient": at_first_step(own, "initial"), "error": error_at(task, length, 4)})
    pictured[task, length] = measured.assign(side=own["side"])
if tracking:
    task, length = tracking[0]
    measured = pictured[task, length]
    panels = [
        figures.DotPanel("gradient", "does the gradient reach the first step?", "log₁₀, relative to the last step"),
        figures.DotPanel(
            "error", f"{words[task, length]} at T = {4 * length}", "share of steps wrong", chance[task, length]
        ),
    ]
    tracked = {key: side for key, side in side_of.items() if key in measured.index}
    if len(tracking) > 1:
        other, longest = tracking[1]
        beside = pictured[other, longest]
        panels.append(figures.DotPanel("other", f"{words[other, longest]} at T = {4 * longest}", "share of steps wrong",
                                       chance[other, longest]))  # fmt: skip
        # A run of the other task stands in the row of its side, in a panel of its own.
        measured = pd.concat([measured, beside[["error", "side"]].rename(columns={"error": "other"})])
        tracked |= {key: side for key, side in side_of.items() if key in beside.index}
    median = pictured[task, length].groupby("side")["gradient"].median()
    lost = [side for side in names if nearer(task, length, 4, side) == "is lost"]
    reaching = [side for side in lost if median.get(side, -math.inf) > -1]
    kinds = {side: "reads its state" if side in READS_ITS_STATE else "linear recurrence" for side in names}
    right = [side for side in names if nearer(task, length, 4, side) == "stays right"]
    less = [side for side in right if median.get(side, math.inf) < min((median[one] for one in reaching), default=0)]
    here.show(
        figures.dots_by_side(measured, tracked, panels, kinds),
        "gradient_and_error",
        title=f"{words[task, length].capitalize()} at four times the length: " + (
            f"{len(reaching)} sides are lost although the gradient arrives"
            if reaching
            else "no side is lost whose gradient arrives"
        ),
        takeaway=f"""Left: how much of the gradient is left at the first of {length} steps before training. Lost at four
        times the length of {words[task, length]} are {", ".join(lost) or "no sides"}; of these,
        {", ".join(reaching) or "none"} begin with a gradient that loses less than one decade on its way. It stays
        right with less gradient than any of them: {", ".join(less) or "no side"}. *S6, signed* differs from S6 in
        nothing but the range of its factors.""",
    )  # fmt: skip

# %% [markdown]
# ## Want of gradient: temporal order
#
# The two marks stand in the second and the sixth tenth of the sequence; all that is asked is to keep them.

# %%
far = [setting for setting in shown if setting[0] == "TemporalOrder"]
contrary = ""
for task, length in far:
    own = runs[(runs["task"] == task) & (runs["length"] == length)]
    first = at_first_step(own, "initial").groupby(own["side"]).median()
    told = "; ".join(f"{side} {first[side]:.1f}" for side in names if side in first and math.isfinite(first[side]))
    of_sides = verdicts.xs((task, length), level=("task", "length"))
    solvers, failing = ([one for one in first.index if of_sides[one] == came] for came in ("solves", "fails"))
    crossed = [(one, other) for one in solvers for other in failing if first[one] < first[other]]
    contrary = "; ".join(
        f"{one} solves it with less gradient than {' and '.join(other for solver, other in crossed if solver == one)}, "
        "which fail"
        for one in dict.fromkeys(solver for solver, _ in crossed)
    )
    here.show(
        figures.gradient_of_sides(study.results, side_of, states, keys=list(own.index)),
        f"gradient_{task}_{length}",
        title=f"{words[task, length].capitalize()}, T = {length}: the gradient before training "
        + ("does not tell who solves it" if crossed else "is larger in all that solve it"),
        takeaway=f"""Decades left at the first step before training (medians over the runs): {told}. Solved by:
        {by_verdict(task, length, "solves")}; failed by: {by_verdict(task, length, "fails")}. {
            contrary + "." if contrary else ""
        } The two LSTMs differ in the start of their biases alone.""",
    )

# %% [markdown]
# ## What became of the hypothesis


# %%
CLASSIC = ("GRU, forget bias 1", "LSTM, forget bias 1")
GATED = ("minGRU", "minLSTM", "SRU", "RG-LRU", "S6")
LINEAR = (*GATED, "LRU")
STATE_TRACKING = ("parity", "permutations of 3")
parts = {
    "1. Selective copying needs factors that depend on the input": {
        "selective copying": {"solves": (*CLASSIC, *GATED), "fails": ("LRU",)}
    },
    "2. State tracking fails for want of expressivity": {
        "parity": {"is lost": LINEAR, "solves": (*CLASSIC, "S6, signed")},
        "permutations of 3": {"is lost": LINEAR, "solves": CLASSIC, "fails": ("S6, signed",)},
    },
    "3. Temporal order fails for want of gradient": {
        "temporal order": {"solves": ("LRU", "RG-LRU", "LSTM, chrono"), "fails": ("LSTM, forget bias 1", "minGRU")}
    },
}
for part, expectations in parts.items():
    rows, absent = [], []
    for task, by_outcome in expectations.items():
        for expected, of_sides in by_outcome.items():
            for side in of_sides:
                settings = [one for one in shown if words[one] == task and side in sizes[one]]
                absent += [] if settings else [f"{side} at {task}"]
                for setting in settings:
                    at_length = expected in ("stays right", "is lost")
                    came = nearer(*setting, 4, side) if at_length else verdicts[(*setting, side)]
                    outcome = "as expected" if came == expected else "refuted" if came != "cannot tell" else came
                    rows.append({"side": side, "setting": called[setting], "expected": expected, "came": came,
                                 "hypothesis": outcome})  # fmt: skip
    if not rows:
        continue
    table = pd.DataFrame(rows)
    count = table["hypothesis"].value_counts()
    against = table[table["hypothesis"] == "refuted"]
    here.say(
        f"""**{part}**: {count.get("as expected", 0)} of {len(table)} as expected, {count.get("cannot tell", 0)} cannot
        be told; {
            "**refuted** by " + "; ".join(f"{row.side}, {row.setting} ({row.came})" for row in against.itertuples())
            if len(against)
            else "not refuted"
        }.{f" The reason is not borne out: {contrary}." if contrary and "for want of gradient" in part else ""}{
            f" Not trained at this scale: {', '.join(absent)}." if absent else ""
        }"""
    )
    here.table(table)

# %% [markdown]
# Two parts compare sides. *Its gradient reaches further*: before training, the gradient left at the first step is
# larger in every run of the one than in every run of the other. *Solves the most*: exact McNemar tests on the paired
# seeds, adjusted for their number (Holm); one side leads where the adjusted p is below 0.05.

# %%
rows = []
for task, length in tracking:
    own = pictured[task, length]
    against = own.loc[own["side"] == "LSTM, forget bias 1", "gradient"].fillna(-math.inf)
    for side in ("RG-LRU", "LRU", "S6"):
        values = own.loc[own["side"] == side, "gradient"].fillna(-math.inf)
        if len(values) and len(against):
            further, shorter = values.min() > against.max(), values.max() < against.min()
            came = "reaches further" if further else "reaches less far" if shorter else "cannot tell"
            rows.append({"setting": called[task, length], "side": side, "than": "LSTM, forget bias 1",
                         "left at the first step (decades)": f"{values.median():.1f} against {against.median():.1f}",
                         "before training": came})  # fmt: skip
if rows:
    here.table(pd.DataFrame(rows))
recalled = [setting for setting in shown if setting[0] == "AssociativeRecall"]
rows = []
for task, length in recalled:
    own = runs[(runs["task"] == task) & (runs["length"] == length)]
    solved = own.pivot(index="seed", columns="side", values="solved").apply(figures.true)
    rivals = [side for side in ("minGRU", "minLSTM", "SRU", "RG-LRU", "LRU") if side in solved and "S6" in solved]
    tests = [figures.mcnemar(solved["S6"].to_numpy(), solved[side].to_numpy()) for side in rivals]
    for side, (one, other, _), p in zip(rivals, tests, figures.holm([test[2] for test in tests]), strict=True):
        leads = "cannot tell" if p >= 0.05 else "S6" if one > other else side
        errors_of = own.groupby("side")["error"].median()
        rows.append({"setting": called[task, length], "side": side, "S6 alone solved": one,
                     "side alone solved": other, "p, adjusted": f"{p:.2g}", "leads": leads,
                     "median error": f"{errors_of[side]:.2f}; S6 {errors_of['S6']:.2f}"})  # fmt: skip
if rows:
    here.table(pd.DataFrame(rows))

# %% [markdown]
# ## Was the tuning enough?
#
# A choice at the lowest or highest rate that was tried is marked: a better one may lie outside. Where many runs solve
# late, or none does, more updates might change the result.

# %%
table = rates.reset_index()
table = table[[each in shown for each in zip(table["task"], table["length"], strict=True)]]
table["setting"] = [called[row.task, row.length] for row in table.itertuples()]
table["rate"] = [f"{row.learning_rate:g}{' (edge)' if row.at_edge else ''}" for row in table.itertuples()]
wide = table.pivot(index="side", columns="setting", values="rate").reindex(names).rename_axis(columns=None)
here.table(wide[[called[task, length] for task, length in shown]].fillna("").reset_index())
here.say(f"{int(table['at_edge'].sum())} of {len(table)} choices lie at an edge of the grid.")
rows = []
for task, length in shown:
    own = runs[(runs["task"] == task) & (runs["length"] == length)]
    steps, budget = own["steps_to_solve"], own["training.steps"]
    rows.append(
        {"setting": called[task, length], "runs": len(own), "solved in validation": int(steps.notna().sum()),
         "of these in the last third": int((steps > 2 / 3 * budget).sum()),
         "solved on the test sequences": int(figures.true(own["solved"]).sum()),
         "diverged": int((own["status"] == "diverged").sum())}
    )  # fmt: skip
here.table(pd.DataFrame(rows))

# %% [markdown]
# ## What this does not show
#
# Networks of a few thousand parameters, short sequences, one optimiser and a small budget: a side that fails here might
# solve the task with more of any of them. Equal parameters are not an equal state: S6 has several numbers of state for
# each of its units. Blocks, two layers and the recurrence change together, and the published convolutions are left out.
# That state tracking fails at other lengths is what theory says of factors that are fixed, or lie between 0 and 1
# (Grazzi et al. 2025; Merrill et al. 2024); that a network was lost does not prove it, and one that stayed right at
# four times its length might be lost further on. The rate is chosen on few seeds.
