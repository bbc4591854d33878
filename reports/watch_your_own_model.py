# ---
# jupyter:
#   rnnstudy:
#     order: 130
#     experiments: []
# ---

# %% [markdown]
# # Watch a model of your own: real sentences, an LSTM and a transformer
#
# The other pages train the networks of this project on tasks that were made for them. This page uses nothing of that:
# two ordinary `torch.nn` models, real text, and `rnnstudy.watch`. Sentences from film reviews, each rated by 20 people,
# are to be told apart: is the mean rating positive or negative? (Data: Pang & Lee 2005, ratings of Hutto & Gilbert
# 2014, MIT licence, `data/README.md`.)
#
# * A bidirectional LSTM of two layers reads the words in both directions and decides from its two last states: one
#   direction has read to the last word, the other one back to the first.
# * A small transformer of two layers decides from the mean over the positions.
#
# The question to both: which words does the gradient of the loss reach, before training and after?

# %%
import re

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

import rnnstudy
from rnnstudy import figures
from rnnstudy.figures.picture import Picture
from rnnstudy.report import Notebook
from rnnstudy.store.project import find_project

here = Notebook("watch_your_own_model")
torch.manual_seed(0)
torch.set_num_threads(1)
WIDTH, EPOCHS, BATCH, LEARNING_RATE = 32, 4, 64, 3e-3

reviews = pd.read_csv(find_project().root / "data" / "movie_reviews.csv")
reviews = reviews[reviews["rating"].abs() >= 0.5].sample(frac=1, random_state=0).reset_index(drop=True)
reviews["words"] = [re.findall(r"[a-z0-9]+(?:'[a-z]+)?|[!?]", text.lower()) for text in reviews["text"]]
reviews = reviews[reviews["words"].str.len().between(5, 40)].reset_index(drop=True)
test, train = reviews[:2000], reviews[2000:]
counts = train["words"].explode().value_counts()
# 0 is padding, 1 a word that the training sentences have less than twice.
vocabulary = {word: number for number, word in enumerate(counts.index[counts >= 2], start=2)}


def encoded(part):
    """Word numbers (sentence, position), 0 after the end; the length of each; 1 where the rating is positive."""
    numbers = [torch.tensor([vocabulary.get(word, 1) for word in words]) for words in part["words"]]
    labels = torch.tensor((part["rating"] > 0).to_numpy(), dtype=torch.float32)
    return pad_sequence(numbers, batch_first=True), torch.tensor([len(row) for row in numbers]), labels


# %% [markdown]
# ## The two models
#
# Nothing in them knows that they will be watched.


# %%
class Recurrent(nn.Module):
    """Two layers of a bidirectional LSTM over packed sentences."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(vocabulary) + 2, WIDTH, padding_idx=0)
        self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * WIDTH, 1))

    def forward(self, numbers, lengths):
        packed = pack_padded_sequence(self.embedding(numbers), lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        return self.head(torch.cat([last[-2], last[-1]], -1)).squeeze(-1)


class Attention(nn.Module):
    """Two encoder layers with learned positions, and the mean over the words."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(vocabulary) + 2, WIDTH, padding_idx=0)
        self.places = nn.Parameter(0.1 * torch.randn(40, WIDTH))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.1, batch_first=True) for _ in range(2)
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(WIDTH, 1))

    def forward(self, numbers, lengths):
        padding = numbers == 0
        values = self.embedding(numbers) + self.places[: numbers.shape[1]]
        for layer in self.layers:
            values = layer(values, src_key_padding_mask=padding)
        return self.head(values.masked_fill(padding[..., None], 0).sum(1) / lengths[:, None]).squeeze(-1)


models = {"LSTM": Recurrent(), "transformer": Attention()}
loss_of = nn.BCEWithLogitsLoss()

# %% [markdown]
# ## Watching
#
# One line before the pass, `with rnnstudy.watch(model) as flow`, and the gradients are in `flow`: those of the LSTM's
# states in each layer and direction, and, by the name of the module, those at what the embedding returns. The model
# itself stays as it is.

# %%
strip_words = test[test["words"].str.len().between(11, 14) & (test["rating"].abs() > 1.8)]
strip_words = strip_words[[all(word in vocabulary for word in words) for words in strip_words["words"]]].head(3)
# Sentences of one length, so that a position is the same place in all of them.
profile_words = test[test["words"].str.len() == 20]


