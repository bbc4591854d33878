# ---
# jupyter:
#   rnnstudy:
#     order: 1
# ---

# %% [markdown]
# # 1. Sequences: when the order matters
#
# This course has six short notebooks. It begins with a row of numbers. It ends with the question of this project: why
# do recurrent networks forget, and what does an LSTM change?
#
# You need school mathematics: adding, multiplying, powers. You do not need to know anything about neural networks.
# Every figure is drawn by the code above it. You may skip the code and read the text and the figures alone.
#
# **In this notebook:** what a sequence is, why its order carries information, and how symbols become numbers.

# %%
import numpy as np
import pandas as pd
import seaborn
import torch
from sklearn.linear_model import LogisticRegression

from rnnstudy import figures
from rnnstudy.report import Notebook
from rnnstudy.tasks import TemporalOrder

here = Notebook("course/1_sequences")

# %% [markdown]
# ## A sequence is a row with an order
#
# A sentence is a row of words. A melody is a row of notes. The temperature, measured every day, is a row of numbers.
# All three are **sequences**: rows in which the order matters.
#
# We number the places of a sequence: 1, 2, 3, and so on. Each place is called a **step**, because we will walk through
# the sequence step by step. What stands at step 1 is called x₁, what stands at step 2 is x₂. For "any step" we write t,
# so xₜ is what stands at step t. The last step is called T, so T is also the length. (Many books write x⁽ᵗ⁾ for xₜ.)
#
# Let us make a sequence. It is a pretend temperature: each day is 0.95 times the day before, plus a bit of chance.
# Then we take the same numbers and shuffle them, as one shuffles cards.

# %%
chance = np.random.default_rng(2)
length = 365
series = np.zeros(length)
for t in range(1, length):
    series[t] = 0.95 * series[t - 1] + chance.normal(scale=0.5)
rows = {"in order": series, "shuffled": chance.permutation(series)}
colours = {"in order": figures.STYLES["LSTM"].colour, "shuffled": figures.STYLES["Elman"].colour}

with figures.house_style():
    figure, axes = figures.panels(2)
    for axis, (name, values) in zip(axes, rows.items(), strict=True):
        axis.plot(np.arange(1, length + 1), values, color=colours[name], linewidth=1.3)
        axis.set(title=name, xlabel="step t (days)")
    axes[0].set_ylabel("xₜ (degrees)")
data = pd.DataFrame({name: values for name, values in rows.items()}).assign(step=np.arange(1, length + 1))
here.show(
    figures.Picture(figure, data, (), "A made-up temperature, and the same numbers in another order."),
    "order",
    title="The same numbers, with and without their order",
    takeaway=f"""
    Both panels hold the same {length} numbers, one for each day of a year. So they have the same mean and the same
    spread. Still, the left one looks like weather and the right one looks like noise. **Whatever you see on the left
    and not on the right is carried by the order alone.**
    """,
)

# %% [markdown]
# ## Why sequences need methods of their own
#
# Many methods assume that examples are **independent**: knowing one tells you nothing about the next. Throwing dice is
# like that. If it is true, the order may be thrown away.
#
# For a sequence it is not true. Let us test it: draw each value against the value one step later. If today says
# nothing about tomorrow, the dots form a round cloud.

# %%
together = {name: float(np.corrcoef(values[:-1], values[1:])[0, 1]) for name, values in rows.items()}
miss = float(np.sqrt(np.mean((series[1:] - 0.95 * series[:-1]) ** 2)))
miss_without = float(np.std(series))

with figures.house_style():
    figure, axes = figures.panels(2)
    for axis, (name, values) in zip(axes, rows.items(), strict=True):
        axis.plot(values[:-1], values[1:], "o", color=colours[name], markersize=4, alpha=0.6)
        axis.set(title=f"{name}: correlation {together[name]:.2f}".replace("-", "−"), xlabel="xₜ, today (degrees)")
    axes[0].set_ylabel("xₜ₊₁, tomorrow (degrees)")
data = pd.concat([pd.DataFrame({"row": n, "today": v[:-1], "tomorrow": v[1:]}) for n, v in rows.items()])
here.show(
    figures.Picture(figure, data, (), "Each dot is a pair of neighbouring steps of the sequences above."),
    "today_and_tomorrow",
    title="Today tells about tomorrow, if the order is kept",
    takeaway=f"""
    On the left a warm day is followed by a warm day. The **correlation** measures this: 1 means that the dots lie on a
    line, 0 means that they are a cloud. It is {together["in order"]:.2f} in order, and
    {figures.number_text(together["shuffled"], 1)} after shuffling. So the past is useful: if you guess tomorrow
    from today, you miss by about {miss:.1f} degrees. If you always guess the mean, you miss by about
    {miss_without:.1f}.
    """,
)

# %% [markdown]
# ## Symbols become numbers
#
# A network can only calculate. So letters or words must become numbers. One could write A = 1, B = 2, C = 3. But this
# says that B is twice A, and that B lies between A and C. Nobody meant that.
#
# Instead, each symbol gets a row of its own. At every step one row holds a 1, the one of the symbol that is there, and
# all others hold a 0. This is called **one-hot**. Now xₜ is not one number but a short list of numbers, a **vector**.
#
# Here is a sequence of one of this project's tasks. It uses six symbols: A, B and c, d, e, f.

