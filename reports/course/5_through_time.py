# ---
# jupyter:
#   rnnstudy:
#     order: 5
# ---

# %% [markdown]
# # 5. Backwards through time
#
# A network learns from its error. The answer comes at the last step, the cause may stand at the first. So the error has
# to travel back, step by step, through all the arrows of the unfolded network.
#
# **In this notebook:** this journey, calculated by hand; why the message fades or explodes on its way; and what can be
# done if it explodes.

# %%
import math

import numpy as np
import pandas as pd
import seaborn
import torch
from torch import nn

import rnnstudy
from rnnstudy import figures
from rnnstudy.figures.single_unit import Unit, descend
from rnnstudy.report import Notebook, power_of_ten

here = Notebook("course/5_through_time")

# %% [markdown]
# ## What a gradient is
#
# Suppose the network has answered, and its answer is wrong. How wrong it is, is measured by one number, the **error**
# E. Here we take the squared distance: E = (answer − target)².
#
# Now nudge one number inside the network, say h₃, upwards by a tiny bit. The error changes a little. Divide the change
# of the error by the size of the nudge. This ratio is the **gradient** of E with respect to h₃, written dE/dh₃.
#
# - A large gradient says: this number matters for the error.
# - A gradient of zero says: nudge it as you like, the error does not care.
#
# Learning uses just this. Every weight is moved a little in the direction that makes the error smaller, in proportion
# to its gradient. **Where no gradient arrives, nothing is learned.**
#
# ## The journey of the error, by hand
#
# Take the smallest network of notebook 3 (W_xh = 0.8, W_hh = 0.5, W_ho = 2). It reads a 1 at the first step and zeros
# after that, and should answer 1 at step 6. Going back, each arrow multiplies:
#
# - from the error to the answer: 2 (answer − target), the slope of the square;
# - from the answer to the memory: times W_ho;
# - from a memory to the memory before: times the slope of the tanh at that step, times W_hh.
#
# This is the **chain rule** of school: where functions are applied one after the other, their slopes are multiplied.
#
# Why do we ask about memories, when it is the weights that learn? A weight works at every step, through the memory of
# that step. Its own gradient is a sum: what it did at step 1, plus what it did at step 2, and so on. So if no gradient
# arrives at the memory of step 1, then step 1 has no say in how the weights change.

# %%
W_xh, W_hh, W_ho, target = 0.8, 0.5, 2.0, 1.0
x = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def read(x, nudge_at=None, nudge=0.0):
    """All memories of the network, and its error; if wanted, one memory is nudged."""
    memory, h = 0.0, []
    for t, value in enumerate(x):
        memory = math.tanh(value * W_xh + memory * W_hh) + (nudge if t == nudge_at else 0.0)
        h.append(memory)
    return h, (W_ho * memory - target) ** 2


h, error = read(x)
gradient = [0.0] * len(x)
gradient[-1] = 2 * (W_ho * h[-1] - target) * W_ho
for t in reversed(range(1, len(x))):
    slope = 1 - h[t] ** 2
    gradient[t - 1] = gradient[t] * slope * W_hh

nudged = [(read(x, nudge_at=t, nudge=1e-6)[1] - error) / 1e-6 for t in range(len(x))]
picture = figures.unfolded(
    6,
    outputs=[6],
    nodes={"x": x, "h": h, "o": [""] * 5 + [W_ho * h[-1]]},
    targets=[""] * 5 + [target],
    arrows={"W_hh": [math.nan, *gradient[:-1]], "W_ho": [math.nan] * 5 + [gradient[-1]]},
    backward=True,
    across=1.45,
    title="The gradient on its way back",
    caption="On each arrow: the gradient of the error with respect to the memory that the arrow leads to. Thin: small. "
    "(What is read has no arrows here.)",
)
here.show(
    picture,
    "journey",
    title="The gradient on its way back",
    takeaway=f"""
    Read from right to left. At the last step the gradient is
    {figures.number_text(gradient[-1])}; at the first it is
    {figures.number_text(gradient[0])}. Each step back multiplies by W_hh × slope, here by at most 0.5. After five steps
    the error hardly notices h₁.
    """,
)
here.table(
    pd.DataFrame({"memory": [f"h{t}" for t in range(1, 7)], "by multiplying": gradient, "by really nudging": nudged})
)

