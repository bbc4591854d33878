# ---
# jupyter:
#   rnnstudy:
#     order: 90
#     experiments: [ledger]
# ---

# %% [markdown]
# # The ledger: published numbers, and what was obtained
#
# **Question.** Do the numbers that others published come out again here? Each row names a source, what it says, and the
# rule by which our result counts as agreement. Rows and rules stand in `reports/ledger/rows.toml`, whose history shows
# that the rules were written before the results; `rnnstudy/results/ledger.py` applies them. Most settings were written
# before, too. The width of the networks of 2a and 2b was changed after a first attempt, and the budget of random
# guessing twice after a first look.

# %%
import pandas as pd

from rnnstudy import figures
from rnnstudy.report import Notebook
from rnnstudy.results.ledger import MARKS, VERDICTS, ledger_table, read_ledger
from rnnstudy.store.project import find_project

here = Notebook("ledger")
folder = find_project().reports / "ledger"
ledger = read_ledger(folder / "rows.toml", folder / "differences.toml")
studies = {name: here.study(name) for name in ledger.experiments}
for study in studies.values():
    here.say(study.summary)
table = ledger_table(ledger, {name: study.results for name, study in studies.items()})

# %%
counts = pd.crosstab(table["scale"], table["verdict"]).reindex(columns=list(VERDICTS), fill_value=0)
judged = table[table["verdict"].isin(["yes", "partly", "no"])]
distinct = len(judged.drop_duplicates(["source", "where", "setting", "published"]))
computed, untrained = judged["quantity"] == "computed", judged["most_updates"] == 1
trained = judged[~computed & ~untrained]
verdicts = judged["verdict"].value_counts().reindex(["yes", "partly", "no"], fill_value=0)
in_words = f"{verdicts['yes']} agree, {verdicts['partly']} partly, {verdicts['no']} do not"
closed_forms = int((computed & (judged["runs"] == 1) & (judged["verdict"] == "yes")).sum())
of_solving = judged["quantity"].isin(["share solved", "sequences to solve"])
unsolved = int((of_solving & (judged["solved"] == 0) & (judged["verdict"] == "partly")).sum())
with_care = f"""{verdicts["yes"]} agree ({closed_forms} of them closed forms), {verdicts["partly"]} partly (in
    {unsolved} of these no run solved the task, and the published number is only not excluded), and {verdicts["no"]} do
    not"""
corrected = table[table["corrected"] != ""]
waiting = int((table["verdict"] == "not yet run").sum())
here.say(
    f"""**What came out.** Of {len(table)} rows, {len(judged)} have a result: {with_care}. They hold {distinct}
    published numbers: some stand in two rows, for the LSTM of 1997 and for today's. {len(trained)} results come from
    trained networks ({int((trained["runs"] >= 5).sum())} with 5 runs or more), {int(untrained.sum())} from untrained
    ones or from a system that is not trained, and {int(computed.sum())} are computed, or guessed at random. {
        f"{waiting} rows are not yet run. " if waiting else ""
    }{int((table["verdict"] == "not attempted").sum())} rows were not attempted.

In {len(corrected)} rows a second reading of the sources found a wrong published value, setting or scale, which was
    corrected after the result; the rules stayed. The table says where, as *corrected*."""
)
here.table(counts.reset_index())

# %%
picture = figures.ledger(table)
here.show(
    picture,
    "ledger",
    title=f"Of {len(judged)} rows with {distinct} published numbers {in_words}",
    takeaway=f"""Each line is a published number (diamond) and ours with its interval; the picture shows the
    {len(picture.data)} rows of shares and of sequences until solved. Of all {len(judged)} rows with a result
    {with_care}, each by the rule that its row stated beforehand; medians of other quantities, orders and computed rows
    are in the table only. Most rows have smaller budgets, another optimiser or another cell than the source, which the
    table names. {len(table) - len(judged)} further rows {
        "are not yet run or" if waiting else "were"
    } not attempted.""",
)

# %% [markdown]
# ## All rows
#
# *Obtained* is a share of runs, or a median over runs, with its 95 % interval (for medians of fewer than 10 runs their
# range). A published value that was not read in the source itself is marked so. The numbers of sequences of Hochreiter
# & Schmidhuber 1997 are means over their trials, which all succeeded in the rows quoted; ours are medians over all
# runs, in which one that does not solve its task counts as more than its budget. Rows of the catalogue go by the
# READMEs of its problems.


# %%
def number(value: float) -> str:
    """Four digits, or a whole number with its thousands apart, with a true minus sign."""
    told = f"{value:,.0f}" if 1000 <= abs(value) < float("inf") else f"{value:.4g}"
    return "more than the budget" if value == float("inf") else told.replace("-", "−")


def published(row) -> str:
    """The published value, with what kind of reading it comes from where that is not the source itself."""
    value = f"{row.published} than the other side" if isinstance(row.published, str) else number(row.published)
    runs = [f"{row.published_runs:.0f} run{'s' * (row.published_runs > 1)}"] if pd.notna(row.published_runs) else []
    said = [] if row.mark == "F" else [MARKS[row.mark]]
    return f"{value} ({'; '.join([*runs, *said])})" if runs or said else value


def obtained(row) -> str:
    """The obtained value with its interval and number of runs."""
    if row.runs == 0:
        return row.verdict
    if row.quantity == "computed" and row.runs == 1:
        return number(row.value)
    of = "trials" if row.quantity == "computed" else "runs"
    own = f"{number(row.value)} ({number(row.low)} to {number(row.high)}, {row.runs} {of})"
    if pd.isna(row.other):
        return own
    return f"{own} against {number(row.other)} ({number(row.other_low)} to {number(row.other_high)})"


def deviations(row) -> str:
    """How our setting deviates, and what was corrected in the row."""
    said = [row.deviations, f"corrected after the result: {row.corrected}" if row.corrected else ""]
    return "; ".join(filter(None, said))


rows = [
    {
        "row": row.id, "source": f"{row.source}; {row.where}", "setting": row.setting, "scale": row.scale,
        "published": published(row), "obtained": obtained(row), "unit": row.unit, "rule": row.rule,
        "agreement": row.verdict, "deviations of ours": deviations(row), "why it differs": row.why,
    }
    for row in table.itertuples()
]  # fmt: skip
here.table(pd.DataFrame(rows))

# %% [markdown]
# ## Run keys
#
# `rnnstudy show KEY` shows a run: what was trained, what came out, and the command that repeats it.

# %%
here.table(table.loc[table["keys"] != "", ["id", "keys"]])

# %% [markdown]
# ## What this does not show
#
# A *yes* says that a stated rule holds for our setting, with its deviations, at our budget; it does not confirm the
# source's own setting. A *no* at a reduced scale does not contradict a source that trained longer. The 1997 networks
# were trained sequence by sequence with a truncated gradient, ours in batches with Adam: numbers of sequences compare
# the two learning procedures, not only the cells; and many of theirs stop after thousands of right sequences in a row,
# ours at a small share of wrong ones. A *partly* without a solved run says only that our budget was too small to
# exclude the published number. In the last column, what stands beside *probably* or *not tried* was not tested. Rules
# differ in how hard they are to meet, so that the counts are no measure of how reproducible a field is. Where many rows
# are tested, some agree or disagree by chance. Rows whose number was worked out from the source's formula confirm our
# closed form, not a measurement.
