# ---
# jupyter:
#   rnnstudy:
#     order: 6
# ---

# %% [markdown]
# # 6. The LSTM: a memory that keeps
#
# Notebook 5 found the trouble: at every step back the gradient is multiplied by the same matrix and by slopes below 1.
# So it vanishes. The **LSTM** (long short-term memory) gives the network a second memory that is not multiplied by a
# matrix on its way.
#
# **In this notebook:** an LSTM step, gate by gate; its two paths through time; the one number that decides how long it
# remembers; and an LSTM that reads real film reviews.

# %%
import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

import rnnstudy
from rnnstudy import figures
from rnnstudy.report import Notebook, power_of_ten
from rnnstudy.store.project import find_project
from rnnstudy.tasks import LabelledText, TemporalOrder

here = Notebook("course/6_lstm")
UPDATES = 800

# %% [markdown]
# ## Gate by gate
#
# The old memory h stays. Beside it runs a new one, the **cell state** c. Think of c as a notebook, and of h as what the
# network says aloud. Three **gates** decide what happens to the notebook. A gate is a number between 0 (shut) and 1
# (open).
#
# | gate | question | 0 | 1 |
# |---|---|---|---|
# | forget gate f | keep what is written? | erase it | keep it all |
# | input gate i | write something new? | write nothing | write it |
# | output gate o | show what is written? | say nothing | say it |
#
# The network calculates its gates anew at every step, from what it reads and from h. For that it uses a curve like
# tanh, but between 0 and 1: the **sigmoid** σ. What could be written is called the **candidate** C̃.
#
#     f = σ(…)   i = σ(…)   o = σ(…)   C̃ = tanh(…)        each from xₜ and hₜ₋₁, with weights of its own
#
#     cₜ = f · cₜ₋₁ + i · C̃        keep a part of the old, and add something new
#     hₜ = o · tanh(cₜ)             say a part of it
#
# Look at the line for cₜ. The old value is not replaced, as in the plain network. It is multiplied by f, and something
# is **added**. If f = 1 and i = 0, nothing changes at all: cₜ = cₜ₋₁.

# %%
exact = torch.float64
torch.manual_seed(4)
cell = nn.LSTMCell(1, 1, dtype=exact)
with torch.no_grad():
    cell.bias_ih[1] += 2.0  # the forget gate
x, h_before, c_before = 1.0, 0.30, 0.80

# PyTorch keeps the weights of the four in the order i, f, C̃, o.
sums = (cell.weight_ih[:, 0] * x + cell.bias_ih + cell.weight_hh[:, 0] * h_before + cell.bias_hh).tolist()


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


i, f, candidate, o = sigmoid(sums[0]), sigmoid(sums[1]), math.tanh(sums[2]), sigmoid(sums[3])
c = f * c_before + i * candidate
h = o * math.tanh(c)
values = {"x": x, "h_before": h_before, "c_before": c_before, "f": f, "i": i, "C̃": candidate, "o": o, "c": c, "h": h}
with torch.no_grad():
    state = torch.tensor([[h_before]], dtype=exact), torch.tensor([[c_before]], dtype=exact)
    h_torch, c_torch = cell(torch.tensor([[x]], dtype=exact), state)
here.show(
    figures.lstm_step(
        values,
        title="One step of an LSTM with one unit",
        caption="A new LSTM cell of PyTorch with random weights (2 was added to the bias of its forget gate).",
    ),
    "lstm_step",
    title="One step of an LSTM",
    takeaway=f"""
    Follow the thick line: {c_before:.2f} was written, the forget gate keeps {f:.0%} of it, {i * candidate:.2f} is
    added, and {c:.2f} goes on to the next step. By hand we get h = {h:.15f}, PyTorch gets {float(h_torch):.15f}; for c
    it is {c:.15f} and {float(c_torch):.15f}.
    """,
)