# %% [markdown]
# The table tests it: the numbers that we got by multiplying are those that we get if we really nudge each memory and
# calculate the error again.
#
# ## With several units: a product of matrices
#
# With several units there are many ways back: each unit is connected with each unit of the step before. All the factors
# of one step together form a matrix, called the **Jacobian** of that step. It says how each unit at step t reacts to
# each unit at step t − 1:
#
#     J_t = W_hh, each column multiplied by
#           the slope of its unit at step t
#
# Going back over many steps multiplies these matrices:
#
#     from h_T back to h₁:   J₂ J₃ J₄ … J_T
#
# Two matrices are multiplied row by row: each row of the first is a vector, and goes through the second as a vector
# went through W_hh in notebook 3. The product adds up all the ways that lead over the units in between.

# %%
torch.manual_seed(3)
exact = torch.float64
steps, units = 9, 3
network = nn.RNN(2, units, dtype=exact)
sequence = torch.randn(steps, 1, 2, dtype=exact)
with rnnstudy.watch(network) as flow:
    memories, _ = network(sequence)
    loss = memories[-1].square().sum()
    loss.backward()

matrix = network.weight_hh_l0.detach().T
slopes = 1 - memories.detach()[:, 0] ** 2
jacobians = [matrix * slope for slope in slopes]  # the Jacobian of step t: columns times slopes
products = {0: torch.eye(units, dtype=exact)}
for back in range(1, steps):
    products[back] = jacobians[steps - back] @ products[back - 1]
at_end = 2 * memories.detach()[-1, 0]
by_hand = [float((products[steps - t] @ at_end).norm()) for t in range(1, steps + 1)]
watched = (10 ** flow[""].log10("h")[0]).tolist()
largest = max(abs(a / b - 1) for a, b in zip(by_hand, watched, strict=True))

shown = (1, 2, 8)
with figures.house_style():
    figure, axes = figures.panels(3, height=3.2)
    for axis, back in zip(axes, shown, strict=True):
        names = [f"unit {unit + 1}" for unit in range(units)]
        table = pd.DataFrame(products[back].numpy(), index=names, columns=names)
        seaborn.heatmap(
            table,
            ax=axis,
            annot=table.map(figures.number_text),
            fmt="",
            cmap="RdBu_r",
            vmin=-0.8,
            vmax=0.8,
            cbar=False,
            linewidths=1,
        )
        axis.tick_params(length=0)
        axis.set(title=f"{back} step{'s' if back > 1 else ''} back")
    figure.suptitle("The product of Jacobians fades with every step", fontweight="bold")
data = pd.DataFrame(
    [
        (back, i + 1, j + 1, float(products[back][i, j]))
        for back in products
        for i in range(units)
        for j in range(units)
    ],
    columns=["steps back", "from unit", "to unit", "number"],
)
here.show(
    figures.Picture(
        figure, data, (), "J of the last step, and products of the last 2 and 8 Jacobians; a new network with 3 units."
    ),
    "jacobians",
    title="The product of Jacobians fades with every step",
    takeaway=f"""
    Each square says how strongly one unit at the end reacts to one unit some steps before. One step back the largest
    number is {products[1].abs().max():.2f}; eight steps back it is {products[8].abs().max():.4f}.
    """,
)
here.table(
    pd.DataFrame(
        {"step": range(1, steps + 1), "size of the gradient, multiplied out": by_hand, "rnnstudy.watch": watched}
    )
)
here.say(
    "The *size* of a gradient is its length as a vector. The last column is measured by this project's own tool in "
    f"PyTorch's network. Largest relative difference: {largest:.1g}."
)

# %% [markdown]
# ## 0.92 multiplied 200 times
#
# So the gradient is multiplied by a similar factor at every step. Say the factor is 0.92. This looks harmless: only 8 %
# are lost. Let us multiply it out, doubling the number of steps each time:
#
# | steps | calculation | factor |
# |---|---|---|
# | 1 | | 0.92 |
# | 2 | 0.92 × 0.92 | 0.846 |
# | 4 | 0.846 × 0.846 | 0.716 |
# | 8 | 0.716 × 0.716 | 0.513 |
# | 16 | 0.513 × 0.513 | 0.263 |
# | 32 | 0.263 × 0.263 | 0.0694 |
# | 64 | 0.0694 × 0.0694 | 0.00481 |
# | 128 | 0.00481 × 0.00481 | 0.0000232 |
# | 200 = 128 + 64 + 8 | 0.0000232 × 0.00481 × 0.513 | 0.0000000572 |
#
# After 8 steps about half is left, and 200 steps are 25 times 8 steps. So the gradient is halved nearly 25 times, and
# one part in 17 million is left. A kilometre, shortened like this, would be as short as a hair is thin. For learning
# the gradient is gone: this is the **vanishing gradient**.
#
# And if the factor is a little above 1? Then the same calculation grows: this is the **exploding gradient**.