def gradients(part, moment):
    """log10 ‖dL/dx_t‖ at each word of each sentence of `part`, for both models; a row for each."""
    numbers, lengths, labels = encoded(part)
    rows = []
    for name, model in models.items():
        model.eval()
        with rnnstudy.watch(model, "embedding", batch_first=True) as flow:
            loss_of(model(numbers, lengths), labels).backward()
        model.zero_grad()
        norms = flow["embedding"].per_sequence()[0].T
        for (_, sentence), length, norm in zip(part.iterrows(), lengths.tolist(), norms, strict=True):
            columns = {
                "sentence": f"rated {sentence['rating']:+.1f} by people".replace("-", "−"),
                "strip": f"{name}, {moment}",
                "model": name,
                "moment": moment,
                "position": range(1, length + 1),
                "word": sentence["words"],
                # The loss is a mean over the sentences; this is the gradient of a sentence's own loss.
                "log10_norm": (norm[:length] + np.log10(len(part))).tolist(),
            }
            rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True)


def explained():
    """What the watch says about the LSTM's layers and directions, on sentences of 20 words."""
    numbers, lengths, labels = encoded(profile_words)
    models["LSTM"].eval()
    with rnnstudy.watch(models["LSTM"]) as flow:
        loss_of(models["LSTM"](numbers, lengths), labels).backward()
    models["LSTM"].zero_grad()
    return flow


by_word, by_place = [gradients(strip_words, "before")], [gradients(profile_words, "before")]
before = explained()
print(before.explain())

# %% [markdown]
# ## Training
#
# The watch can stay on: here on every 50th batch, and with a function that keeps the numbers. (`to=` also takes MLflow,
# a W&B run or a TensorBoard writer.)


# %%
def trained(model, part, to):
    """Train with Adam, and the share of right answers on the test sentences."""
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    watcher = rnnstudy.watch(model, None if isinstance(model, Recurrent) else "layers.*", every=50, to=to)
    numbers, lengths, labels = encoded(part)
    for _ in range(EPOCHS):
        model.train()
        for batch in torch.randperm(len(part)).split(BATCH):
            longest = int(lengths[batch].max())
            optimiser.zero_grad()
            loss_of(model(numbers[batch, :longest], lengths[batch]), labels[batch]).backward()
            optimiser.step()
    watcher.detach()
    model.eval()
    numbers, lengths, labels = encoded(test)
    with torch.no_grad():
        return float(((model(numbers, lengths) > 0) == (labels > 0)).float().mean())


noted = {name: [] for name in models}
share = {name: trained(model, train, lambda numbers, _, name=name: noted[name].append(numbers))
         for name, model in models.items()}  # fmt: skip
by_word.append(gradients(strip_words, "after"))
by_place.append(gradients(profile_words, "after"))
print(explained().explain())

# %%
guess = 100 * float(test["rating"].gt(0).value_counts(normalize=True).max())
ratios = [numbers["through_time/lstm/h_layer2/log10_ratio"] for numbers in noted["LSTM"]]
here.say(
    f"On {len(test)} sentences that training did not see, the LSTM is right in {100 * share['LSTM']:.0f} %, "
    f"the transformer in {100 * share['transformer']:.0f} % (always the same answer: {guess:.0f} %). Both are small, "
    "trained for seconds, not tuned: the point is where their gradients go. The watch noted the ratio of the gradient "
    f"at the first word to that at the last, in the forward direction of the upper LSTM layer, {len(ratios)} times: "
    f"{ratios[0]:.1f} decades at the first batch, {ratios[-1]:.1f} at the last one that was watched.".replace("-", "−")
)

# %% [markdown]
# ## The gradient by word