# %% [markdown]
# ## Two paths through time
#
# In the drawing there are two ways from one step to the next.
#
# - **Along c**, the thick line. Here each step multiplies by the forget gate f, and by nothing else.
# - **Through h**, the dashed line. Here are all the weights and squeezing curves, as in the plain network.
#
# Backwards the gradient takes both paths too. Along c it is multiplied by f at each step. If the gates are near 1, it
# arrives almost unchanged. Let us measure it: an LSTM with 50 units reads 100 steps of the temporal order task. For the
# path along c alone we multiply the forget gates. For all paths together we use `rnnstudy.watch`, as in notebook 5.

# %%
letters = TemporalOrder(length=100).sample(16, torch.Generator().manual_seed(0)).inputs


def new_lstm(bias, features=6, units=50):
    """A new LSTM whose forget gates begin with this bias."""
    torch.manual_seed(1)
    network = nn.LSTM(features, units)
    with torch.no_grad():
        network.bias_ih_l0[units : 2 * units] = bias
        network.bias_hh_l0[units : 2 * units] = 0.0
    return network


def measure(network):
    """log10 of the gradient at each step, of all paths together; the memories."""
    torch.manual_seed(2)
    answer = nn.Linear(50, 4)
    with rnnstudy.watch(network) as flow:
        memories, _ = network(letters)
        answer(memories[-1]).square().sum(-1).mean().backward()
    profile = flow[""]
    return profile.log10(profile.states[-1])[0], memories.detach()


network = new_lstm(bias=2.0)
everything, memories = measure(network)
before = torch.cat([torch.zeros(1, 16, 50), memories[:-1]])
with torch.no_grad():
    forget = letters @ network.weight_ih_l0[50:100].T + before @ network.weight_hh_l0[50:100].T
    forget = (forget + network.bias_ih_l0[50:100] + network.bias_hh_l0[50:100]).sigmoid()
# What is left after going back from the last step to step t: the product of the gates of the steps after t.
kept = forget.flip(0).cumprod(0).flip(0)
kept = torch.cat([kept[1:], torch.ones(1, 16, 50)])
along_c = kept.square().mean(-1).sqrt().log10().median(1).values
steps_back = np.arange(99, -1, -1)
data = pd.DataFrame(
    {"steps back": steps_back, "along c alone": along_c, "both paths": (everything - everything[-1]).numpy()}
)
with figures.house_style():
    figure, (axis,) = figures.panels(1, height=4.0)
    figure.set_figwidth(7.5)
    axis.plot(steps_back, data["both paths"], color="black", label="both paths together (measured)")
    axis.plot(
        steps_back, data["along c alone"], color=figures.STYLES["LSTM"].colour, linestyle="--", label="along c alone"
    )
    axis.set(
        xlabel="steps back", ylabel="log₁₀ of what is left (decades)", title="The path along c carries the gradient"
    )
    axis.legend()
here.show(
    figures.Picture(
        figure,
        data,
        (),
        "A new LSTM of 50 units, forget bias 2, on the temporal order task; median of 16 sequences. "
        "Along c: root mean square over units of the product of forget gates.",
    ),
    "two_paths",
    title="The path along c carries the gradient",
    takeaway=f"""
    The forget gates are about {forget.mean():.2f} here. After 99 steps the path along c alone leaves
    {power_of_ten(along_c[0].item())}, both paths together {power_of_ten(data["both paths"].iloc[0])}. The two lines
    fall alike: what arrives from long ago has come mainly along c.
    """,
)

# %% [markdown]
# ## One number decides how long it remembers
#
# In a new network all sums that go into a gate are near zero, and σ(0) = 0.5. So a new forget gate keeps one half, and
# after ten steps one part in a thousand. This is worse than the plain network! But one can help. Add a fixed number to
# the sum of every forget gate: the **forget bias** b. Then the gate begins at σ(b).

# %%
biases = (0.0, 1.0, 2.0, 3.0, 5.0)
table = pd.DataFrame(
    {
        "forget bias b": biases,
        "gate σ(b)": [sigmoid(b) for b in biases],
        "left after 100 steps": [sigmoid(b) ** 100 for b in biases],
        "halved after (steps)": [math.log(0.5) / math.log(sigmoid(b)) for b in biases],
    }
)
here.table(table)