# %%
factors = {0.8: "0.8", 0.92: "0.92", 0.99: "0.99", 1.0: "1", 1.05: "1.05"}
count = np.arange(0, 201)
data = pd.concat(
    [pd.DataFrame({"factor": factor, "steps": count, "log10": count * math.log10(factor)}) for factor in factors]
)
shades = ["#0b3c6f", "#0072B2", "#56B4E9", "#555555", "#D55E00"]
with figures.house_style():
    figure, (axis,) = figures.panels(1, height=4.4)
    figure.set_figwidth(7.5)
    for (factor, words), colour in zip(factors.items(), shades, strict=True):
        part = data[data["factor"] == factor]
        axis.plot(part["steps"], part["log10"], color=colour)
        axis.text(
            203,
            part["log10"].iloc[-1] + {1.0: 0.4, 0.99: -0.6}.get(factor, 0.0),
            f"factor {words}",
            color=colour,
            va="center",
        )
    axis.plot(200, 200 * math.log10(0.92), "o", color=shades[1])
    axis.set(
        xlabel="steps back", ylabel="log₁₀ of what is left (decades)", title="A factor for every step: fade or explode"
    )
here.show(
    figures.Picture(
        figure, data, (), "factor to the power of steps. −6 on the axis means a millionth, +4 ten thousand times."
    ),
    "powers",
    title="A factor for every step",
    takeaway=f"""
    The axis counts **decades**: −1 is a tenth, −2 a hundredth, and so on. On it every factor is a straight line. The
    dot is 0.92²⁰⁰ = {figures.number_text(0.92**200)}. Only a factor of exactly 1 stays level. Even 0.99 loses
    {1 - 0.99**200:.0%} in 200 steps.
    """,
)

# %% [markdown]
# ## Real networks: one knob between vanishing and exploding
#
# In a real network the factor comes from W_hh and from the slopes of the tanh. We can choose W_hh: take a matrix that
# only turns vectors and keeps their length (it is called orthogonal), and multiply it by a number g. Then g is a knob.
# We build seven networks with 50 units, which differ only in g, and let them all read the same 100 random steps.

# %%
torch.manual_seed(0)
turn, _ = torch.linalg.qr(torch.randn(50, 50))
noise = torch.randn(100, 16, 1)
gains, profiles = (0.6, 0.8, 0.9, 1.0, 1.3, 1.6, 2.0), []
for gain in gains:
    torch.manual_seed(1)
    network = nn.RNN(1, 50)
    with torch.no_grad():
        network.weight_hh_l0.copy_(gain * turn)
    with rnnstudy.watch(network) as flow:
        memories, _ = network(noise)
        memories[-1].square().sum(-1).mean().backward()
    values = flow[""].log10("h")[0]
    profiles.append(pd.DataFrame({"g": gain, "steps back": range(99, -1, -1), "log10": (values - values[-1]).tolist()}))
data = pd.concat(profiles, ignore_index=True)
left = data[data["steps back"] == 99].set_index("g")["log10"]
colours = seaborn.color_palette("RdBu_r", 2 * len(gains))
colours = {gain: colours[i if gain < 1 else i + len(gains)] for i, gain in enumerate(gains)} | {1.0: "0.4"}
with figures.house_style():
    figure, (axis,) = figures.panels(1, height=4.4)
    figure.set_figwidth(7.5)
    for gain, part in data.groupby("g"):
        axis.plot(part["steps back"], part["log10"], color=colours[gain])
        axis.text(100, left[gain], f"g = {gain:g}", color=colours[gain], va="center")
    axis.set(xlabel="steps back", ylabel="log₁₀ size of the gradient,\nrelative to the last step (decades)")
    axis.set_title("One knob decides: vanish or explode")
here.show(
    figures.Picture(
        figure, data, (), "Seven new networks of 50 tanh units on the same random sequences; median over 16 sequences."
    ),
    "gain",
    title="One knob decides: vanish or explode",
    takeaway=f"""
    At g = {gains[0]:g} the gradient is {power_of_ten(left[gains[0]])} times as large after 99 steps; at g =
    {gains[-1]:g} it is {power_of_ten(left[gains[-1]])} times as large. Even at g = 1 it shrinks, to
    {power_of_ten(left[1.0])}: the slopes of the tanh are below 1. The level road between the two is narrow, and
    learning changes the weights all the time.
    """,
)

