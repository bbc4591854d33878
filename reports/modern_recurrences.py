# ---
# jupyter:
#   rnnstudy:
#     order: 46
#     experiments: [modern_recurrences]
# ---

# %% [markdown]
# # The recurrences of today
#
# In a linear recurrence (minGRU, LRU, RG-LRU, S6, the heart of Mamba) neither the factor by which the state is
# multiplied nor what is added to it depends on the state. Such recurrences can be trained in parallel over time, and
# some of them start with a gradient that reaches far back. What do they give up for it? Here they stand beside RNN, GRU
# and LSTM, at equal parameters and equal tuning. What they gain in time is not measured here.

# %%
import math

import pandas as pd

from rnnstudy import figures
from rnnstudy.report import Notebook
from rnnstudy.results.selection import selection_table
from rnnstudy.spec import RequestError
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


def runs_at(task: str, length: int, side: str | None = None) -> pd.DataFrame:
    """The runs of a setting, of one side or of all."""
    own = runs[(runs["task"] == task) & (runs["length"] == length)]
    return own if side is None else own[own["side"] == side]


words = {setting: named(tasks[setting]) for setting in shown}
called = {setting: f"{words[setting]}, T = {setting[1]}" for setting in shown}
chance = {setting: tasks[setting].chance.error for setting in shown}
panels = {row.Index: words[row.task, row.length] for row in runs.itertuples()}
solving = figures.comparison(
    study.results, side_of, {words[setting]: chance[setting] for setting in shown}, panels=panels, keys=keys
)
sizes = {setting: experiment.sides(tasks[setting], scale) for setting in shown}
present = {setting: set(runs_at(*setting)["side"]) for setting in shown}
numbers = {
    setting: [experiment.parameters(one, tasks[setting]) for one in sizes[setting].values()] for setting in shown
}
every = [number for of in numbers.values() for number in of]
seeds = runs.groupby(BY).size()
by_steps = {}
for setting in shown:
    by_steps.setdefault(int(runs_at(*setting)["training.steps"].iloc[0]), []).append(setting)
