# ---
# jupyter:
#   rnnstudy:
#     order: 2
# ---

# %% [markdown]
# # 2. Four shapes of sequence tasks
#
# A network reads a sequence and gives answers. When does it read, and when does it answer? There are four shapes:
#
# | shape | reads | answers | an everyday example |
# |---|---|---|---|
# | many to one | at every step | once, at the end | is this film review kind or unkind? |
# | one to many | once, at the start | at every step | a picture goes in, a sentence about it comes out |
# | many to many, synchronised | at every step | at every step | subtitles while somebody speaks |
# | many to many, delayed | first | afterwards | translate a sentence once you have heard it all |
#
# **In this notebook:** each shape as a drawing, and a small network that learns it in a few seconds.

# %%
import pandas as pd
import torch

import rnnstudy
from rnnstudy import figures
from rnnstudy.cells import LSTM, Elman
from rnnstudy.report import Notebook
from rnnstudy.results.trained import TrainedNetwork
from rnnstudy.run import Run, Training
from rnnstudy.tasks import NoiselessMemorisation, Parity, TemporalOrder, Waveform

here = Notebook("course/2_four_shapes")
UPDATES = 600

# %% [markdown]
# ## How to read the drawings
#
# Time goes from left to right. Each column is one step. Below stands what the network **reads**, xₜ. In the middle
# stands its **memory**, hₜ. Above stands its **answer**, oₜ (o for output), and in grey over it what the answer should
# be.
#
# Follow the arrows: the memory is made from what is read now and from the memory one step before. The next notebook
# calculates it. Here it is enough to know that there is one.
#
# In the beginning a network knows nothing: the numbers inside it (notebook 3 calls them weights) are random. It
# **learns** from examples. Each example changes these numbers a little, so that the answer gets closer to the right
# one. One such change is called an **update**. We allow at most a few hundred updates, and then test the network on 500
# sequences that it has never seen.

# %%
results = []


def learn(shape, task, cell, updates=UPDATES):
    """Train a network on a task; returns it, with a new sequence of the task to show."""
    training = Training(
        steps=updates, batch=32, learning_rate=0.01, check_every=50, validation_sequences=100, test_sequences=500
    )
    run = Run(task=task, cell=cell, training=training, probes=())
    *_, last = rnnstudy.train(run, device="cpu", engine="reference")
    network = TrainedNetwork(run, {name: torch.from_numpy(values) for name, values in last.weights.items()})
    results.append(
        {
            "shape": shape,
            "task": type(task).__name__,
            "updates": last.outcome.step,
            "error of the network": last.outcome.summary["error"],
            "error of the best guess": task.chance.error,
            "what the error is": task.criterion.error,
        }
    )
    return network, task.sample(1, torch.Generator().manual_seed(5))


def error():
    """The error of the network that was trained last, and of a guess, in words."""
    row = results[-1]
    return f"{row['error of the network']:.2g} (the best guess without reading: {row['error of the best guess']:.2g})"


# %% [markdown]
# ## Many to one
#
# The task is *temporal order*, from notebook 1. Two of the ten letters are capital, A or B. At the last step the
# network must name them in their order. So it reads ten times and answers once.

# %%
network, example = learn("many to one", TemporalOrder(length=10), Elman(width=20))
letters = ["ABcdef"[place] for place in example.inputs[:, 0].argmax(-1)]
classes = ["AA", "BA", "AB", "BB"]
answer = network(example.inputs)[-1, 0].softmax(-1)
target = classes[example.targets[-1, 0]]
picture = figures.unfolded(
    10,
    outputs=[10],
    nodes={"x": letters, "o": [""] * 9 + [classes[answer.argmax()]]},
    targets=[""] * 9 + [target],
    weight_names=False,
    across=0.95,
    title="Many to one: read ten letters, then answer once",
    caption="A test sequence, and the answer of the trained network.",
)
here.show(
    picture,
    "many_to_one",
    title="Many to one",
    takeaway=f"""
    The network has read {"".join(letters)}. It says {classes[answer.argmax()]}, and gives this answer a probability of
    {answer.max():.0%}. The right answer is {target}. The first capital letter must stay in the memory until the end: it
    travels through many arrows. Share of the test sequences with a wrong answer: {error()}.
    """,
)

# %% [markdown]
# ## One to many
#
# The task is *waveform*. The network reads one symbol at the first step: 1, 2 or 3. After that it reads nothing. It
# must draw a wave, a slow or a fast one, depending on the symbol.