# %% [markdown]
# ## Exploding can be cured: clipping
#
# If a gradient explodes, one update throws the weights far away, and what was learned is lost. The cure is simple. If
# the gradient is longer than a limit, make it exactly as long as the limit, and keep its direction. This is called
# **clipping**.
#
# To see it we take a network with a single unit and two weights, w and b. It has no input: hₜ = σ(w hₜ₋₁ + b), where σ
# is a squeezing curve like tanh, but between 0 and 1. It should reach 0.7 after 50 steps.

# %%
unit, updates = Unit(), 300
free = descend(unit, 6.0, -2.8, learning_rate=0.3, updates=updates)
clipped = descend(unit, 6.0, -2.8, learning_rate=0.3, updates=updates, threshold=1.0)
jump = int(free.gradient_norm.argmax())
paths = {
    "without clipping": (free, figures.STYLES["Elman"].colour),
    "with clipping": (clipped, figures.STYLES["LSTM"].colour),
}
with figures.house_style():
    figure, axes = figures.panels(2, share_y=False)
    for axis, (name, (path, colour)) in zip(axes, paths.items(), strict=True):
        axis.plot(range(updates + 1), path.w, color=colour)
        axis.set(title=name, xlabel="update", ylabel="the weight w", ylim=(0, 34))
        words = f"in the end w = {path.w[-1]:.1f}, error {path.loss[-1]:.2g}"
        axis.text(updates, path.w[-1] + 2.2, words, ha="right", va="bottom")
data = pd.concat(
    [
        pd.DataFrame({"path": name, "update": range(updates + 1), "w": p.w, "error": p.loss})
        for name, (p, _) in paths.items()
    ]
)
here.show(
    figures.Picture(
        figure, data, (), "The same start and the same step size; with clipping no gradient is longer than 1."
    ),
    "clipping",
    title="One exploding gradient, with and without clipping",
    takeaway=f"""
    For {jump} updates both paths are the same. Then the gradient is {free.gradient_norm[jump]:.0f} instead of less than
    1. Without clipping this one update throws w from {free.w[jump]:.1f} to {free.w[jump + 1]:.0f}. There the unit is
    saturated, the gradient is zero, and nothing is ever learned again. With clipping it is a step like any other.
    """,
)

# %% [markdown]
# ## And vanishing?
#
# Clipping makes long gradients shorter. It cannot bring back what has faded to nothing. If one simply made the faded
# gradient longer, one would also enlarge everything else: the recent steps, whose gradient is millions of times larger,
# would still decide alone. So a network whose gradient vanishes learns from the last few steps, and hardly ever finds
# out that something long ago mattered. **This is why it is so hard to teach a plain recurrent network to remember: even
# where its memory could hold what happened long ago, learning hardly hears of it.** To change this one must change the
# network itself. This is the next notebook.
#
# ## Exercises
#
# **1.** How many steps does it take until a factor of 0.99 has halved the gradient? And 0.92?
#
# <details><summary>Solution</summary>
#
# Try with a calculator, or use logarithms: log 0.5 / log 0.99 = 69 steps; log 0.5 / log 0.92 = 8.3 steps.
#
# ```python
# assert round(math.log(0.5) / math.log(0.99)) == 69
# assert round(math.log(0.5) / math.log(0.92), 1) == 8.3
# ```
#
# </details>
#
# **2.** A factor of 1.1 per step, over 100 steps: what becomes of a gradient of 1?
#
# <details><summary>Solution</summary>
#
# 1.1¹⁰⁰ is nearly 14 thousand. If an update moves each weight by 0.01 times its gradient, it moves one by 138 here.
#
# ```python
# assert round(1.1**100) == 13781
# ```
#
# </details>
#
# **3.** The tanh is replaced by a unit whose slope is at most 1/4 (the sigmoid σ). How large must W_hh be, for a single
# unit, so that the gradient does not have to vanish?
#
# <details><summary>Solution</summary>
#
# The factor is W_hh × slope, at most W_hh × 1/4. It can reach 1 only if W_hh is at least 4. The unit in the section on
# clipping has w = 6: it can do both, vanish and explode.
#
# ```python
# inputs = np.linspace(-5, 5, 1001)
# sigmoid = 1 / (1 + np.exp(-inputs))
# assert round(float((sigmoid * (1 - sigmoid)).max()), 6) == 0.25
# ```
#
# </details>
#
# **In one sentence:** on its way back the gradient is multiplied at every step, so it vanishes or explodes; exploding
# can be clipped, vanishing cannot.
#
# Next: *6. The LSTM.*
