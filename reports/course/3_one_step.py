# ---
# jupyter:
#   rnnstudy:
#     order: 3
# ---

# %% [markdown]
# # 3. One step of a recurrent network, by hand
#
# Notebook 2 said: the memory at step t is made from what is read at step t and from the memory one step before. Now we
# calculate it.
#
# **In this notebook:** the smallest recurrent network, on paper; the same with several units, as matrices; several
# layers; and a comparison with PyTorch, which must give the same numbers.

# %%
import math

import numpy as np
import pandas as pd
import seaborn
import torch
from torch import nn

from rnnstudy import figures
from rnnstudy.report import Notebook

here = Notebook("course/3_one_step")

# %% [markdown]
# ## The smallest network
#
# It reads one number xₜ, has a memory of one number hₜ, and answers one number oₜ. It has three **weights**: fixed
# numbers that it multiplies by. (Learning changes them. While the network reads, they stay as they are.)
#
# | weight | from | to | here |
# |---|---|---|---|
# | W_xh | what is read, x | the memory, h | 0.8 |
# | W_hh | the memory one step before | the memory, h | 0.5 |
# | W_ho | the memory, h | the answer, o | 2 |
#
# The name of a weight says where it leads: W_xh leads from x to h. One step is
#
#     hₜ = tanh(xₜ · W_xh + hₜ₋₁ · W_hh)
#     oₜ = hₜ · W_ho
#
# **tanh** is a curve that squeezes every number, however large, into the range from −1 to 1. Without it the memory
# could grow without end. Before the first step the memory is empty: h₀ = 0.

# %%
W_xh, W_hh, W_ho = 0.8, 0.5, 2.0
x = [1.0, 0.0, 0.0, -1.0]
before, h, o = 0.0, [], []
for t in range(len(x)):
    before = math.tanh(x[t] * W_xh + before * W_hh)
    h.append(before)
    o.append(before * W_ho)

arrows = {
    "W_xh": [value * W_xh for value in x],
    "W_hh": [math.nan, *(value * W_hh for value in h[:-1])],
    "W_ho": [value * W_ho for value in h],
}
picture = figures.unfolded(
    4,
    nodes={"x": x, "h": h, "o": o},
    arrows=arrows,
    folded=True,
    title="One network, unfolded over four steps",
    caption="The network with W_xh = 0.8, W_hh = 0.5, W_ho = 2. On an arrow: the number at its start times the weight.",
)
here.show(
    picture,
    "by_hand",
    title="One step after the other",
    takeaway=f"""
    Left: the network as one writes it down, with a loop from the memory to itself. Right: the same network
    **unfolded**, with one column for each step. The weights are the same in every column. Check step 1: 1 × 0.8 = 0.8,
    and tanh(0.8) = {h[0]:.2f}. Step 2 reads a 0, so only memory comes in: {h[0]:.2f} × 0.5 = {h[0] * W_hh:.2f}, and
    tanh({h[0] * W_hh:.2f}) = {h[1]:.2f}. **The 1 from step 1 is still there, but it gets weaker at every step**:
    {h[0]:.2f}, {h[1]:.2f}, {h[2]:.2f}.
    """,
)

# %% [markdown]
# ## The squeezing curve
#
# The tanh matters for this course in one more way: its **slope**. The slope says how much the output moves if the input
# moves a little. It is 1 in the middle and nearly 0 at the ends, and never more than 1. Remember this for notebook 5.

# %%
inputs = np.linspace(-4, 4, 161)
curve = pd.DataFrame({"input": inputs, "tanh": np.tanh(inputs), "slope": 1 - np.tanh(inputs) ** 2})
with figures.house_style():
    figure, (axis,) = figures.panels(1, height=3.6)
    axis.plot(curve["input"], curve["tanh"], color=figures.STYLES["LSTM"].colour)
    axis.plot(curve["input"], curve["slope"], color=figures.STYLES["Elman"].colour, linestyle="--")
    axis.text(4.1, 1, "tanh", color=figures.STYLES["LSTM"].colour, va="center")
    axis.text(4.1, 0, "its slope", color=figures.STYLES["Elman"].colour, va="center")
    axis.set(xlabel="input", title="tanh squeezes, and its slope is never above 1")
here.show(
    figures.Picture(figure, curve, (), "tanh and its slope, 1 − tanh²."),
    "tanh",
    title="tanh and its slope",
    takeaway="""
    Solid: tanh. Dashed: its slope. Where the curve is flat the slope is nearly zero: a unit there hardly notices small
    changes. One says it is **saturated**.
    """,
)

