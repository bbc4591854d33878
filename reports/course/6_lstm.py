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
import re
from collections import Counter

import numpy as np
import pandas as pd
import torch
from torch import nn

import rnnstudy
from rnnstudy import figures
from rnnstudy.report import Notebook, power_of_ten
from rnnstudy.store.project import find_project
from rnnstudy.tasks import TemporalOrder

here = Notebook("course/6_lstm")
UPDATES = 400

# %% [markdown]
# ## Gate by gate
#
# The old memory h stays. Beside it runs a new one, the **cell state** c. Think of c as a notepad, and of h as what the
# network says aloud. Three **gates** decide what happens to the notepad. A gate is a number between 0 (shut) and 1
# (open). If there are several units, each has a c and gates of its own.
#
# | gate | question | 0 | 1 |
# |---|---|---|---|
# | forget gate f | keep what is written? | erase it | keep it all |
# | input gate i | write something new? | write nothing | write it |
# | output gate o | show what is written? | say nothing | say it |
#
# The network calculates its gates anew at every step, from what it reads and from h. For that it uses a curve like
# tanh, but between 0 and 1: the **sigmoid** σ. What could be written is called the **candidate** C̃. Each of the four is
# computed as a step of the plain network is: from xₜ and hₜ₋₁, with weights and a bias of its own. Inside the brackets
# stands this sum:
#
#     f = σ(…)    i = σ(…)    o = σ(…)
#     C̃ = tanh(…)
#
# The new cell state keeps a part of the old one and adds something new. The new h says a part of it:
#
#     cₜ = f · cₜ₋₁ + i · C̃
#     hₜ = o · tanh(cₜ)
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
    Follow the thick line: {c_before:.2f} was written, the forget gate keeps {f:.0%} of it,
    {figures.number_text(i * candidate)} is added, and {c:.2f} goes on to the next step. By hand we get h = {h:.15f},
    PyTorch gets {float(h_torch):.15f}; for c it is {c:.15f} and {float(c_torch):.15f}.
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
# Why only by f? Nudge cₜ₋₁ by a tiny bit, as in notebook 5, and look at cₜ = f · cₜ₋₁ + i · C̃. The first part moves
# by f times the nudge. The second part, what is added, does not contain cₜ₋₁, so it does not move. (It contains hₜ₋₁:
# that is the other path.) There is no matrix and no slope of a tanh on this way.
#
# Backwards the gradient can take both paths, and change from one to the other at any step. Let us measure what each is
# worth. An LSTM with 50 units reads 100 steps of the temporal order task. Then we calculate the gradient three times:
# with both paths, with the dashed path cut at every step, and with the thick path cut at every step.

# %%
letters = TemporalOrder(length=100).sample(16, torch.Generator().manual_seed(0)).inputs.double()


def new_lstm(bias, features=6, units=50):
    """A new LSTM whose forget gates begin with this bias."""
    torch.manual_seed(1)
    network = nn.LSTM(features, units, dtype=exact)
    with torch.no_grad():
        network.bias_ih_l0[units : 2 * units] = bias
        network.bias_hh_l0[units : 2 * units] = 0.0
    return network


def answer_error(last_memory):
    """The error of an untrained answer at the last step."""
    torch.manual_seed(2)
    return nn.Linear(50, 4, dtype=exact)(last_memory).square().sum(-1).mean()


def gradient_at_c(network, along_c=True, through_h=True):
    """log10 of the size of the gradient at each c, with both paths or with one of them cut; median over sequences."""
    h, c, states = torch.zeros(16, 50, dtype=exact), torch.zeros(16, 50, dtype=exact), []
    for xt in letters:
        sums = xt @ network.weight_ih_l0.T + network.bias_ih_l0 + network.bias_hh_l0
        sums = sums + (h if through_h else h.detach()) @ network.weight_hh_l0.T
        i, f, candidate, o = sums.chunk(4, dim=-1)
        c = f.sigmoid() * (c if along_c else c.detach()) + i.sigmoid() * candidate.tanh()
        c.retain_grad()
        states.append(c)
        h = o.sigmoid() * c.tanh()
    answer_error(h).backward()
    return torch.stack([state.grad.norm(dim=-1) for state in states]).log10().median(1).values


network = new_lstm(bias=2.0)
three = {
    "both paths": gradient_at_c(network),
    "along c alone": gradient_at_c(network, through_h=False),
    "through h alone": gradient_at_c(network, along_c=False),
}
with rnnstudy.watch(network) as flow:
    answer_error(network(letters)[0][-1]).backward()