# %%
task = TemporalOrder(length=20)
drawn = task.sample(2000, torch.Generator().manual_seed(3))
symbols = "ABcdef"
written = ["".join(symbols[place] for place in row) for row in drawn.inputs.argmax(-1).T.tolist()]
one_hot = pd.DataFrame(drawn.inputs[:, 0].T.numpy().astype(int), index=list(symbols), columns=list(written[0]))

with figures.house_style():
    figure, (axis,) = figures.panels(1, height=2.9)
    figure.set_figwidth(9)
    seaborn.heatmap(one_hot, ax=axis, cmap="Blues", cbar=False, linewidths=0.8, linecolor="0.85", annot=True, vmax=1.6)
    axis.tick_params(length=0)
    axis.set_yticklabels(list(symbols), rotation=0)
    axis.set(xlabel="the sequence, from step 1 to step 20", ylabel="symbol", title="Each symbol has a row of its own")
here.show(
    figures.Picture(figure, one_hot.T.reset_index(names="symbol"), (), f"The sequence {written[0]} as 20 vectors."),
    "one_hot",
    title="Each symbol has a row of its own",
    takeaway="""
    Read it column by column: a column is one step, and it holds a single 1. A recurrent network will read the first
    column, then the second, and so on.
    """,
)

# %% [markdown]
# ## Sometimes the order is the whole answer
#
# In every sequence of this task two letters are capital, each an A or a B. The question is: which two, and in which
# order? There are four answers: AA, AB, BA, BB. The small letters mean nothing.
#
# Suppose we throw the order away and only count the letters. Then AB and BA look the same: one A and one B. Let us see
# what the best counting can do. A **classifier** is a program that sorts things into kinds. We show a
# simple one the counts of 1000 sequences with their answers, and then test it on 1000 sequences that it has not seen.

# %%
answers = np.array(["AA", "BA", "AB", "BB"])[drawn.targets[-1].numpy()]
counts = drawn.inputs.sum(0).numpy()
counter = LogisticRegression(max_iter=1000).fit(counts[:1000], answers[:1000])
said = counter.predict(counts[1000:])
right = float(np.mean(said == answers[1000:]))
names = ["AA", "AB", "BA", "BB"]
table = pd.crosstab(answers[1000:], said, normalize="index").reindex(index=names, columns=names, fill_value=0.0)

with figures.house_style():
    figure, (axis,) = figures.panels(1, height=3.9)
    seaborn.heatmap(table, ax=axis, cmap="Blues", annot=True, fmt=".0%", cbar=False, vmin=0, vmax=1.3, linewidths=1)
    axis.tick_params(length=0)
    axis.set_yticklabels(names, rotation=0)
    axis.set(
        xlabel="what the counting classifier says", ylabel="what is right", title="Counting cannot tell AB from BA"
    )
here.show(
    figures.Picture(figure, table.reset_index(names="right"), (), "Shares of 1000 test sequences, row by row."),
    "counting",
    title="Counting cannot tell AB from BA",
    takeaway=f"""
    AA and BB are always recognised. Between AB and BA the classifier can only guess. It is right for {right:.0%} of
    these sequences. In the long run no way of counting can be right for more than 75 %: half of the answers are AB or
    BA, and half of those guesses are wrong. **The missing quarter is hidden in the order.** To find it, one must read
    step by step and remember what came before. This is what a recurrent network does.
    """,
)

# %% [markdown]
# ## Exercises
#
# **1.** Write the word BABA as one-hot vectors, with two rows: A above, B below.
#
# <details><summary>Solution</summary>
#
# There are four steps, so four columns. In the first column the 1 stands in the row of B.
#
# ```python
# word = "BABA"
# vectors = np.array([[1 if letter == symbol else 0 for letter in word] for symbol in "AB"])
# assert vectors.tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]
# ```
#
# </details>
#
# **2.** Our temperature is 0.95 times the day before, plus chance. How much should remain of the correlation after two
# days? And after 20 days?
#
# <details><summary>Solution</summary>
#
# Every day multiplies by 0.95. After two days that is 0.95 × 0.95 = 0.9025, after 20 days 0.95²⁰ = 0.36. Keep this in
# mind: a number below 1, multiplied by itself many times, becomes small. It will explain why networks forget.
#
# ```python
# assert round(0.95**2, 4) == 0.9025
# assert round(0.95**20, 2) == 0.36
# ```
#
# </details>
#
# **3.** Instead of letters, somebody counts neighbours: how often "Ac" occurs, how often "cB", and so on. Does this
# help to tell AB from BA?
#
# <details><summary>Solution</summary>
#
# Hardly. Between the two capital letters there are several small letters. Each capital letter has small neighbours
# only, so the counts say nothing about which capital letter came first. In our sequences the two capital letters never
# even stand side by side:
#
# ```python
# assert not any(pair in text for text in written for pair in ("AA", "AB", "BA", "BB"))
# ```
#
# </details>
#
# **In one sentence:** a sequence is a row whose order carries information, and who throws the order away, or forgets
# the beginning, cannot use it.
#
# Next: *2. Four shapes of sequence tasks.*