# %%
network, example = learn("one to many", Waveform(length=10, waves=3), Elman(width=20))
symbol = int(example.inputs[0, 0].argmax()) + 1
wave = network(example.inputs)[:, 0, 0].tolist()
picture = figures.unfolded(
    11,
    inputs=[1],
    outputs=range(2, 12),
    nodes={"x": [str(symbol)] + [""] * 10, "o": [round(value, 2) for value in wave]},
    targets=[round(value, 2) for value in example.targets[:, 0, 0].tolist()],
    weight_names=False,
    across=0.95,
    title="One to many: read one symbol, then draw a wave",
    caption="A test sequence, and the answers of the trained network.",
)
here.show(
    picture,
    "one_to_many",
    title="One to many",
    takeaway=f"""
    After the first step nothing comes from outside. The network must remember which wave to draw, and where in the wave
    it is. All of this is in its memory h. Compare the numbers in the boxes with the grey numbers over them. Distance
    from the target, squared, averaged over new sequences: {error()}.
    """,
)

# %% [markdown]
# ## Many to many, synchronised
#
# The task is *parity*. The network reads bits: 0 or 1. At every step it must say whether the number of ones so far is
# odd. Every 1 changes the answer, from odd to even or back, and the network must answer at once.

# %%
network, example = learn("many to many, synchronised", Parity(length=8), Elman(width=20))
bits = [str(int(bit)) for bit in example.inputs[:, 0, 0]]
odd = ["even", "odd"]
said = [odd[place] for place in network(example.inputs)[:, 0].argmax(-1)]
wanted = [odd[place] for place in example.targets[:, 0]]
picture = figures.unfolded(
    8,
    nodes={"x": bits, "o": said},
    targets=wanted,
    weight_names=False,
    across=1.05,
    title="Many to many, synchronised: an answer at every step",
    caption="A test sequence, and the answers of the trained network.",
)
here.show(
    picture,
    "synchronised",
    title="Many to many, synchronised",
    takeaway=f"""
    Here {sum(a == b for a, b in zip(said, wanted, strict=True))} of 8 answers are right. One bit of memory is enough,
    odd or even, but it may never be lost: one mistake makes all later answers wrong. Share of wrong steps on new
    sequences: {error()}.
    """,
)

# %% [markdown]
# ## Many to many, delayed
#
# The task is *noiseless memorisation*. The network reads five bits, waits, and sees the signal ">". Only then it must
# repeat the five bits, in the same order. While it reads and waits, the right answer is "not yet", drawn as "–". This
# network is an LSTM, which notebook 6 explains. It also has a larger memory: 40 numbers instead of 20.

# %%
network, example = learn(
    "many to many, delayed", NoiselessMemorisation(length=1), LSTM(width=40), updates=round(1.5 * UPDATES)
)
read = ["01 >"[place] for place in example.inputs[:, 0].argmax(-1)]
said = ["01–"[place] for place in network(example.inputs)[:, 0].argmax(-1)]
wanted = ["01–"[place] for place in example.targets[:, 0]]
picture = figures.unfolded(
    11,
    nodes={"x": read, "o": said},
    targets=wanted,
    weight_names=False,
    across=0.95,
    title="Many to many, delayed: first read everything, then answer",
    caption="A test sequence, and the answers of the trained network; – means: no answer yet.",
)
here.show(
    picture,
    "delayed",
    title="Many to many, delayed",
    takeaway=f"""
    When the answer begins, the network reads nothing new. All five bits must already be in its memory, with their
    order. Share of the test sequences with any wrong step: {error()}.
    """,
)

# %% [markdown]
# ## All four together
#
# Small recurrent networks learned all four. What differs are the steps at which they read and answer.

# %%
here.table(pd.DataFrame(results))

# %% [markdown]
# ## Exercises
#
# **1.** Which shape is it? (a) Spam or not spam. (b) Typing on a phone: after every word, propose the next one. (c) A
# composer program gets a style, "waltz" or "blues", and writes a melody. (d) Sum up a long text in two sentences.
#
# <details><summary>Solution</summary>
#
# (a) many to one; (b) many to many, synchronised; (c) one to many; (d) many to many, delayed.
#
# </details>
#
# **2.** In the drawing of the delayed task: how many steps after the first bit has been read must it be repeated?
#
# <details><summary>Solution</summary>
#
# It is read at step 1 and repeated at step 7: six steps later. With a pause of T steps it is 5 + T.
#
# ```python
# task = NoiselessMemorisation(length=1)
# first_answer = task.steps - task.positions + 1
# assert (first_answer, first_answer - 1) == (7, 6)
# assert NoiselessMemorisation(length=100).steps - 5 == 5 + 100
# ```
#
# </details>
#
# **3.** Make the sequences longer: 200 letters instead of 10. Which of the tasks gets harder, and why?
#
# <details><summary>Solution</summary>
#
# All of them, because something must be kept for longer. Many to one shows it most clearly: there is a single answer,
# at the very end. Whatever the network should learn about the first letters must travel back from this one answer,
# through all arrows, to the beginning. Notebook 5 follows it on its way.
#
# </details>
#
# **In one sentence:** the four shapes differ in when a network reads and when it answers, and all of them need a memory
# that goes from step to step.
#
# Next: *3. One step of a recurrent network, by hand.*