watched = flow[""].per_sequence("c")[0].median(-1).values
agreement = float((watched - three["both paths"]).abs().max())

steps_back = np.arange(99, -1, -1)
data = pd.DataFrame({name: (line - line[-1]).numpy() for name, line in three.items()}).assign(steps_back=steps_back)
drawn = {
    "both paths": {"color": "black"},
    "along c alone": {"color": figures.STYLES["LSTM"].colour, "linestyle": "--"},
    "through h alone": {"color": figures.STYLES["Elman"].colour, "linestyle": ":"},
}
with figures.house_style():
    figure, (axis,) = figures.panels(1, height=4.2)
    figure.set_figwidth(7.8)
    for name, line in drawn.items():
        axis.plot(steps_back, data[name], **line)
        lower = 3 if name == "along c alone" else 0
        axis.text(101, data[name].iloc[0] - lower, name, color=line["color"], va="center")
    axis.set(
        xlabel="steps back", ylabel="log₁₀ of what is left (decades)", title="Without the path along c nothing arrives"
    )
here.show(
    figures.Picture(
        figure,
        data,
        (),
        "A new LSTM of 50 units, forget bias 2, on the temporal order task: the gradient at c, median of 16 sequences.",
    ),
    "two_paths",
    title="Without the path along c nothing arrives",
    takeaway=f"""
    After 99 steps the path through h alone leaves {power_of_ten(data["through h alone"].iloc[0], 0)}: as good as
    nothing. The path along c alone leaves {power_of_ten(data["along c alone"].iloc[0])}. Both together leave
    {power_of_ten(data["both paths"].iloc[0])}, more than either alone, because a message may go a few steps along
    one path and then change to the other. (`rnnstudy.watch` measures the same for both paths in PyTorch's own LSTM; the
    largest difference is {agreement:.0e} decades.)
    """,
)

# %% [markdown]
# ## One number decides how long it remembers
#
# In a new network all sums that go into a gate are near zero, and σ(0) = 0.5. So a new forget gate keeps one half, and
# after ten steps one part in a thousand. That is about as bad as the plain network. But one can help. Add a fixed
# number to the sum of every forget gate: the **forget bias** b. Then the gate begins at σ(b).

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
lines = {"plain RNN": (nn.RNN(6, 50, dtype=exact), figures.STYLES["Elman"].colour, "-")}
shades = {0.0: "#9ecae1", 1.0: "#56B4E9", 3.0: "#0072B2", 5.0: "#0b3c6f"}
lines |= {f"LSTM, b = {bias:g}": (new_lstm(bias), colour, "--") for bias, colour in shades.items()}
profiles = {}
for name, (network, _, _) in lines.items():
    with rnnstudy.watch(network) as flow:
        answer_error(network(letters)[0][-1]).backward()
    values = flow[""].log10(flow[""].states[-1])[0]
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
    takeaway="""
    The table below says what is left after 99 steps. With b = 0 the LSTM is hardly better than the plain network. With
    b = 3 or more the gradient arrives. **This is what an LSTM changes: it does not multiply by a matrix along c, but by
    a gate, and a gate can stay near 1.** While it learns, the network can move its gates, and can shut one when it is
    time to forget.
    """,
)
here.table(
    pd.DataFrame(
        {"network": list(profiles), "left after 99 steps (decades)": [round(float(p[0]), 1) for p in profiles.values()]}
    )
)

# %% [markdown]
# ## Real text: is a review kind or unkind?
#
# Now everything comes together. The file `data/movie_reviews.csv` holds sentences from film reviews. Twenty people
# rated each of them from −4 to 4. We leave out the undecided ones (between −0.5 and 0.5) and ask: positive or negative?
# This is many to one, as in notebook 2.
#
# Words become numbers in two steps. First each of the 3000 most frequent words gets a number; all other words share one
# more, "…". Then each word gets a vector of 32 numbers of its own, which is learned. This is called an **embedding**. A
# fifth of the reviews is kept aside, and the network never learns from them: with one half of this fifth we watch how
# far it has come, with the other half we test it at the end.

