# %% [markdown]
# # Vanishing gradients, seen: a vanilla RNN beside an LSTM
#
# A recurrent network learns from the past through one channel only: the gradient that travels back through time. This
# report shows two networks that were trained on a task whose answer depends on something seen long ago. It measures the
# gradient on its way back, and asks whether its size is related to what the network learns.
#
# **The task** is temporal order (Pascanu, Mikolov & Bengio 2013). A sequence of T symbols is noise, except for two
# marks, each A or B: one in the second tenth of the sequence, one just after its middle. At the last step the network
# reports which of the four pairs AA, AB, BA, BB it saw. So it must remember the first mark for at least 0.8 T steps.
#
# **The two networks** have the same width, the same batches for the same seed, the same optimiser, gradient clipping
# and grid of learning rates, and orthogonal recurrent matrices at the start. What differs is the recurrence, and that
# the LSTM's gates are told the length of the sequence (for the LSTM without that hint see `fair_comparison`):
#
# * the vanilla RNN (Elman): h_t = tanh(x_t W_xh + h_{t-1} W_hh + b_h);
# * the LSTM: a cell state c_t = f_t ⊙ c_{t-1} + i_t ⊙ C̃_t, which a gate passes on to the next step, and
#   h_t = o_t ⊙ tanh(c_t). Its gate biases start so that the units forget at different speeds, spread over the length of
#   the sequence (chrono initialisation).
#
# All numbers below are computed from stored runs.

# %%
from rnnstudy import figures
from rnnstudy.report import Notebook
from rnnstudy.tasks.temporal_order import TemporalOrder

here = Notebook("quickstart")
study = here.study()
results = study.results
runs = results.runs
task = TemporalOrder(length=int(runs["length"].max()))
error_name = task.criterion.error

# %%
here.say(
    f"{study.summary} Lengths T = {', '.join(map(str, sorted(runs['length'].unique())))}; "
    f"width {', '.join(map(str, sorted(runs['width'].unique())))}; "
    f"learning rates {', '.join(f'{rate:g}' for rate in sorted(runs['learning_rate'].unique()))}; "
    f"{runs['seed'].nunique()} seeds; at most {runs['training.steps'].max()} updates of "
    f"{runs['training.batch'].max()} sequences. A run stops early once it solves the task in validation."
)

# %% [markdown]
# ## Every result
#
# *Solved* means that a run met the published criterion, tested once on fresh test sequences. The learning rate is
# chosen for each cell and length by **validation alone**: the rate with the largest share of runs that met the
# criterion in validation twice in a row; among equal rates, the one with the lowest median validation error at the end.
# The test result is not used for this choice; the table shows it for comparison. All figures below use the chosen
# rates. A diverged run counts as unsolved.

# %%
setting = ["cell", "length", "learning_rate"]
tested = runs.assign(solved=figures.true(runs["solved"]), diverged=runs["status"] == "diverged")
tested = tested.groupby(setting).agg(
    diverged=("diverged", "sum"), solved_in_test=("solved", "sum"), median_test_error=("error", "median")
)
settings = figures.validation_table(results).join(tested, on=setting)
here.table(settings.assign(chosen=settings["chosen"].map({True: "chosen", False: ""})))
best = figures.best_by_validation(results)
here.say(
    f"Criterion: {task.criterion.words}. Chance: a predictor that sees no input gets an error of "
    f"**{task.chance.error:.3g}** and a loss of {task.chance.loss:.3f} nats, and solves nothing. Errors are the "
    f"{error_name}; steps_to_solve counts updates (median over the runs that solved the task)."
)