updates = "; ".join(
    f"{steps:,}" + (f" at {', '.join(words[setting] for setting in of)}" if len(by_steps) > 1 else "")
    for steps, of in by_steps.items()
)
here.say(
    f"""Every side has between {min(every):,} and {max(every):,} trained parameters, all of them counted; the width
    follows from that. It has {len(set(chosen["learning_rate"]))} learning rates to choose from, on
    {len(experiment.SELECTION_SEEDS[scale])} seeds; what follows is of {figures.counted(seeds)} on other seeds, at that
    rate. Sequences, optimiser, clipping and the largest number of updates ({updates}) are the same; a run ends when its
    task is solved. Linear recurrences stand in two layers, in the blocks of their papers without convolutions; *LSTM,
    in blocks* is the LSTM in the block of S6. *S6, signed* is S6 with factors between −1 and 1 in place of 0 and 1.
    *Chrono* biases tell the LSTM the length, and are shown beside the same LSTM without them. Sizes and updates were
    set with a few runs of another seed, in which GRU and LSTM solved parity, permutations and selective copying, and
    minGRU none of them: a choice that favours GRU and LSTM. The inputs of parity were made one-hot after first runs had
    shown that a gated block without biases cannot see a 0. Of minLSTM, S4D and the LSTM in blocks, and at permutations
    of three items, only some are trained at this scale: they take long, or others tell as much; that was decided when
    the first runs had shown what training takes. Associative recall, minLSTM, S4D and the linear recurrences at
    temporal order were added last, when the other results had been read, the hypothesis unchanged; recall has a size
    that GRU, LSTM and SRU solved in single runs of another seed (the experiment's docstring tells all of this)."""
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
# A side *solves* a setting when the Wilson 95 % interval of its share of solved runs lies above one half (here 9 or 10
# of 10 runs), and *fails* when it lies below (0 or 1 of 10); else these runs *cannot tell*. To fail is to miss the
# criterion within the updates, which at selective copying leaves room for almost all symbols right; the table of
# errors says how much.


# %%
def found(solved: pd.Series) -> str:
    """The verdict on one side at one setting."""
    low, high = figures.wilson(int(figures.true(solved).sum()), len(solved))
    return "solves" if low > 0.5 else "fails" if high < 0.5 else "cannot tell"


def listed(of_sides, none: str = "no side") -> str:
    """Names of sides, which have commas in them."""
    return "; ".join(f"*{side}*" for side in of_sides) or none


verdicts = runs.groupby(BY)["solved"].apply(found)
GRU, LSTM = CLASSIC = ("GRU, forget bias 1", "LSTM, forget bias 1")
READS_ITS_STATE = ("RNN, orthogonal", *CLASSIC, "LSTM, chrono", "LSTM, in blocks")
linear = [side for side in names if side not in READS_ITS_STATE]
told, gains, contested = [], [], []
for setting in shown:
    own = verdicts.xs(setting, level=("task", "length"))
    solvers = [side for side in names if own.get(side) == "solves"]
    told.append(f"{called[setting]}: {listed(solvers)}")
    if any(own.get(side) != "solves" for side in CLASSIC):
        gains += [side for side in solvers if side in linear]
        contested += [setting] if set(linear) & present[setting] else []
both = [
    listed((side for side in CLASSIC if verdicts.get((*setting, side)) == "solves"), "neither") for setting in contested
]
gain = (
    f"""{
        "; ".join(
            f"At {called[setting]}, of GRU and LSTM with forget bias 1 {'only ' * (one != 'neither')}{one} succeeds"
            for setting, one in zip(contested, both, strict=True)
        )
    }; of the linear recurrences there {", ".join(gains) or "none"}."""
    if contested
    else """Wherever a linear recurrence was trained, GRU and LSTM solve too, so that these runs cannot show what linear
    recurrences would gain."""
)
tried = [setting for setting in shown if set(linear) & present[setting]]
of_linear = []
for setting in tried:
    own = verdicts.xs(setting, level=("task", "length"))
    of_linear.append(f"{words[setting]} by {', '.join(s for s in linear if own.get(s) == 'solves') or 'none'}")
here.show(
    solving,
    "comparison",
    title=f"Solved by linear recurrences: {'; '.join(of_linear)}",
    takeaway=f"""Sides that solve a setting. {". ".join(told)}. Rows from the RNN to the LSTM in blocks read their state
    at every step; below them stand the linear recurrences. Where there is no tile a side was not trained. {gain}""",
)
here.say("How far each came, and how late: medians over the runs.")
rows = []
for task, length in shown:
    for side in [side for side in names if side in present[task, length]]:
        own = runs_at(task, length, side)
        late = int((own["steps_to_solve"] > 2 / 3 * own["training.steps"]).sum())
        solved = int(figures.true(own["solved"]).sum())
        rows.append({"setting": called[task, length], "side": side, "solved": f"{solved} of {len(own)}",
                     "verdict": verdicts[task, length, side], "error": f"{own['error'].median():.3f}",
                     "solved in the last third of the updates": late})  # fmt: skip
of_side = pd.DataFrame(rows)
for setting in shown:
    here.table(of_side[of_side["setting"] == called[setting]])

# %% [markdown]
# ## Parity and permutations
#
# Every one, every permutation changes the answer at all later steps. A state that is multiplied by a number between 0
# and 1 cannot change its sign when a one is read, and one that is turned by the same angle at every step cannot do so
# for some inputs and not for others, whatever the gradient. A network can still learn what the counts up to the length
# of training mean, and so it is tested at two and four times that length. There a side *stays right* when the error of
# every run, over all steps, is nearer to 0 than to chance, and *is lost* when every run is nearer to chance. The tables
# show the steps apart: those of training and those beyond. *Is lost* is not always guessing: of three items, who knows
# only the sign of the permutation is wrong at two thirds of the steps. Where no run solves the length of training, to
# be lost beyond it says little.

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
    own = runs_at(task, length)
    values = own["error"].astype(float) if factor == 1 else longer.get((task, length, factor), pd.Series(dtype=float))
    return values.reindex(own.index).fillna(chance[task, length])


def error_on(task: str, length: int, factor: int) -> pd.Series:
    """The error of each run on the second half of sequences `factor` times as long, and of all steps for 1.

    Every step counts alike, so that the error over all steps is the mean of those over both halves.
    """
    if factor == 1:
        return error_at(task, length, 1)
    return 2 * error_at(task, length, factor) - error_at(task, length, factor // 2)


def nearer(task: str, length: int, factor: int, side: str) -> str:
    """Whether the runs of a side stay right at `factor` times the length of training."""
    own = runs_at(task, length, side)
    values = error_at(task, length, factor).reindex(own.index)
    if not len(values):
        return "not run"
    right = values < chance[task, length] / 2
    return "stays right" if right.all() else "is lost" if not right.any() else "cannot tell"


for task, length in tracking:
    segments = {
        1: f"error on steps 1 to {length}",
        2: f"{length + 1} to {2 * length}",
        4: f"{2 * length + 1} to {4 * length}",
    }
    rows = []
    for side in [side for side in names if side in present[task, length]]:
        own = runs_at(task, length, side)
        row = {"side": side, f"solved at T = {length}": f"{int(figures.true(own['solved']).sum())} of {len(own)}"}
        for factor, segment in segments.items():
            values = error_on(task, length, factor).reindex(own.index)
            row[segment] = f"{values.median():.2f} [{values.min():.2f}, {values.max():.2f}]"
        rows.append({**row, f"at T = {4 * length}": nearer(task, length, 4, side)})
    here.say(
        f"""**{words[task, length].capitalize()}**, median and range of the runs, whose sequences differ from length to
        length; guessing: {chance[task, length]:.2f}."""
    )
    here.table(pd.DataFrame(rows))

# %% [markdown]
# ## Is it for want of gradient?
#
# Every step has a loss, so that a network could learn the rule without a gradient from the last step to the first. What
# reaches that far is shown all the same, since it is what linear recurrences are praised for. The gradient of the last
# step's loss with respect to the state of the lowest layer that carries the memory (c of LSTM and SRU, s of LRU and S6,
# h of the others), at the first step relative to the last one, before and after training. A side's gradient *reaches
# further* than another's when that of every run does.


# %%
def memory(cell: str, layers: int) -> str:
    """The state that carries the memory, in the lowest layer."""
    state = {"LSTM": "c", "SRU": "c", "LRU": "s", "S4D": "s", "S6": "s", "SignedS6": "s"}.get(cell, "h")
    return state if layers == 1 else f"{state}_layer1"


states = {row.side: memory(row.cell, row.layers) for row in runs.itertuples()}


def at_lag(own: pd.DataFrame, stage: str, lag: int) -> pd.Series:
    """log10 of the gradient `lag` steps back, relative to the last step: the median over sequences of each run."""
    parts = []
    for side, group in own.groupby("side"):
        name = f"profile/{states[side]}_{stage}_normalised"
        frame = study.results.readings(name, quantile=0.5, keys=group.index).dropna(subset=["value"])
        frame = frame[frame["lag"] == lag]
        parts.append(pd.Series(frame["value"].to_numpy(float), index=frame["key"].astype(str)))
    return pd.concat(parts).reindex(own.index)


def reaches(values: pd.Series, against: pd.Series) -> str:
    """By the rule of the hypothesis; a gradient that is absent is exactly zero."""
    values, against = values.fillna(-math.inf), against.fillna(-math.inf)
    further, shorter = values.min() > against.max(), values.max() < against.min()
    return "reaches further" if further else "reaches less far" if shorter else "cannot tell"


def ended(of_side: dict[str, pd.DataFrame], side: str) -> str:
    """After how many updates the runs of a side ended."""
    steps = runs.loc[of_side[side].index, "step"].astype(int)
    return f"{steps.min():,}" if steps.min() == steps.max() else f"{steps.min():,} to {steps.max():,}"


STAGES = {"initial": "before training", "final": "after training"}
if not all(side in present[setting] for setting in tracking for side in CLASSIC):
    raise RequestError(f"this page compares gradients with those of '{GRU}' and '{LSTM}', of which runs are missing")
gradients = {}
for task, length in tracking:
    own = runs_at(task, length)
    measured = pd.DataFrame({stage: at_lag(own, stage, length - 1) for stage in STAGES})
    gradients[task, length] = measured.assign(beyond=error_on(task, length, 4), side=own["side"])
if tracking:
    task, length = tracking[0]
    measured = gradients[task, length]
    panels = [
        *(figures.DotPanel(stage, f"the gradient at step 1, {when}", "log₁₀, relative to the last step")
          for stage, when in STAGES.items()),
        figures.DotPanel("beyond", f"{words[task, length]} on steps {2 * length + 1} to {4 * length}",
                         "share of steps wrong", chance[task, length]),
    ]  # fmt: skip
    of_side = {side: group for side, group in measured.groupby("side")}
    lost = [side for side in names if nearer(task, length, 4, side) == "is lost"]
    arriving = [
        side for side in lost
        if all(reaches(of_side[side][stage], of_side[LSTM][stage]) == "reaches further" for stage in STAGES)
    ]  # fmt: skip
    late = [side for side in lost if reaches(of_side[side]["final"], of_side[LSTM]["final"]) == "reaches further"]
    tracked = {key: side for key, side in side_of.items() if key in measured.index}
    pair = {
        side: chosen[(chosen["task"] == task) & (chosen["length"] == length) & (chosen["side"] == side)]
        .set_index("learning_rate")["solved"] for side in ("S6", "S6, signed")
    }  # fmt: skip
    on_selection = pd.DataFrame(pair).dropna().astype(int)
    by_rate = "" if on_selection.empty else (
        f"""On the {len(experiment.SELECTION_SEEDS[scale])} selection seeds they solve it, at the rates {
            "; ".join(f"{rate:g}: {row.iloc[0]} against {row.iloc[1]}" for rate, row in on_selection.iterrows())
        }."""
    )  # fmt: skip
    kinds = {side: "reads its state" if side in READS_ITS_STATE else "linear recurrence" for side in names}
    here.show(
        figures.dots_by_side(measured, tracked, panels, kinds),
        "gradient_and_error",
        title=f"{words[task, length].capitalize()}: {len(arriving)} of {len(lost)} sides that are lost beyond their "
        "length have a gradient that reaches further than the LSTM's, before and after training",
        takeaway=f"""Lost at four times the length of training: {listed(lost)}. Before and after training, the gradient
        reaches further than that of *{LSTM}* (every run against every run), which stays right, in {listed(arriving)};
        after training it does so in {listed(late)}. Training ends when a run has solved: after {ended(of_side, LSTM)}
        updates for the LSTM, {", ".join(f"{ended(of_side, side)} ({side})" for side in late) or "none"} for these.
        That alone proves no want of expressivity: a network may fail to learn for other reasons. The pair that speaks
        for it is S6 and *S6, signed*, which differ in the range of their factors (and in the rate that was chosen): {
            " against ".join(
                f"{int(figures.true(runs.loc[of_side[side].index, 'solved']).sum())} of {len(of_side[side])}"
                for side in ("S6", "S6, signed") if side in of_side
            )
        } solve it. {by_rate}""",
    )  # fmt: skip
rows = []
for setting in tracking:
    own = gradients[setting]
    for side in [side for side in names if side != LSTM and side in set(own["side"])]:
        row = {"setting": called[setting], "side": side}
        for stage, when in STAGES.items():
            values, against = own.loc[own["side"] == side, stage], own.loc[own["side"] == LSTM, stage]
            row[when] = f"{values.median():.1f} against {against.median():.1f}"
            row[f"than {LSTM}, {when}"] = reaches(values, against)
        trained = own.loc[own["side"] == side, "final"]
        row[f"than {GRU}, after training"] = (
            "" if side == GRU else reaches(trained, own.loc[own["side"] == GRU, "final"])
        )
        rows.append({**row, "four times the length": nearer(*setting, 4, side)})
against_lstm = pd.DataFrame(rows)
if rows:
    here.table(against_lstm)
    controls = [
        f"{row['side']} at {row['setting']} ({row['before training'].replace('-', '−')})" for row in rows
        if row["side"] in READS_ITS_STATE and row["four times the length"] != "stays right"
        and row[f"than {LSTM}, before training"] == "reaches further"
    ]  # fmt: skip
    here.say(
        f"""A gradient that reaches far before training is not enough where the state could be turned, either: it
        reaches further than the LSTM's, and some or all runs are lost, in
        {"; ".join(controls) or "no side that reads its state"}."""
    )

# %% [markdown]
# ## Temporal order: does the gradient tell?
#
# The two marks stand in the second and the sixth tenth of the sequence; all that is asked is to keep them. Given is the
# gradient at the middle of both places, relative to the last step.

# %%
far = [setting for setting in shown if setting[0] == "TemporalOrder"]
contrary = ""
for task, length in far:
    own = runs_at(task, length).copy()
    marks = [length - 1 - round(share * length) for share in (0.55, 0.15)]
    at_marks = {
        (stage, lag): at_lag(own, stage, lag).groupby(own["side"]).median() for stage in STAGES for lag in marks
    }
    first = at_marks["initial", marks[1]]
    of_sides = verdicts.xs((task, length), level=("task", "length"))
    solvers, failing = ([one for one in names if of_sides.get(one) == came] for came in ("solves", "fails"))
    crossed = [(one, other) for one in solvers for other in failing if first[one] < first[other]]
    after = at_lag(own, "final", marks[1])
    arrives = own.assign(after=after)[(after > -2) & own["side"].isin(failing)]
    unsolved = arrives[~figures.true(arrives["solved"])].groupby("side", sort=False).size()
    arrives_in_vain = "" if unsolved.empty else (
        "After training, more than a hundredth arrives at the first mark, without the task being solved, in "
        + "; ".join(f"{n} of {len(runs_at(task, length, side))} runs of *{side}*" for side, n in unsolved.items())
        + "."
    )  # fmt: skip
    groups = {}
    for one in dict.fromkeys(solver for solver, _ in crossed):
        groups.setdefault(tuple(other for solver, other in crossed if solver == one), []).append(one)
    contrary = ". ".join(
        f"With less gradient at the first mark (medians) than {' and '.join(f'*{one}*' for one in lacking)}, which "
        f"fail, it is solved by {' and '.join(f'*{one}*' for one in ones)}"
        for lacking, ones in groups.items()
    )
    here.show(
        figures.gradient_of_sides(study.results, side_of, states, keys=list(own.index)),
        f"gradient_{task}_{length}",
        title=f"{words[task, length].capitalize()}, T = {length}: across {len(of_sides)} sides the gradient before "
        "training " + ("does not tell who solves it" if crossed else "is larger in all that solve it"),
        takeaway=f"""Solved by: {listed(solvers)}; failed by: {listed(failing)}. {contrary + "." if contrary else ""}
        The two LSTMs differ in the start of their biases alone; between them, gradient and success go together, which
        does not say that one causes the other: the biases change what is remembered, too. Across cells the numbers are
        of different states (h, c and s), in linear recurrences of the lower of two layers, and what arrives before
        training may grow while a network learns.
        {arrives_in_vain}""",
    )
    here.say("log₁₀ of what is left of the gradient at the marks, medians over the runs:")
    here.table(pd.DataFrame([
        {"side": side, "verdict": of_sides[side],
         **{f"{lag} steps back, {STAGES[stage]}": f"{values[side]:.1f}" for (stage, lag), values in at_marks.items()}}
        for side in names if side in of_sides
    ]))  # fmt: skip

# %% [markdown]
# ## What became of the hypothesis
#
# Written down, with the rule, before training. (1) Selective copying is solved where the recurrence depends on its
# input, and not by the LRU, whose factors are fixed. (2) Linear recurrences fail at parity and at composing
# permutations for want of expressivity, not of gradient; GRU and LSTM solve both; S6 with factors between −1 and 1
# solves parity, not the permutations. (3) At temporal order the LSTM with forget bias 1 fails for want of gradient;
# LRU, RG-LRU and the LSTM with chrono biases solve it, minGRU does not.

# %%
GATED = ("minGRU", "minLSTM", "SRU", "RG-LRU", "S6")
LINEAR = (*GATED, "LRU")
parts = {
    "1. Selective copying needs factors that depend on the input": {
        "selective copying": {"solves": (*CLASSIC, *GATED), "fails": ("LRU",)},
        "associative recall": {"solves most": ("S6",)},
    },
    "2. State tracking fails for want of expressivity": {
        "parity": {"is lost": LINEAR, "solves": (*CLASSIC, "S6, signed")},
        "permutations of 3": {"is lost": LINEAR, "solves": CLASSIC, "fails": ("S6, signed",)},
    },
    "3. Temporal order fails for want of gradient": {
        "temporal order": {"solves": ("LRU", "RG-LRU", "LSTM, chrono"), "fails": (LSTM, "minGRU")}
    },
}
for part, expectations in parts.items():
    rows, absent = [], []
    for task, by_outcome in expectations.items():
        for expected, of_sides in by_outcome.items():
            for side in of_sides:
                settings = [one for one in shown if words[one] == task and side in present[one]]
                absent += [] if settings else [f"{side} at {task}"]
                for setting in settings if expected != "solves most" else []:
                    at_length = expected in ("stays right", "is lost")
                    came = nearer(*setting, 4, side) if at_length else verdicts[(*setting, side)]
                    outcome = "as expected" if came == expected else "refuted" if came != "cannot tell" else came
                    # What was never learned cannot be lost.
                    if outcome == "as expected" and at_length and verdicts[(*setting, side)] == "fails":
                        outcome = "as expected; not learned at T"
                    rows.append({"side": side, "setting": called[setting], "expected": expected, "came": came,
                                 "hypothesis": outcome})  # fmt: skip
    if not rows:
        continue
    table = pd.DataFrame(rows)
    count = table["hypothesis"].value_counts()
    against = table[table["hypothesis"] == "refuted"]
    reason = ""
    if "expressivity" in part and len(against_lstm):
        own = against_lstm[against_lstm["side"].isin(LINEAR)]
        when = own[[f"than {LSTM}, {when}" for when in STAGES.values()]].eq("reaches further").all(axis=1)
        lengths = table[table["expected"] == "is lost"]
        unlearned = lengths[lengths["hypothesis"] == "as expected; not learned at T"]
        learned = lengths.drop(unlearned.index)
        reason = f""" Of {len(lengths)} predictions *is lost*, {len(unlearned)} concern sides that had not learned the
        length of training, and say little; besides: {
            "; ".join(f"{row.side} at {row.setting} ({row.hypothesis})" for row in learned.itertuples()) or "none"
        }. The gradient reaches further than the LSTM's, before and after training, in {int(when.sum())} of {len(own)}
        linear sides and settings. That makes a want of gradient there less likely; it does not show that nothing else
        lacks. Against the trained GRU it reaches further in {
            int(own[f"than {GRU}, after training"].eq("reaches further").sum())
        }."""
    elif "depend on the input" in part:
        copied = runs[runs["task"] == "SelectiveCopying"].groupby("side")["error"].median()
        fixed = copied.reindex([side for side in ("LRU", "S4D") if side in copied]).dropna()
        worse = [side for side in GATED if side in copied and len(fixed) and copied[side] >= fixed.min()]
        better = [side for side in GATED if side in copied and side not in worse]
        reason = f""" The reason that it gives is borne out by {len(better)} of {len(better) + len(worse)} sides{
            f", not by {', '.join(worse)}" if worse else ""
        }, if one looks at the median errors at
        selective copying: with fixed factors {
            ", ".join(f"{error:.3f} ({side})" for side, error in fixed.items()) or "not trained"
        }; with factors that depend on the input {
            ", ".join(f"{copied[side]:.3f} ({side})" for side in GATED if side in copied)
        }."""
    elif contrary and "want of gradient" in part:
        reason = """ The reason that it gives is not borne out across cells (who solves it with less gradient than
        others that fail is said above); between the two LSTMs it is not contradicted."""
    here.say(
        f"""**{part}**: {count.get("as expected", 0)} of {len(table)} as expected{
            f", {count['as expected; not learned at T']} more where the length of training was not learned either"
            if "as expected; not learned at T" in count
            else ""
        }; {count.get("cannot tell", 0)} cannot be told; {
            "**refuted** by " + "; ".join(f"*{row.side}* at {row.setting} ({row.came})" for row in against.itertuples())
            if len(against)
            else "none refuted"
        }.{reason}{f" Not trained at this scale: {'; '.join(absent)}." if absent else ""}"""
    )
    here.table(table)
recalled = [setting for setting in shown if setting[0] == "AssociativeRecall"]
rows = []
for task, length in recalled:
    own = runs_at(task, length)
    solved = own.pivot(index="seed", columns="side", values="solved").apply(figures.true)
    rivals = [side for side in ("minGRU", "minLSTM", "SRU", "RG-LRU", "LRU") if side in solved and "S6" in solved]
    tests = [figures.mcnemar(solved["S6"].to_numpy(), solved[side].to_numpy()) for side in rivals]
    for side, (one, other, _), p in zip(rivals, tests, figures.holm([test[2] for test in tests]), strict=True):
        leads = "cannot tell" if p >= 0.05 else "S6" if one > other else side
        errors_of = own.groupby("side")["error"].median()
        rows.append({"setting": called[task, length], "side": side, "S6 alone solved": one,
                     "side alone solved": other, "p, adjusted": f"{p:.2g}", "leads": leads,
                     "median error": f"{errors_of[side]:.2f}; S6 {errors_of['S6']:.2f}"})  # fmt: skip
of_recall = runs[runs["task"] == "AssociativeRecall"]
if rows:
    led = [row["leads"] for row in rows]
    easy = min(float(figures.true(group["solved"]).mean()) for _, group in of_recall.groupby("side")) >= 0.8
    here.say(
        f"""Associative recall, of which S6 is expected to solve the most of all linear recurrences: exact McNemar tests
        on the paired seeds, adjusted for their number (Holm); one side leads where the adjusted p is below 0.05. {
            "None does"
            + (": nearly every run of every side solves it, so that no test could have told." if easy else ".")
            + " The other linear recurrences were not compared with each other."
            if set(led) == {"cannot tell"}
            else f"S6 leads {led.count('S6')} of {len(led)}."
        }"""
    )
    here.table(pd.DataFrame(rows))

# %% [markdown]
# ## Was the tuning enough?
#
# A choice at the lowest or highest rate that was tried is marked: a better one may lie outside.

# %%
table = rates.reset_index()
table = table[[each in shown for each in zip(table["task"], table["length"], strict=True)]]
table["setting"] = [called[row.task, row.length] for row in table.itertuples()]
table["rate"] = [f"{row.learning_rate:g}{' (edge)' if row.at_edge else ''}" for row in table.itertuples()]
wide = table.pivot(index="side", columns="setting", values="rate").reindex(names).rename_axis(columns=None)
here.table(wide[[called[setting] for setting in shown]].fillna("").reset_index())
weak = [
    f"*{row.side}* at {row.setting}" for row in table.itertuples()
    if row.at_edge and verdicts[row.task, row.length, row.side] != "solves"
]  # fmt: skip
here.say(
    f"""{int(table["at_edge"].sum())} of {len(table)} choices lie at an edge of the grid. Those that do not go with a
    solved setting, where another rate might change the verdict: {"; ".join(weak) or "none"}."""
)

# %% [markdown]
# ## What this does not show
#
# Networks of a few thousand parameters, short sequences, one optimiser and a small budget: a side that fails here might
# solve the task with more of any of them. A few runs that validation had called solved, and ended, miss the criterion
# on the test sequences by less than a quarter of a per cent, and count as unsolved. Equal parameters are not an equal
# state: S6 has several numbers of state for each of its units. Blocks, two layers and the recurrence change together,
# and the published convolutions are left out. That state tracking fails at other lengths is what theory says of factors
# that are fixed, or lie between 0 and 1 (Grazzi et al. 2025; Merrill et al. 2024); that a network was lost does not
# prove it, and one that stayed right at four times its length might be lost further on. The rate is chosen on few
# seeds.
