# ---
# jupyter:
#   rnnstudy:
#     order: 30
# ---

# %% [markdown]
# # Exploding gradients, and what clipping does about them
#
# A relu network whose recurrent matrix starts as the identity (IRNN; Le, Jaitly & Hinton 2015) does not let its
# gradient vanish, and is therefore close to exploding. It is trained to add two marked numbers by plain stochastic
# gradient descent, once without clipping and once with the gradient's norm clipped at 1 (Pascanu, Mikolov & Bengio
# 2013, algorithm 1). Runs with and without clipping share seeds: they start with the same weights and see the same
# sequences.

# %%
from rnnstudy import figures
from rnnstudy.report import NOT_RUN, Notebook, value_at

here = Notebook("clipping")
study = here.study()
runs = study.results.runs
here.say(study.summary)

# %%
rates = sorted(runs["learning_rate"].unique())
rate = rates[len(rates) // 2]
picture = figures.clipping(study.results, learning_rate=rate)
norms = picture.data.dropna(subset=["largest"])
largest = norms.groupby("clipping")["largest"].max()
typical = norms.groupby("clipping")["median"].median()
counts = picture.data.dropna(subset=["share"]).groupby("clipping")[["diverged", "runs"]].sum()
ended = picture.data[(picture.data["status"] == "diverged") & (picture.data["clipping"] == "without clipping")]
ends = ended.groupby("key")["step"].max()
when = f"after {int(ends.min())} to {int(ends.max())} updates" if len(ends) else "(no run here does so)"


def diverged(clipping: str) -> str:
    """How many of the runs diverge, over all learning rates."""
    if clipping not in counts.index:
        return NOT_RUN
    return f"{int(counts.loc[clipping, 'diverged'])} of {int(counts.loc[clipping, 'runs'])}"


here.show(
    picture,
    "clipping",
    title=f"Without clipping {diverged('without clipping')} runs diverge, with it {diverged('with clipping')}",
    takeaway=f"""
    The norm of the gradient before any clipping, by update: a thin line is a run, the thick one their median; note that
    both axes are logarithmic. Left, without clipping: the median log10 norm is
    {value_at(typical, "without clipping")} over all updates, the largest {value_at(largest, "without clipping")}. A
    step along such a spike throws the weights far away; where a dotted line ends in a cross, the numbers have left the
    range of floats and the run has diverged, at learning rate {rate:g} {when}.
    Middle, the same runs with the norm clipped at the dashed line: the largest log10 norm before clipping is
    {value_at(largest, "with clipping")}, but no update moves the weights by more than a step of the threshold's
    size. Right: over all learning rates {diverged("without clipping")} runs diverge without clipping and
    {diverged("with clipping")} with it. Clipping limits the length of a step; it does not by itself restore a
    gradient that has vanished.""",
)

# %% [markdown]
# Runs of one seed share weights and sequences, whatever their rate: the unit is the seed. And a run that does not
# diverge has not learned for that: the table has the errors of the same runs on fresh test sequences, medians over the
# runs that did not diverge.

# %%
clip = "training.clip.threshold"
table = runs.assign(clipping=runs[clip].notna().map({True: "norm clipped at 1", False: "none"}))
table = table.assign(diverged=table["status"] == "diverged").groupby(["clipping", "learning_rate"])
table = table.agg(runs=("diverged", "size"), diverged=("diverged", "sum"), median_test_error=("error", "median"))
here.table(table.reset_index())

by_seed = runs.assign(clipped=runs[clip].notna(), diverged=runs["status"] == "diverged")
by_seed = by_seed.groupby(["clipped", "seed"])["diverged"].any().unstack(0)
constant = study.definition.runs(study.scale)[0].task.chance.error
learned = int((runs["error"].astype(float) < 0.9 * constant).sum())
if len(by_seed.columns) == 2:
    unclipped, clipped, p = figures.mcnemar(by_seed[False].to_numpy(), by_seed[True].to_numpy())
    here.say(
        f"""Of {len(by_seed)} seeds, {unclipped} diverge at some rate only without clipping and {clipped} only with it
        (McNemar's exact p = {p:.2g}): {"clipping prevents divergence here" if p < 0.05 else "these runs cannot tell"}.
        A constant has an error of {constant:.3f}; {learned} of {len(runs)} runs have an error below nine tenths of it.
        {"Nothing was learned, with clipping or without." if learned == 0 else ""}"""
    )