# %%
table = pd.read_csv(find_project().root / "data" / "movie_reviews.csv")
clear = table[table["rating"].abs() >= 0.5].drop_duplicates("text").sample(frac=1, random_state=0)
texts = [re.findall(r"\w+|[^\w\s]", text.lower())[:30] for text in clear["text"]]
labels = torch.tensor((clear["label"] == "positive").to_numpy(dtype=int))
lengths = torch.tensor([len(text) for text in texts])

training, watching, testing = torch.arange(len(texts)).tensor_split([int(0.8 * len(texts)), int(0.9 * len(texts))])
counts = Counter(word for number in training for word in texts[number])
vocabulary = [*(word for word, _ in counts.most_common(3000)), "…"]
places = {word: place for place, word in enumerate(vocabulary)}
# A column for each review, a row for each step; what follows the end of a review is never looked at.
words = torch.zeros(30, len(texts), dtype=torch.long)
for number, text in enumerate(texts):
    words[: len(text), number] = torch.tensor([places.get(word, places["…"]) for word in text])

for number in training[:4]:
    kind = "positive" if labels[number] else "negative"
    here.say(f"- *{kind}*: {' '.join(texts[number])}")


# %%
class Reader(nn.Module):
    """Words → vectors → LSTM → the last memory → two answers: negative, positive."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(vocabulary), 32)
        self.lstm = nn.LSTM(32, 32)
        self.answer = nn.Linear(32, 2)
        with torch.no_grad():
            self.embedding.weight.mul_(0.1)  # all words begin nearly equal
            self.lstm.bias_ih_l0[32:64] = 1.0  # the forget bias
            self.lstm.bias_hh_l0[32:64] = 0.0

    def forward(self, words, lengths, drop=0.0):
        vectors = nn.functional.dropout(self.embedding(words), drop)
        memories, _ = self.lstm(vectors)
        return self.answer(memories[lengths - 1, torch.arange(words.shape[1])])


def share_right(part):
    with torch.no_grad():
        said = reader(words[:, part], lengths[part]).argmax(1)
    return float((said == labels[part]).float().mean())


torch.manual_seed(0)
reader = Reader()
optimiser = torch.optim.Adam(reader.parameters(), lr=0.003)
curve = [(0, share_right(watching))]
for update in range(1, UPDATES + 1):
    chosen = training[torch.randint(len(training), (64,))]
    # Half of the numbers are struck out at random while it learns, so that it cannot rely on single ones.
    loss = nn.functional.cross_entropy(reader(words[:, chosen], lengths[chosen], drop=0.5), labels[chosen])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if update % 50 == 0:
        curve.append((update, share_right(watching)))
right, guess = share_right(testing), float(labels[training].float().mean().sub(0.5).abs().add(0.5))

data = pd.DataFrame(curve, columns=["update", "share right"])
with figures.house_style():
    figure, (axis,) = figures.panels(1, height=3.6)
    axis.plot(data["update"], 100 * data["share right"], color=figures.STYLES["LSTM"].colour, marker="o")
    axis.axhline(100 * guess, color="0.35", linestyle="--", linewidth=1.3)
    axis.text(data["update"].max(), 100 * guess + 1, "guessing", ha="right", color="0.25")
    axis.set(xlabel="updates (64 reviews each)", ylabel="reviews answered rightly (%)", ylim=(40, 100))
    axis.set_title("An LSTM learns to read reviews")
here.show(
    figures.Picture(figure, data, (), f"{len(watching)} reviews that the network did not learn from."),
    "learning",
    title="An LSTM learns to read reviews",
    takeaway=f"""
    It begins by guessing. In the end it is right for {right:.0%} of the {len(testing)} test reviews, which it has never
    seen. That is not perfect: this is a small network that learned for seconds, from {len(training)} sentences.
    """,
)

# %% [markdown]
# ## Which words made it say so?
#
# The gradient can answer this too. Take the network's lean: how much more it is for "positive" than for "negative".
# Make the vector of one word a little longer. How much does the lean change? This is the gradient at the word, in the
# direction of the word. We call it the **push** of the word: to the right towards positive, to the left towards
# negative.
#
# We show three test reviews of 8 to 14 words: the surest right answer for each side, and the surest wrong one.

# %%
middle = testing[(lengths[testing] >= 8) & (lengths[testing] <= 14)]
with torch.no_grad():
    lean = reader(words[:, middle], lengths[middle]).diff(dim=1)[:, 0]
correct = (lean > 0) == (labels[middle] == 1)
none = torch.tensor(-math.inf)
shown = {
    "surely positive, and right": middle[torch.where(correct, lean, none).argmax()],
    "surely negative, and right": middle[torch.where(correct, -lean, none).argmax()],
    "sure, and wrong": middle[torch.where(~correct, lean.abs(), none).argmax()],
}


def pushes(number):
    """Each word of a review, with its push."""
    vectors = reader.embedding(words[: lengths[number], number : number + 1]).detach().requires_grad_()
    memories, _ = reader.lstm(vectors)
    reader.answer(memories[-1]).diff(dim=1).sum().backward()
    return list(zip(texts[number], (vectors.grad * vectors.detach()).sum(-1)[:, 0].tolist(), strict=True))


here.show(
    figures.gradient_by_word(
        {name: pushes(number) for name, number in shown.items()},
        label="push of the word",
        up="towards positive",
        down="towards negative",
        title="Which words made the network say so",
        caption="Reviews chosen by rule from the test reviews. Push: the gradient of the lean times the word's vector.",
    ),
    "words",
    title="Which words made the network say so",
    takeaway=f"""
    Read each review from top to bottom. Does the network look at the words that you would look at? The last review is
    labelled {"positive" if labels[shown["sure, and wrong"]] else "negative"}. Can you see what misled the network? (A
    full stop often pushes strongly: it says nothing, but it stands next to the answer, where the gradient is still
    large.)
    """,
)

# %% [markdown]
# ## How far back does it look?
#
# At last the question of this project, asked of our own reader: does its error reach the first word? We take the test
# reviews with at least 20 words, cut them after 20, and let `rnnstudy.watch` measure the gradient at every step. For
# comparison we do the same with a plain recurrent network in place of the LSTM, trained in the same way.

# %%
plain = Reader()
plain.lstm = nn.RNN(32, 32)
optimiser = torch.optim.Adam(plain.parameters(), lr=0.003)
for _ in range(UPDATES):
    chosen = training[torch.randint(len(training), (64,))]
    loss = nn.functional.cross_entropy(plain(words[:, chosen], lengths[chosen], drop=0.5), labels[chosen])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

long = testing[lengths[testing] >= 20]
twenty = torch.full((len(long),), 20)
reach = {}
for name, network in (("LSTM", reader), ("plain RNN", plain)):
    with rnnstudy.watch(network) as flow:
        nn.functional.cross_entropy(network(words[:20, long], twenty), labels[long]).backward()
    profile = flow["lstm"]
    reach[name] = profile.by_lag(profile.states[-1])[0].numpy()
data = pd.DataFrame(reach).assign(words_back=range(20))
with figures.house_style():
    figure, (axis,) = figures.panels(1, height=3.8)
    figure.set_figwidth(7)
    for name, drawn in (("LSTM", figures.STYLES["LSTM"]), ("plain RNN", figures.STYLES["Elman"])):
        axis.plot(data["words_back"], data[name], color=drawn.colour, linestyle=drawn.dash, marker=drawn.marker)
        axis.text(19.3, data[name].iloc[-1], name, color=drawn.colour, va="center")
    axis.set(
        xlabel="words back from the last one", ylabel="log₁₀ size of the gradient,\nrelative to the last word (decades)"
    )
    axis.set_xticks(range(0, 20, 5))
    axis.set_title("Does the error reach the first word?")
here.show(
    figures.Picture(
        figure, data, (), f"Median of {len(long)} test reviews; the gradient at c (LSTM) and at h (plain RNN)."
    ),
    "reach",
    title="Does the error reach the first word?",
    takeaway=f"""
    19 words back the gradient of the LSTM is {figures.number_text(10 ** float(reach["LSTM"][-1]))} times that at the
    last word, the gradient of the plain network {figures.number_text(10 ** float(reach["plain RNN"][-1]))} times. Over
    one sentence both still hear the first word, the LSTM more clearly. Notebook 5 has shown what becomes of a plain
    network over many more steps.
    """,
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
# Words in small letters, separated by spaces; unknown words become "…". Networks that have learned only briefly often
# do not understand "not good": they have learned the words, and hardly any grammar.
#
# ```python
# mine = torch.tensor([[places.get(word, places["…"])] for word in "this film is not good".split()])
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
# each step back multiplies this message by the same matrix, so it fades (or explodes), and the network hardly learns
# from long ago. An LSTM adds to its memory instead of replacing it, and a gate near 1 lets the message pass. How far
# this holds, for which networks and how long, is measured in the reports of this project: begin with
# `reports/index.html`.