# %% [markdown]
# ## Several units: numbers become matrices
#
# One number is a poor memory. Real networks have a memory of many numbers. Each one is called a **unit**; together they
# are the **hidden layer**, because they are neither input nor answer. Now xₜ and hₜ are vectors, and every weight
# becomes a table of weights, a **matrix**: one row for each number that comes in, one column for each unit.
#
# To get a unit, take its column: multiply each number that comes in by the weight beside it, and add everything up.
# Two inputs and three units give
#
#     hₜ = tanh(xₜ W_xh + hₜ₋₁ W_hh + b)
#
# Here W_xh has 2 rows and 3 columns, W_hh has 3 rows and 3 columns, and b is the **bias**: one number for each unit
# that is always added. Here is the same with both matrices put together. Write xₜ and hₜ₋₁ side by side as one
# vector, and W_xh above W_hh as one matrix W_h. Then a step is a single product:
#
#     hₜ = tanh([xₜ, hₜ₋₁] W_h + b)
#
# (Books that write vectors as columns put the matrices side by side: W_h = [W_xh, W_hh]. It is the same.)

# %%
torch.manual_seed(1)
exact = torch.float64  # sixteen digits
network = nn.RNN(input_size=2, hidden_size=3, dtype=exact)
# PyTorch keeps the matrices turned on their side, and two biases that it adds.
W_xh, W_hh = network.weight_ih_l0.detach().T, network.weight_hh_l0.detach().T
b = (network.bias_ih_l0 + network.bias_hh_l0).detach()
W_h = torch.cat([W_xh, W_hh])
sequence = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5], [0.5, 0.5]], dtype=exact)

state, apart, together = torch.zeros(3, dtype=exact), [], []
for xt in sequence:
    apart.append(torch.tanh(xt @ W_xh + state @ W_hh + b))
    together.append(torch.tanh(torch.cat([xt, state]) @ W_h + b))
    state = apart[-1]

names = ["x, number 1", "x, number 2", "h, unit 1", "h, unit 2", "h, unit 3"]
table = pd.DataFrame(W_h.numpy(), index=names, columns=["unit 1", "unit 2", "unit 3"])
with figures.house_style():
    figure, (axis,) = figures.panels(1, height=3.6)
    seaborn.heatmap(
        table,
        ax=axis,
        annot=table.round(2) + 0.0,
        fmt=".2f",
        cmap="RdBu_r",
        vmin=-0.6,
        vmax=0.6,
        linewidths=1,
        cbar=False,
    )
    axis.axhline(2, color="black", linewidth=3)
    axis.tick_params(length=0)
    axis.set_yticklabels(names, rotation=0)
    axis.set(ylabel="from", xlabel="to the memory of the next step", title="W_h: above the line W_xh, below it W_hh")
here.show(
    figures.Picture(
        figure, table.reset_index(names="from"), (), "The weights of a new network; red above 0, blue below."
    ),
    "W_h",
    title="All weights into the memory are one matrix",
    takeaway=f"""
    Each column makes one unit. The largest difference between the two ways of writing a step, over all four steps, is
    {(torch.stack(apart) - torch.stack(together)).abs().max():.1g}: nothing but rounding in the sixteenth digit.
    """,
)

# %% [markdown]
# ## The same as PyTorch, to the last digit
#
# `nn.RNN` is the recurrent network of PyTorch, a library that many people use. If we have understood the step, it must
# return our numbers. We do the additions in its order, because rounding depends on the order.

# %%
with torch.no_grad():
    outputs, last = network(sequence)
state, by_hand = torch.zeros(3, dtype=exact), []
for xt in sequence:
    from_input = nn.functional.linear(xt, network.weight_ih_l0, network.bias_ih_l0)
    from_memory = nn.functional.linear(state, network.weight_hh_l0, network.bias_hh_l0)
    state = torch.tanh(from_input + from_memory).detach()
    by_hand.append(state)
by_hand = torch.stack(by_hand)
difference = float((by_hand - outputs).abs().max())
comparison = pd.DataFrame(
    {
        "step": range(1, 5),
        "unit 1, by hand": [f"{value:.17f}" for value in by_hand[:, 0].tolist()],
        "unit 1, nn.RNN": [f"{value:.17f}" for value in outputs[:, 0].tolist()],
    }
)
here.table(comparison)
here.say(f"Largest difference over all steps and units: **{difference:.1g}**.")

