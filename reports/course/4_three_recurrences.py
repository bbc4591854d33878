# ---
# jupyter:
#   rnnstudy:
#     order: 4
# ---

# %% [markdown]
# # 4. Three ways to remember
#
# A recurrent network needs an arrow from one step to the next. So far this arrow went from memory to memory. It can
# also begin at the answer. There are three ways:
#
# | name | the arrow leads | weights |
# |---|---|---|
# | hidden recurrence | from the hidden layer to the hidden layer of the next step | W_hh |
# | output to hidden (Jordan) | from the answer to the hidden layer of the next step | W_oh |
# | output to output | from the answer to the answer of the next step | W_oo |
#
# **In this notebook:** the three drawings, what each can carry, and a test of all three on two tasks.

# %%
import pandas as pd
import torch

import rnnstudy
from rnnstudy import figures
from rnnstudy.cells import Elman, Jordan, OutputRecurrent
from rnnstudy.report import Notebook
from rnnstudy.results.trained import TrainedNetwork
from rnnstudy.run import Run, Training
from rnnstudy.tasks import Parity, Waveform

here = Notebook("course/4_three_recurrences")
UPDATES = 500
SEEDS = (0, 1, 2)

# %% [markdown]
# ## Hidden recurrence
#
# This is the network of notebook 3. The whole hidden layer is handed on. With 20 units, 20 numbers go from step to
# step.

# %%
caption = "The network folded (left) and unfolded over three steps (right)."
here.show(
    figures.unfolded(3, recurrences=["hidden"], folded=True, title="Hidden recurrence: W_hh", caption=caption),
    "hidden",
    title="Hidden recurrence",
    takeaway="The network may keep in its hidden layer whatever is useful, even if no answer ever shows it.",
)

# %% [markdown]
# ## Output to hidden: the Jordan network
#
# Here the hidden layer reads the previous **answer** instead of its own previous value (dashed arrows). If there is one
# answer number, then one number goes from step to step, however large the hidden layer is.

# %%
here.show(
    figures.unfolded(3, recurrences=["output to hidden"], folded=True, title="Output to hidden: W_oh", caption=caption),
    "output_to_hidden",
    title="Output to hidden",
    takeaway="All that is remembered must pass through the answer. It is a narrow door.",
)

# %% [markdown]
# ## Output to output
#
# Here the answer is made from the hidden layer and from the previous answer. The hidden layer itself remembers nothing:
# it sees only what is read at this step.

# %%
here.show(
    figures.unfolded(3, recurrences=["output to output"], folded=True, title="Output to output: W_oo", caption=caption),
    "output_to_output",
    title="Output to output",
    takeaway="""
    The old answer is multiplied by W_oo and **added** to something that depends on the present input alone. The network
    can add things up. It cannot do one thing when the old answer was high and another when it was low.
    """,
)

# %% [markdown]
# ## How wide is the door? A measurement
#
# Think of the way from one step to the next as a door: what does not fit through it is forgotten. How many numbers can
# really go through? For the Jordan network the way is hₜ₋₁ → answer → hₜ.
# Multiply the two matrices on this way, W_ho and W_oh. The result has 20 rows and 20 columns, like W_hh. The **rank**
# of a matrix counts the independent numbers that get through it.

# %%
generator = torch.Generator().manual_seed(0)
ranks = []
for answers in (1, 2, 5, 10):
    W_ho, W_oh = torch.randn(20, answers, generator=generator), torch.randn(answers, 20, generator=generator)
    W_hh = torch.randn(20, 20, generator=generator)
    ranks.append(
        {
            "units": 20,
            "answers": answers,
            "rank of W_ho W_oh": int(torch.linalg.matrix_rank(W_ho @ W_oh)),
            "rank of W_hh": int(torch.linalg.matrix_rank(W_hh)),
        }
    )
here.table(pd.DataFrame(ranks))

# %% [markdown]
# ## Two tasks that tell them apart
#
# **Parity** (from notebook 2): is the number of ones so far odd? Here the right answer *is* all that must be
# remembered. So the answer could serve as the memory.
#
# **Waveform** (from notebook 2): draw one of three waves. Here the answer is *not* enough. Suppose the wave stands at
# 0.5. Is it on its way up or down? Is it the slow wave or the fast one? The answer 0.5 does not say.
#
# Before you go on: which of the three networks will learn which task?
#
# We train each network three times on each task, every time with other random weights to begin with.

# %%
tasks = {"parity": Parity(length=6), "waveform": Waveform(length=12, waves=3)}
cells = {"hidden": Elman(width=20), "output to hidden": Jordan(width=20), "output to output": OutputRecurrent(width=20)}
training = Training(
    steps=UPDATES, batch=32, learning_rate=0.01, check_every=50, validation_sequences=100, test_sequences=300
)
rows, networks = [], {}
for task_name, task in tasks.items():
    for recurrence, cell in cells.items():
        runs = [Run(task=task, cell=cell, training=training, probes=(), seed=seed) for seed in SEEDS]
        records = [record for record in rnnstudy.train(runs, device="cpu", engine="reference") if record.outcome]
        for run in runs:
            record = next(record for record in records if record.key == run.key)
            weights = {name: torch.from_numpy(values) for name, values in record.weights.items()}
            networks[task_name, recurrence, run.seed] = TrainedNetwork(run, weights)
            rows.append(
                {
                    "task": task_name,
                    "recurrence": recurrence,
                    "seed": run.seed,
                    "solved": bool(record.outcome.solved),
                    "error": record.outcome.summary["error"],
                    "best guess": task.chance.error,
                }
            )