# %%
words = pd.concat(by_word, ignore_index=True)
order = [f"{name}, {moment}" for name in models for moment in ("before", "after")]
words["strip"] = pd.Categorical(words["strip"], order)
words = words.sort_values(["sentence", "strip", "position"], kind="stable").astype({"strip": str})
spread = words[np.isfinite(words["log10_norm"])].groupby(["model", "moment", "sentence"])["log10_norm"]
spread = (spread.max() - spread.min()).groupby(["model", "moment"]).median()
ends = words.groupby(["model", "moment", "sentence"])["log10_norm"].agg(
    lambda norms: max(norms.iloc[0], norms.iloc[-1]) - norms.iloc[1:-1].median()
).groupby(["model", "moment"]).median()  # fmt: skip
after = words[words["moment"] == "after"]
largest = after.loc[after.groupby(["model", "sentence"], sort=False)["log10_norm"].idxmax()]
brightest = {name: ", ".join(f"*{word}*" for word in part["word"]) for name, part in largest.groupby("model")}
here.show(
    figures.word_strips(words),
    "gradient_by_word",
    title="Which words the gradient reaches, in a model of your own",
    takeaway=f"""
    Three test sentences, the same in all strips. Before training, both models see words that mean nothing to them yet.
    The LSTM decides from its two last states, so its gradient depends on the *place*: it is largest at the ends of the
    sentence, by {ends["LSTM", "before"]:.1f} decades above the median of the words between. The transformer's mean over
    positions reaches every word alike: smallest and largest differ by {spread["transformer", "before"]:.1f} decades, in
    the LSTM by {spread["LSTM", "before"]:.1f}. After training the gradient depends on the *word*: the ends of the LSTM
    are {ends["LSTM", "after"]:.1f} decades above the median, and the transformer's smallest and largest differ by
    {spread["transformer", "after"]:.1f} decades. In the three sentences it is then largest at {brightest["LSTM"]} in
    the LSTM, and at {brightest["transformer"]} in the transformer, which need not be the words that carry the opinion:
    a large gradient says that the loss would change if the vector of this word did, not how much the word contributed
    to the answer.
    """,
)

# %% [markdown]
# ## The gradient by place in the sentence

# %%
places = pd.concat(by_place, ignore_index=True)
table = (
    places.groupby(["model", "moment", "position"], sort=False)["log10_norm"].quantile([0.1, 0.5, 0.9]).unstack()
    .set_axis(["q10", "median", "q90"], axis=1).reset_index()
)  # fmt: skip
fall = {
    (name, moment): part.set_index("position")["median"].agg(lambda m: max(m[1], m[20]) - m.min())
    for (name, moment), part in table.groupby(["model", "moment"])
}
with figures.house_style():
    drawn, panels = figures.panels(2, height=3.8, share_y=True)
    colours = dict(zip(models, (figures.STYLES["LSTM"].colour, "#E69F00"), strict=True))
    for panel, moment in zip(panels, ("before", "after"), strict=True):
        for name, dash in zip(models, ("-", "--"), strict=True):
            part = table[(table["model"] == name) & (table["moment"] == moment)]
            panel.fill_between(part["position"], part["q10"], part["q90"], color=colours[name], alpha=0.15, linewidth=0)
            panel.plot(part["position"], part["median"], color=colours[name], linestyle=dash, label=name)
        panel.set(title=f"{moment} training", xlabel="position of the word", xticks=[1, 5, 10, 15, 20])
    panels[0].set_ylabel(r"$\log_{10}\,\|dL/dx_t\|$")
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
here.show(
    Picture(
        drawn, table, (),
        f"Median over {len(profile_words)} test sentences of 20 words, with the middle 80 % of them as a band. "
        f"One training of each model.",
    ),
    "gradient_by_place",
    title="Untrained, a last state hardly hears the middle of a sentence; a mean does",
    takeaway=f"""
    Before training the median gradient of the bidirectional LSTM falls by {fall["LSTM", "before"]:.1f} decades from
    the ends of the sentence to its middle, that of the transformer by {fall["transformer", "before"]:.1f}. After
    training it is {fall["LSTM", "after"]:.1f} and {fall["transformer", "after"]:.1f} decades: training has to make the
    LSTM carry the middle of the sentence to its ends, which the mean over positions gives to the transformer from the
    beginning. The bands are wide after training, because the gradient then depends on the word and on how sure the
    answer is.
    """,
)  # fmt: skip

# %% [markdown]
# ## All states of the LSTM
#
# `flow.plot()` draws what a watch knows: here the LSTM before training, by layer and direction.

# %%
states = f"Medians over {len(profile_words)} test sentences of 20 words, before training."
here.show(Picture(before.plot(), before.to_frame(), (), states), "states_of_the_lstm")