# %%
torch.manual_seed(1)
lines = {"plain RNN": (nn.RNN(6, 50), figures.STYLES["Elman"].colour, "-")}
shades = {0.0: "#9ecae1", 1.0: "#56B4E9", 3.0: "#0072B2", 5.0: "#0b3c6f"}
lines |= {f"LSTM, b = {bias:g}": (new_lstm(bias), colour, "--") for bias, colour in shades.items()}
profiles = {}
for name, (network, _, _) in lines.items():
    values, _ = measure(network)
    profiles[name] = (values - values[-1]).numpy()
with figures.house_style():
    figure, (axis,) = figures.panels(1, height=4.4)
    figure.set_figwidth(7.8)
    for name, (_, colour, dash) in lines.items():
        axis.plot(steps_back, profiles[name], color=colour, linestyle=dash)
    ends = sorted(profiles, key=lambda name: profiles[name][0])
    height = -math.inf
    for name in ends:
        height = max(height + 1.3, profiles[name][0])
        axis.text(101, height, name, color=lines[name][1], va="center")
    axis.set(xlabel="steps back", ylabel="log₁₀ size of the gradient,\nrelative to the last step (decades)")
    axis.set_title("The forget bias decides how far back the gradient reaches")
data = pd.DataFrame(profiles).assign(steps_back=steps_back)
here.show(
    figures.Picture(
        figure,
        data,
        (),
        "New networks of 50 units on the temporal order task; median of 16 sequences. RNN: at h, LSTM: at c.",
    ),
    "forget_bias",
    title="The forget bias decides how far back the gradient reaches",
    takeaway=f"""
    After 99 steps there is left, in decades: {", ".join(f"{name} {profiles[name][0]:.1f}" for name in lines)}. With b =
    0 the LSTM is no better than the plain network. With b = 3 or more the gradient arrives. **This is what an LSTM
    changes: it does not multiply by a matrix along c, but by a gate, and a gate can stay near 1.** While it learns, the
    network can move its gates, and can shut one when it is time to forget.
    """.replace("-", "−"),
)

# %% [markdown]
# ## Real text: is a review kind or unkind?
#
# Now everything comes together. The file `data/movie_reviews.csv` holds sentences from film reviews. Twenty people
# rated each of them from −4 to 4. We leave out the undecided ones (between −0.5 and 0.5) and ask: positive or negative?
# This is many to one, as in notebook 2.
#
# Words become numbers in two steps. First each of the 3000 most frequent words gets a number; all other words share one
# more, "…". Then each word gets a vector of 32 numbers of its own, which is learned. This is called an **embedding**.
# A fifth of the reviews is kept aside: the network never learns from them, and we test it on them.

# %%
table = pd.read_csv(find_project().root / "data" / "movie_reviews.csv")
clear = table[table["rating"].abs() >= 0.5]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "reviews.csv"
    clear.to_csv(path, index=False)
    task = LabelledText(path=str(path), unit="word", length=30, symbols=3000)
    vocabulary, chance = task.vocabulary, task.chance

    def draw(part, count, seed):
        """Reviews of one part, drawn by chance: their words as numbers, their lengths, and 1 for positive."""
        batch = task.split(part).sample(count, torch.Generator().manual_seed(seed))
        return batch.inputs.argmax(-1), batch.lengths, batch.targets[batch.lengths - 1, torch.arange(count)]

    test, check, seen = draw("test", 500, 1), draw("validation", 300, 2), draw("training", 4, 3)
    batches = [draw("training", 64, 100 + number) for number in range(UPDATES)]

for column, (length, label) in enumerate(zip(*seen[1:], strict=True)):
    text = " ".join(vocabulary[place] for place in seen[0][:length, column])
    here.say(f"- *{['negative', 'positive'][label]}*: {text}")


