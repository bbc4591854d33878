# %% [markdown]
# # Vanishing gradients, seen: a vanilla RNN beside an LSTM
#
# A recurrent network learns from the past through one channel only: the gradient that travels back through time. This
# report trains two networks on a task whose answer depends on something seen long ago, looks at that gradient on its
# way back, and asks whether its size goes together with what the network learns.
#
# **The task** is temporal order (Pascanu, Mikolov & Bengio 2013). A sequence of T symbols is noise, but for two
# marks, each A or B: one in the second tenth of the sequence, one just after its middle. At the last step the network
# says which of the four pairs AA, AB, BA, BB it saw, in order. So it must carry the first mark over at least 0.8 T
# steps.
#
# **The two networks** have the same width, the same batches for the same seed, the same optimiser, gradient clipping
# and grid of learning rates, and orthogonal recurrent matrices at the start. What differs is the recurrence:
#
# * the vanilla RNN (Elman): h_t = tanh(x_t W_xh + h_{t-1} W_hh + b_h);
# * the LSTM: a cell state c_t = f_t ⊙ c_{t-1} + i_t ⊙ C̃_t, carried on by a gate, and h_t = o_t ⊙ tanh(c_t). Its gate
#   biases start so that forgetting times are spread over the length of the sequence (chrono initialisation).
#
# All numbers below are computed from the runs in the store. Nothing is drawn that was not run.

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
# *Solved* means the published criterion, judged once on fresh test sequences. The learning rate is chosen for each
# cell and length by **validation alone**: the largest share of runs that met the criterion in validation twice in a
# row; among equals, the lowest median validation error at the end. The test plays no part in the choice; the table
# shows it beside. Everything drawn below uses the chosen rates. A diverged run counts as unsolved.

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
# ## 1. How the gradient fades before any learning
#
# The network reads a sequence; its loss L at the last supervised step τ is differentiated with respect to the state
# at every earlier step t. The **lag** is τ − t: 0 at the end of the sequence, growing towards the past. The
# derivative is the *total* one: all that a change of the state would do to the loss, by every path. Its Euclidean
# norm is taken sequence by sequence, then log10, then the median over sequences. On this scale a straight line is
# exponential decay; its slope is the number of **decades lost per step**. −6 means a millionth.
#
# *What to look for:* how steeply each cell's lines fall, and whether the slope depends on the length T. Where a line
# has fallen by many decades, what happened at that lag hardly moves the weights: in the sum over time steps it is
# drowned by what happened at short lags. For the LSTM compare the two panels: h_t is rewritten at each step, while
# c_t is handed on.

# %%
here.show(figures.gradient_by_lag(results, states=("h", "c"), keys=best), "gradient_by_lag_initial")

# %% [markdown]
# The same in numbers, medians over runs: `log10_ratio` is the gradient at the first time step relative to lag 0
# (decades); `rate` the slope (Theil–Sen) in decades per step; `half_life` the number of steps over which the gradient
# halves, none where it does not fall. *initial*: before the first update. *final*: after the last.

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
# profile**: 0 at lag 0, on the logarithmic scale). What remains is how much of it survives the way back.
#
# *What to look for:* whether training has flattened the lines. A network that uses a mark seen long ago must have a
# gradient that reaches it; compare each panel with the one above, before training.

# %%
here.show(
    figures.gradient_by_lag(results, stage="final", states=("h", "c"), normalised=True, keys=best),
    "gradient_by_lag_final_normalised",
)

# %% [markdown]
# ## 3. The gradient while the network learns
#
# One run of each cell at the longest length. Each row is one moment of training (from the bottom upwards), each
# column a time step of the sequence; the last step, where the answer is due, is on the right. Both panels share one
# colour scale.
#
# *What to look for:* how far to the left the light colours reach, that is, how far back in time the gradient is felt;
# and whether that changes suddenly, together with the error in the learning curves below. Blank means that training
# had ended.

# %%
here.show(figures.gradient_heat_map(results, keys=best), "gradient_heat_map")

# %% [markdown]
# ## 4. What was learned
#
# *What to look for:* the length from which on a cell no longer solves the task, and how wide the intervals are. The
# bars are **Wilson 95 % intervals**: with few runs they are wide, and where the bars of two cells overlap much, these
# runs do not tell the cells apart. A run near the chance line on the right has learned nothing; one between chance
# and zero has learned part of it, for example the later of the two marks alone, which leaves half of the sequences
# wrong.

# %%
here.show(
    figures.success_by_length(results, chance=task.chance.error, error=f"test:\n{error_name}", keys=best),
    "success_by_length",
)

# %% [markdown]
# ## 5. When it was learned
#
# *What to look for:* plateaus. Learning a long dependency is rarely gradual: the error stays near chance, or near one
# half once the later mark is known, until the gradient from the earlier mark is found.

# %%
here.show(
    figures.learning_curves(results, chance=task.chance.error, error=f"validation:\n{error_name}", keys=best),
    "learning_curves",
)

# %% [markdown]
# ## What these pictures can and cannot say
#
# They show two cells at one width, on one task, with one optimiser and a small grid of learning rates. A cell that
# does not solve a length here, within this many updates, may solve it with more of them, another initialisation or
# another rate; and a gradient that arrives is needed for learning, but does not guarantee it. Bands and intervals are
# over runs (seeds).
#
# Each figure lies beside this report as PNG and SVG, with a CSV of the numbers in it and a JSON that names its runs.