# %% [markdown]
# ## Layers on top of each other
#
# One can put a second hidden layer on top of the first. It reads the memory of the first layer as if that were its
# input. There is one rule: the second layer needs something to read **at every step**. So every inner layer must hand
# on its whole sequence of memories, h₁, h₂, …, h_T, and not only the last one. (In the library Keras this is called
# `return_sequences=True`.) Only the topmost layer may return its last step alone, if one answer at the end is enough.

# %%
deep = nn.RNN(input_size=1, hidden_size=1, num_layers=2, dtype=exact)
with torch.no_grad():
    for name, value in (("weight_ih_l0", 0.8), ("weight_hh_l0", 0.5), ("weight_ih_l1", 1.5), ("weight_hh_l1", -0.6)):
        getattr(deep, name).fill_(value)
    for bias in (deep.bias_ih_l0, deep.bias_hh_l0, deep.bias_ih_l1, deep.bias_hh_l1):
        bias.fill_(0.0)
    top, _ = deep(torch.tensor(x, dtype=exact).unsqueeze(-1))


def layer(inputs, W_xh, W_hh):
    """One layer: the whole sequence goes in, the whole sequence of memories comes out."""
    memory, sequence = 0.0, []
    for value in inputs:
        memory = math.tanh(value * W_xh + memory * W_hh)
        sequence.append(memory)
    return sequence


first = layer(x, 0.8, 0.5)
second = layer(first, 1.5, -0.6)
answer = 2.0 * second[-1]
picture = figures.unfolded(
    4,
    layers=2,
    outputs=[4],
    nodes={"x": x, "h1": first, "h2": second, "o": ["", "", "", answer]},
    arrows={
        "W_xh_layer1": [value * 0.8 for value in x],
        "W_hh_layer1": [math.nan, *(value * 0.5 for value in first[:-1])],
        "W_xh_layer2": [value * 1.5 for value in first],
        "W_hh_layer2": [math.nan, *(value * -0.6 for value in second[:-1])],
        "W_ho": [math.nan] * 3 + [answer],
    },
    title="Two layers: the inner one hands on every step",
    caption="A network with W_xh¹ = 0.8, W_hh¹ = 0.5, W_xh² = 1.5, W_hh² = −0.6, W_ho = 2; one answer at the end.",
)
here.show(
    picture,
    "two_layers",
    title="Two layers",
    takeaway=f"""
    Every box of the lower layer sends an arrow upwards. If only the last one did, the upper layer would have nothing to
    read at steps 1 to 3. Our upper layer ends at {second[-1]:.6f}, that of `nn.RNN` with two layers at
    {top[-1, 0]:.6f}.
    """,
)

# %% [markdown]
# ## Exercises
#
# **1.** Take the smallest network (W_xh = 0.8, W_hh = 0.5) and let it read 2, then 0. What is h₂? A pocket calculator
# will do.
#
# <details><summary>Solution</summary>
#
# h₁ = tanh(2 × 0.8) = tanh(1.6) = 0.92. Then h₂ = tanh(0.92 × 0.5) = tanh(0.46) = 0.43.
#
# ```python
# h1 = math.tanh(2 * 0.8)
# assert round(h1, 2) == 0.92
# assert round(math.tanh(h1 * 0.5), 2) == 0.43
# ```
#
# </details>
#
# **2.** A network reads 10 numbers at each step, has 50 units and gives 4 answers. How many weights and biases does it
# have?
#
# <details><summary>Solution</summary>
#
# W_xh: 10 × 50 = 500. W_hh: 50 × 50 = 2500. The bias of the units: 50. W_ho: 50 × 4 = 200, and 4 biases of the answers.
# Together 3254. More than three quarters of them are in W_hh, the matrix from memory to memory.
#
# ```python
# assert 10 * 50 + 50 * 50 + 50 + 50 * 4 + 4 == 3254
# recurrent = nn.RNN(10, 50)  # PyTorch has a second bias for the units
# counted = sum(parameter.numel() for parameter in [*recurrent.parameters(), *nn.Linear(50, 4).parameters()])
# assert counted == 3254 + 50
# ```
#
# </details>
#
# **3.** The same network reads a sequence of 10 steps, then one of 1000 steps. How many weights does it need for the
# long one?
#
# <details><summary>Solution</summary>
#
# The same 3254. All steps share their weights: unfolding copies the picture, not the weights. This is why a recurrent
# network can read sequences of any length. It is also the root of its trouble: the same W_hh is applied again and
# again, 1000 times.
#
# </details>
#
# **In one sentence:** a step multiplies what is read and what is remembered by fixed weights, adds, and squeezes the
# sum with tanh; unfolding draws one copy for every step.
#
# Next: *4. Three ways to remember.*