# %%
class Reader(nn.Module):
    """Words → vectors → LSTM → the last memory → two answers: negative, positive."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(vocabulary), 32)
        self.lstm = nn.LSTM(32, 32)
        self.answer = nn.Linear(32, 2)
        with torch.no_grad():
            self.lstm.bias_ih_l0[32:64] = 1.0  # the forget bias
            self.lstm.bias_hh_l0[32:64] = 0.0

    def forward(self, words, lengths, drop=0.0):
        vectors = nn.functional.dropout(self.embedding(words), drop)
        memories, _ = self.lstm(vectors)
        return self.answer(memories[lengths - 1, torch.arange(words.shape[1])])


def share_right(reviews):
    words, lengths, labels = reviews
    with torch.no_grad():
        return float((reader(words, lengths).argmax(1) == labels).float().mean())


torch.manual_seed(0)
reader = Reader()
optimiser = torch.optim.Adam(reader.parameters(), lr=0.003)
curve = [(0, share_right(check))]
for number, (words, lengths, labels) in enumerate(batches, start=1):
    # Half of the numbers are struck out at random while it learns, so that it cannot rely on single ones.
    loss = nn.functional.cross_entropy(reader(words, lengths, drop=0.5), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if number % 100 == 0 or number == len(batches):
        curve.append((number, share_right(check)))
right = share_right(test)

data = pd.DataFrame(curve, columns=["update", "share right"])
with figures.house_style():
    figure, (axis,) = figures.panels(1, height=3.6)
    axis.plot(data["update"], 100 * data["share right"], color=figures.STYLES["LSTM"].colour, marker="o")
    axis.axhline(100 * (1 - chance.error), color="0.35", linestyle="--", linewidth=1.3)
    axis.text(data["update"].max(), 100 * (1 - chance.error) + 1, "guessing", ha="right", color="0.25")
    axis.set(xlabel="updates (64 reviews each)", ylabel="reviews answered rightly (%)", ylim=(40, 100))
    axis.set_title("An LSTM learns to read reviews")
here.show(
    figures.Picture(figure, data, (), "300 reviews that the network did not learn from."),
    "learning",
    title="An LSTM learns to read reviews",
    takeaway=f"""
    It begins by guessing. In the end it is right for {right:.0%} of 500 draws from the test reviews, which it had never
    seen. That is far from perfect: this is a small network that learned for seconds, from four fifths of {len(clear)}
    sentences.
    """,
)

# %% [markdown]
# ## Which words made it say so?
#
# The gradient can answer this too. Take the network's lean towards "positive". Nudge the vector of one word. How much
# does the lean change? The longer the gradient, the more the word mattered. We draw it to the right if the word as it
# stands pushes towards positive, to the left if it pushes towards negative.
#
# We show three test reviews of 8 to 14 words: the surest right answer for each side, and the surest wrong one.

# %%
words, lengths, labels = test
with torch.no_grad():
    lean = reader(words, lengths).diff(dim=1)[:, 0]
middle = (lengths >= 8) & (lengths <= 14)
correct = (lean > 0) == (labels == 1)
none = torch.tensor(-math.inf)
chosen = {
    "surely positive, and right": torch.where(middle & correct, lean, none).argmax(),
    "surely negative, and right": torch.where(middle & correct, -lean, none).argmax(),
    "sure, and wrong": torch.where(middle & ~correct, lean.abs(), none).argmax(),
}


def by_word(number):
    """The words of a review, each with the size of the gradient, signed by the direction of its push."""
    review = words[: lengths[number], number : number + 1]
    vectors = reader.embedding(review).detach().requires_grad_()
    memories, _ = reader.lstm(vectors)
    reader.answer(memories[-1]).diff(dim=1).sum().backward()
    push = (vectors.grad * vectors.detach()).sum(-1)[:, 0]
    size = vectors.grad.norm(dim=-1)[:, 0]
    return [(vocabulary[w], float(s * p.sign())) for w, s, p in zip(review[:, 0], size, push, strict=True)]


here.show(
    figures.gradient_by_word(
        {name: by_word(int(number)) for name, number in chosen.items()},
        label="size of the gradient at the word",
        up="pushes towards positive",
        down="pushes towards negative",
        title="Which words made the network say so",
        caption="Chosen by rule from the test reviews; … is a word that is not among the 3000.",
    ),
    "words",
    title="Which words made the network say so",
    takeaway=f"""
    Read each review from top to bottom. A long bar is a word to which the answer reacts strongly. Does the network look
    at the words that you would look at? The third review is labelled
    {["negative", "positive"][labels[chosen["sure, and wrong"]]]}: can you see what misled it?
    """,
)

# %% [markdown]
# ## How far back does it look?
#
# At last the question of this project, asked of our own reader. `rnnstudy.watch` measures the gradient at every step.
# We take the test reviews with exactly 20 words or more, cut to 20, and look at the gradient of the error with respect
# to c.

# %%
long_enough = lengths >= 20
sentence = words[:20, long_enough]
twenty = torch.full((sentence.shape[1],), 20)
with rnnstudy.watch(reader) as flow:
    nn.functional.cross_entropy(reader(sentence, twenty), labels[long_enough]).backward()
reach = flow["lstm"].by_lag("c")[0]
here.say(
    f"From the last word to the first, 19 steps, the gradient changes by a factor of {10 ** float(reach[-1]):.2g} "
    f"(median over {sentence.shape[1]} reviews). `flow.explain()` says: *{flow.explain().splitlines()[0]}*"
)

# %% [markdown]
# ## Exercises
#
# **1.** A gate has f = 1 and i = 0 for ten steps. What happens to c? And if f = 0 and i = 1?
#
# <details><summary>Solution</summary>
#
# With f = 1 and i = 0 nothing happens: c stays as it is. With f = 0 and i = 1 the old value is thrown away at every
# step and replaced by the candidate: the LSTM behaves like a plain network.
#
# ```python
# value, candidates = 0.7, [0.3, -0.9, 0.1]
# for candidate in candidates:
#     value = 1 * value + 0 * candidate
# assert value == 0.7
# for candidate in candidates:
#     value = 0 * value + 1 * candidate
# assert value == candidates[-1]
# ```
#
# </details>
#
# **2.** You want the gradient along c to be halved only after 100 steps. Which forget bias should the network begin
# with?
#
# <details><summary>Solution</summary>
#
# We need f with f¹⁰⁰ = 0.5, so f = 0.5^(1/100) = 0.9931. The bias is the number with σ(b) = 0.9931: b = log(f / (1 −
# f)) = 4.97, about 5.
#
# ```python
# gate = 0.5 ** (1 / 100)
# assert round(gate, 4) == 0.9931
# assert round(math.log(gate / (1 - gate)), 2) == 4.97
# ```
#
# </details>
#
# **3.** Let the reader judge a sentence of your own. Try one with "not".
#
# <details><summary>Solution</summary>
#
# Words in small letters, separated by spaces; unknown words become "…". Many short-trained networks do not understand
# "not good": they have learned the words, and hardly any grammar.
#
# ```python
# places = {word: place for place, word in enumerate(vocabulary)}
# mine = torch.tensor([[places.get(word, len(vocabulary) - 1)] for word in "this film is not good".split()])
# with torch.no_grad():
#     share = reader(mine, torch.tensor([5])).softmax(1)[0, 1].item()
# print(f"positive with a probability of {share:.0%}")
# assert 0 <= share <= 1
# ```
#
# </details>
#
# **In one sentence:** an LSTM writes its memory down and carries it along a path that only a gate multiplies, so the
# gradient can come back from long ago.
#
# **The whole course in five sentences.** Sequences carry information in their order, so a network must remember. It
# hands its memory from step to step, and learns by sending the error back the same way. In a plain recurrent network
# each step back multiplies this message by the same matrix, so it fades (or explodes), and the network never learns
# from long ago. An LSTM adds to its memory instead of replacing it, and a gate near 1 lets the message pass. How far
# this holds, for which networks and how long, is measured in the reports of this project: begin with
# `reports/index.html`.
