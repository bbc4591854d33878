"""`rnnstudy.watch` on the three kinds of model that people have most: a new user's two lines for each."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import rnnstudy
from rnnstudy.spec import RequestError

VOCABULARY = 11


def log_norms(gradients: list[Tensor]) -> Tensor:
    """(time, batch), from gradients (batch, width)."""
    return torch.stack([gradient.double().norm(dim=-1).log10() for gradient in gradients])


class CharacterModel(nn.Module):
    """A language model that is called once for each character, with its hidden state."""

    def __init__(self, kind: type[nn.RNNBase], dropout: float) -> None:
        super().__init__()
        self.encoder = nn.Embedding(VOCABULARY, 6)
        self.rnn = kind(6, 7, num_layers=2, dropout=dropout)
        self.decoder = nn.Linear(7, VOCABULARY)

    def forward(self, character: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        outputs, hidden = self.rnn(self.encoder(character).unsqueeze(0), hidden)
        return self.decoder(outputs.squeeze(0)), hidden


@pytest.mark.parametrize(("kind", "dropout"), [(nn.GRU, 0.0), (nn.LSTM, 0.0), (nn.LSTM, 0.3)])
def test_a_language_model_that_is_called_for_each_character(kind: type[nn.RNNBase], dropout: float) -> None:
    torch.manual_seed(0)
    model, text = CharacterModel(kind, dropout).double(), torch.randint(VOCABULARY, (13, 4))
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, __: object, returned: tuple[Tensor, Tensor | tuple[Tensor, Tensor]]) -> None:
        outputs, last = returned
        kept.append((outputs, last if isinstance(last, Tensor) else last[0]))
        for value in kept[-1]:
            value.retain_grad()

    with rnnstudy.watch(model) as flow, model.rnn.register_forward_hook(keep):
        hidden, loss = None, torch.zeros(())
        for character, following in itertools.pairwise(text):
            scores, hidden = model(character, hidden)
            loss = loss + nn.functional.cross_entropy(scores, following)
        loss.backward()
    profile = flow["rnn"]
    assert profile.lengths.tolist() == [12] * 4
    assert profile.rows == ((0, False), (1, False))
    # Of the upper layer: from the readout, and from the next call.
    found = [outputs.grad[0] + (0 if last.grad is None else last.grad[1]) for outputs, last in kept]
    torch.testing.assert_close(profile.per_sequence()[1], log_norms(found), rtol=1e-9, atol=1e-9)
    if not dropout:
        with rnnstudy.watch(model) as at_once:
            outputs, _ = model.rnn(model.encoder(text[:-1]))
            scores = model.decoder(outputs)
            sum(nn.functional.cross_entropy(*pair) for pair in zip(scores, text[1:], strict=True)).backward()
        expected = at_once["rnn"]
        for state in profile.states:
            torch.testing.assert_close(profile.per_sequence(state), expected.per_sequence(state), rtol=1e-9, atol=1e-9)
        assert flow.explain() == at_once.explain()
    assert "rnn, layer 2: " in flow.explain()


class Translator(nn.Module):
    """An encoder that reads in both directions, and a decoder that looks at it anew at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 6)
        self.encoder = nn.GRU(6, 5, batch_first=True, bidirectional=True)
        self.bridge, self.query, self.key = nn.Linear(10, 7), nn.Linear(7, 4), nn.Linear(10, 4)
        self.score = nn.Linear(4, 1)
        self.decoder = nn.GRU(6 + 10, 7, batch_first=True)
        self.head = nn.Linear(7, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        read, ends = self.encoder(self.words(source))
        hidden = self.bridge(torch.cat([ends[0], ends[1]], -1)).tanh().unsqueeze(0)
        scores, kept = [], []
        for word in target.T:
            fit = self.score((self.query(hidden.transpose(0, 1)) + self.key(read)).tanh())
            context = (fit.softmax(1) * read).sum(1)
            step = torch.cat([self.words(word), context], -1).unsqueeze(1)
            outputs, hidden = self.decoder(step, hidden)
            outputs.retain_grad()
            hidden.retain_grad()
            kept.append((outputs, hidden))
            scores.append(self.head(outputs.squeeze(1)))
        return torch.stack(scores, 1), kept


def test_a_translator_with_attention() -> None:
    torch.manual_seed(0)
    model = Translator().double()
    source, target = torch.randint(VOCABULARY, (3, 9)), torch.randint(VOCABULARY, (3, 6))
    with rnnstudy.watch(model) as flow:
        scores, kept = model(source, target)
        nn.functional.cross_entropy(scores.flatten(0, 1), target.flatten()).backward()
    assert list(flow) == ["encoder", "decoder"]
    assert (len(flow["encoder"].rows), flow["encoder"].lengths.tolist()) == (2, [9] * 3)
    found = [outputs.grad[:, 0] + (0 if hidden.grad is None else hidden.grad[0]) for outputs, hidden in kept]
    torch.testing.assert_close(flow["decoder"].per_sequence()[0], log_norms(found), rtol=1e-9, atol=1e-9)
    assert [line.split(":")[0] for line in flow.explain().splitlines()] == [
        "encoder, forward", "encoder, reverse", "decoder",
    ]  # fmt: skip


class Block(nn.Module):
    """Causal attention of one head, and a layer for each position, on a residual stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_attn(self.ln_1(x)).chunk(3, -1)
        x = x + self.c_proj(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))
        return x + self.mlp(self.ln_2(x))


class SmallGPT(nn.Module):
    """Embeddings of words and places, blocks, and a loss of its own."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(VOCABULARY, width), "wpe": nn.Embedding(10, width),
                "h": nn.ModuleList(Block(width) for _ in range(2)),
            }
        )  # fmt: skip
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, numbers: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = self.transformer["wte"](numbers) + self.transformer["wpe"](torch.arange(numbers.shape[1]))
        self.read = [x]
        for block in self.transformer["h"]:
            self.read.append(block(self.read[-1]))
        for x in self.read:
            x.retain_grad()
        scores = self.head(self.read[-1])
        return scores, nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=-1)


def test_a_small_gpt() -> None:
    torch.manual_seed(0)
    model, numbers = SmallGPT().double(), torch.randint(VOCABULARY, (4, 10))
    targets = torch.full_like(numbers, -1)
    targets[:, 6] = numbers[:, 0]
    with pytest.raises(RequestError, match=r"there is no nn\.RNN.* in SmallGPT; name other modules, for example watch"):
        rnnstudy.watch(model)
    with pytest.raises(RequestError, match=r"not known where time is in what Block reads; give watch\(…, batch_first="):
        rnnstudy.watch(model, "transformer.h.*")
    with rnnstudy.watch(model, ["transformer.wte", "transformer.h.*"], batch_first=True) as flow:
        model(numbers, targets)[1].backward()
    assert list(flow) == ["transformer.wte", "transformer.h.0", "transformer.h.1"]
    for name, read in (("transformer.h.0", model.read[0]), ("transformer.h.1", model.read[1])):
        expected = log_norms(list(read.grad.transpose(0, 1)))
        torch.testing.assert_close(flow[name].per_sequence()[0], expected, rtol=1e-9, atol=1e-9)
        assert flow[name].log10()[0, 7:].tolist() == [-math.inf] * 3, "no later position is read"
    assert "transformer.h.0: the loss reaches back 6 of 9 steps" in flow.explain()
    with (
        rnnstudy.watch(model, "transformer.wpe", batch_first=True),
        pytest.raises(RequestError, match=r"'transformer\.wpe' is given \(10, 8\); a watch needs three axes"),
    ):
        model(numbers, targets)