table = pd.DataFrame(rows)

# %%
labels = {
    "hidden": "hidden\n(W_hh)",
    "output to hidden": "output to\nhidden (W_oh)",
    "output to output": "output to\noutput (W_oo)",
}
styles = [figures.STYLES[name] for name in ("Elman", "Jordan", "OutputRecurrent")]
with figures.house_style():
    figure, axes = figures.panels(2, share_y=False)
    for axis, (name, task) in zip(axes, tasks.items(), strict=True):
        for place, (recurrence, drawn) in enumerate(zip(cells, styles, strict=True)):
            errors = table[(table["task"] == name) & (table["recurrence"] == recurrence)]["error"]
            across = [place + 0.12 * (number - 1) for number in range(len(errors))]
            axis.plot(across, errors, drawn.marker, color=drawn.colour, markersize=8, alpha=0.8)
        axis.axhline(task.chance.error, color="0.35", linestyle="--", linewidth=1.3)
        axis.text(-0.45, task.chance.error, "best guess", va="bottom", color="0.25", fontsize=10)
        axis.set_xticks(range(3), list(labels.values()))
        axis.set(xlim=(-0.5, 2.5), title=name, ylabel=task.criterion.error, ylim=(-0.02, None))
here.show(
    figures.Picture(
        figure,
        table,
        (),
        f"Each mark is a network after at most {UPDATES} updates; dashed: the best guess without reading.",
    ),
    "errors",
    title="Who learns what",
    takeaway="""
    Low is good. **What must be remembered has to fit through the door.** On parity the answer is the memory, so the
    door behind the answer can be enough. On waveform it is not. The table counts the networks that solved their task.
    """,
)
solved = table.groupby(["task", "recurrence"], sort=False)["solved"].sum().unstack("task")
here.table(solved.astype(int).add_suffix(f": solved, of {len(SEEDS)}").reset_index())

# %% [markdown]
# ## What the failure looks like
#
# Let the three networks draw the same wave.

# %%
task = tasks["waveform"]
example = task.sample(8, torch.Generator().manual_seed(2))
chosen = int(example.inputs[0].argmax(-1).argmax())
time = range(1, task.length + 1)
lines = {"the wave": example.targets[1:, chosen, 0].tolist()}
lines |= {name: networks["waveform", name, 0](example.inputs)[1:, chosen, 0].tolist() for name in cells}
with figures.house_style():
    figure, axes = figures.panels(3, height=3.6)
    for axis, (recurrence, drawn) in zip(axes, zip(cells, styles, strict=True), strict=True):
        axis.plot(time, lines["the wave"], color="0.6", linewidth=4)
        axis.plot(time, lines[recurrence], color=drawn.colour, marker=drawn.marker, markersize=5)
        axis.set(title=recurrence, xlabel="steps after the symbol")
    axes[0].set_ylabel("answer oₜ")
data = pd.DataFrame(lines).assign(step=time)
here.show(
    figures.Picture(
        figure, data, (), "Grey: what should be drawn; in colour: what the first of the three networks draws."
    ),
    "waves",
    title="Three networks draw the same wave",
    takeaway="""
    With hidden recurrence the network follows the wave. The other two must find the next value from the present value
    alone; but on the way up the same value is followed by a higher one, on the way down by a lower one.
    """,
)

# %% [markdown]
# ## Exercises
#
# **1.** A Jordan network has 500 hidden units and 3 answers. How many numbers go from step to step?
#
# <details><summary>Solution</summary>
#
# Three. All 500 units are computed anew at every step, from the input and the three previous answers.
#
# ```python
# wide = torch.randn(500, 3) @ torch.randn(3, 500)
# assert int(torch.linalg.matrix_rank(wide)) == 3
# ```
#
# </details>
#
# **2.** Can output-to-output recurrence keep the sum of everything it has read? Choose the weights.
#
# <details><summary>Solution</summary>
#
# Yes. Let the hidden layer pass on the input (a linear unit with weight 1), and choose W_ho = 1 and W_oo = 1. Then
# oₜ = xₜ + oₜ₋₁.
#
# ```python
# total, read = 0.0, [3.0, 1.0, 4.0]
# for value in read:
#     total = value * 1.0 + total * 1.0
# assert total == sum(read)
# ```
#
# </details>
#
# **3.** Why can it not compute parity, even with the best weights?
#
# <details><summary>Solution</summary>
#
# A 1 must turn the answer round: from even to odd, but from odd to even. So the same input must push up in one case and
# down in the other. In oₜ = (something from xₜ) + oₜ₋₁ W_oo the push of xₜ is always the same, whatever the old answer
# was, and the part W_oo does not know whether xₜ is 0 or 1. The Jordan network can do it, because its hidden layer sees
# both, the input and the old answer.
#
# </details>
#
# **In one sentence:** a network can only remember what its arrow from step to step can carry, and hidden recurrence
# carries most. The rest of the course looks at hidden recurrence.
#
# Next: *5. Backwards through time.*