# %% [markdown]
# ## 1. How the gradient fades before training
#
# The network reads a sequence; its loss L at the last supervised step τ is differentiated with respect to the state
# at every earlier step t. The **lag** is τ − t: 0 at the end of the sequence, growing towards the past. The
# derivative is the *total* derivative: the effect of a change of the state on the loss, by every path. Its Euclidean
# norm is taken for each sequence, then log10, then the median over sequences. On this scale a straight line is
# exponential decay; its slope is the number of **decades lost per step**. −6 means a millionth.
#
# *What to look for:* how steeply each cell's lines fall, and whether the slope depends on the length T. Where a line
# has fallen by many decades, the steps at that lag hardly change the weights: in the sum over time steps, the steps at
# short lags dominate. For the LSTM compare the two panels: h_t is rewritten at each step, while c_t is passed on.

# %%
here.show(figures.gradient_by_lag(results, states=("h", "c"), keys=best), "gradient_by_lag_initial")

# %% [markdown]
# The same in numbers, medians over runs: `log10_ratio` is the gradient at the first time step relative to lag 0
# (decades); `rate` is the slope (Theil–Sen) in decades per step; `half_life` is the number of steps over which the
# gradient halves, none where it does not fall. *initial*: before the first update. *final*: after the last update.

# %%
measures = ["log10_ratio", "rate", "half_life"]
columns = [f"{measure}_{stage}" for stage in ("initial", "final") for measure in measures]
medians = runs.loc[best].groupby(["cell", "length"])[[name for name in columns if name in runs]].median()
here.table(medians.reset_index())

# %% [markdown]
# ## 2. After training
#
# A network that has solved its task has a small loss, hence a small gradient at every lag. To compare networks at
# different stages of training, each sequence's gradient is therefore divided by its own value at lag 0 (**normalised
# profile**: 0 at lag 0, on the logarithmic scale). It shows which part of the gradient survives the way back.
#
# Each line is a run, since after training the runs of a setting can fall into groups, between which a median would
# stand where no run is.
#
# *What to look for:* whether training has flattened the lines. A network that uses a mark seen long ago must have a
# gradient that reaches this mark; compare each panel with the same panel before training, above.

# %%
here.show(
    figures.gradient_of_runs(results, stage="final", states=("h", "c"), normalised=True, keys=best),
    "gradient_by_lag_final_normalised",
)

# %% [markdown]
# ## 3. The gradient while the network learns
#
# One run of each cell at the longest length. Each row is one moment of training (from the bottom upwards), each
# column a time step of the sequence; the last step, where the answer is due, is on the right. Both panels share one
# colour scale.
#
# *What to look for:* how far to the left the light colours reach, that is, how far back in time the gradient reaches;
# and whether that changes suddenly, together with the error in the learning curves below. Blank rows mean that training
# had ended.

# %%
here.show(figures.gradient_heat_map(results, keys=best), "gradient_heat_map")

# %% [markdown]
# ## 4. What was learned
#
# *What to look for:* the length from which on a cell no longer solves the task, and how wide the intervals are. The
# bars are **Wilson 95 % intervals**: with few runs they are wide, and where the bars of two cells overlap much, these
# runs cannot show a difference between the cells. A run near the chance line on the right has learned nothing; a run
# between chance and zero has learned a part of the task, for example only the later of the two marks, which leaves half
# of the sequences wrong.

# %%
here.show(
    figures.success(results, chance=task.chance.error, error=f"test:\n{error_name}", keys=best), "success_by_length"
)

# %% [markdown]
# ## 5. When it was learned
#
# *What to look for:* plateaus. A long dependency is rarely learned gradually: the error stays near chance, or near one
# half once the later mark is known, until the network finds the gradient from the earlier mark.

# %%
here.show(
    figures.learning_curves(results, chance=task.chance.error, error=f"validation:\n{error_name}", keys=best),
    "learning_curves",
)

# %% [markdown]
# ## What these figures can and cannot show
#
# They show two cells at one width, on one task, with one optimiser and a small grid of learning rates. A cell that
# does not solve a length here, within this number of updates, may solve it with more updates, another initialisation or
# another rate. A gradient that reaches the past is necessary for learning, but does not guarantee it. Bands and
# intervals are over runs (seeds).
#
# The figures are saved in the folder `figures/quickstart` as PNG and SVG, each with a CSV of its numbers and a JSON
# that names its runs.
