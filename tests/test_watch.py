"""`rnnstudy.watch`: profiles equal those of the same network written as a loop with every state's gradient retained."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import rnnstudy
from rnnstudy.spec import RequestError

CLASSES = {"rnn": nn.RNN, "relu": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Loop:
    """A recurrent module written out: every h_t and c_t of every layer and direction keeps its gradient."""

    def __init__(self, module: nn.RNNBase, dtype: torch.dtype = torch.float64) -> None:
        self.module, self.dtype = module, dtype
        self.h: list[dict[tuple[int, int], Tensor]] = []
        self.c: list[dict[tuple[int, int], Tensor]] = []

    def weight(self, name: str, layer: int, reverse: bool) -> Tensor | None:
        value = getattr(self.module, f"{name}_l{layer}{'_reverse' if reverse else ''}", None)
        return None if value is None else value.detach().to(self.dtype)

    def direction(self, sequence: Tensor, layer: int, reverse: bool, b: int, first: list[Tensor]) -> tuple[Tensor, Any]:
        """The outputs (time, width) of one sequence (time, features)."""
        w_ih, w_hh = self.weight("weight_ih", layer, reverse), self.weight("weight_hh", layer, reverse)
        b_ih, b_hh = self.weight("bias_ih", layer, reverse), self.weight("bias_hh", layer, reverse)
        w_hr = self.weight("weight_hr", layer, reverse)
        b_ih = torch.zeros(len(w_ih), dtype=self.dtype) if b_ih is None else b_ih
        b_hh = torch.zeros(len(w_hh), dtype=self.dtype) if b_hh is None else b_hh
        h, c = first[0], first[-1]
        outputs = {}
        times = range(len(sequence))
        for t in reversed(times) if reverse else times:
            x = sequence[t]
            if isinstance(self.module, nn.LSTM):
                i, f, g, o = (w_ih @ x + b_ih + w_hh @ h + b_hh).chunk(4)
                c = kept(f.sigmoid() * c + i.sigmoid() * g.tanh())
                h = o.sigmoid() * c.tanh()
                h = h if w_hr is None else w_hr @ h
                self.c[-1][t, b] = c
            elif isinstance(self.module, nn.GRU):
                (xr, xz, xn), (hr, hz, hn) = (w_ih @ x + b_ih).chunk(3), (w_hh @ h + b_hh).chunk(3)
                r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
                h = (1 - z) * (xn + r * hn).tanh() + z * h
            else:
                a = w_ih @ x + b_ih + w_hh @ h + b_hh
                h = a.tanh() if self.module.nonlinearity == "tanh" else a.relu()
            h = kept(h)
            self.h[-1][t, b] = h
            outputs[t] = h
        return torch.stack([outputs[t] for t in times]), (h, c)

    def __call__(self, inputs: list[Tensor], initial: list[Tensor] | None, masks: list[Tensor]) -> Any:
        """Outputs of each sequence (time, width · directions), and last states (rows, batch, width)."""
        module, below, last = self.module, inputs, []
        directions = 2 if module.bidirectional else 1
        for layer in range(module.num_layers):
            above = [[] for _ in below]
            for direction in range(directions):
                self.h.append({})
                self.c.append({})
                row, ends = layer * directions + direction, []
                for b, sequence in enumerate(below):
                    widths = [getattr(module, "proj_size", 0) or module.hidden_size, module.hidden_size]
                    first = (
                        [torch.zeros(width, dtype=self.dtype) for width in widths]
                        if initial is None
                        else [state[row, b] for state in initial]
                    )
                    outputs, end = self.direction(sequence, layer, direction == 1, b, first)
                    above[b].append(outputs)
                    ends.append(end)
                last.append(ends)
            below = [torch.cat(parts, -1) for parts in above]
            if masks and layer < module.num_layers - 1:
                below = [sequence * masks[layer][: len(sequence), b] for b, sequence in enumerate(below)]
        return below, [torch.stack([torch.stack([end[i] for end in ends]) for ends in last]) for i in range(2)]

    def log_norms(self, state: str, time: int, batch: int) -> Tensor:
        """(row, time, batch); NaN where a sequence has no such step."""
        rows = []
        for values in getattr(self, state):
            row = torch.full((time, batch), torch.nan, dtype=torch.float64)
            for (t, b), value in values.items():
                gradient = torch.zeros(1) if value.grad is None else value.grad
                largest = gradient.double().abs().max()
                # The squares of numbers below 1e-154 leave the range of a float.
                row[t, b] = (gradient.double() / (largest or 1.0)).norm().log10() + largest.log10()
            rows.append(row)
        return torch.stack(rows)


def kept(value: Tensor) -> Tensor:
    if value.requires_grad:
        value.retain_grad()
        return value
    return value.requires_grad_()


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    kind = draw(st.sampled_from(sorted(CLASSES)))
    return {
        "kind": kind,
        "layers": draw(st.integers(1, 3)),
        "bidirectional": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "dropout": draw(st.sampled_from([0.0, 0.4])),
        "proj_size": draw(st.sampled_from([0, 2])) if kind == "lstm" else 0,
        "initial": draw(st.booleans()),
        "shape": draw(st.sampled_from(["batch", "packed", "packed unsorted", "no batch"])),
        "loss": draw(st.sampled_from(["all", "last output", "last states", "first output"])),
        "frozen": draw(st.booleans()),
        "seed": draw(st.integers(0, 1000)),
    }


def module_of(case: dict[str, Any], dtype: torch.dtype, width: int = 4) -> nn.RNNBase:
    options = {"nonlinearity": "relu"} if case["kind"] == "relu" else {}
    if case["proj_size"]:
        options["proj_size"] = case["proj_size"]
    torch.manual_seed(case["seed"])
    return CLASSES[case["kind"]](
        3, width, num_layers=case["layers"], bidirectional=case["bidirectional"], bias=case["bias"],
        batch_first=case["batch_first"], dropout=case["dropout"] if case["layers"] > 1 else 0.0, dtype=dtype, **options,
    )  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(cases())
def test_every_state_of_every_module_has_the_gradient_of_the_loop(case: dict[str, Any]) -> None:
    module = module_of(case, torch.float64)
    lengths = {"packed": [5, 4, 2], "packed unsorted": [2, 5, 4], "no batch": [5]}.get(case["shape"], [5, 5, 5])
    batch, rows = len(lengths), case["layers"] * (2 if case["bidirectional"] else 1)
    inputs = torch.randn(5, batch, 3, dtype=torch.float64)
    if case["frozen"]:
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        inputs.requires_grad_()
    widths = [case["proj_size"] or 4] + [4] * (case["kind"] == "lstm")
    initial = [torch.randn(rows, batch, width, dtype=torch.float64) for width in widths] if case["initial"] else None
    given_inputs: Any = inputs
    if case["shape"].startswith("packed"):
        given_inputs = pack_padded_sequence(inputs, torch.tensor(lengths), enforce_sorted=False)
    elif case["shape"] == "no batch":
        given_inputs = inputs[:, 0]
    elif case["batch_first"]:
        given_inputs = inputs.transpose(0, 1)
    if case["shape"].startswith("packed"):
        # As the user may have it: the packed data alone is what the module reads.
        assert isinstance(given_inputs, PackedSequence)
    states: Any = initial
    if initial is not None:
        states = [state[:, 0] for state in initial] if case["shape"] == "no batch" else initial
        states = states[0] if len(states) == 1 else tuple(states)
    random_state = torch.get_rng_state()
    with rnnstudy.watch(module) as flow:
        outputs, last = module(given_inputs, states)
        after = torch.get_rng_state()
        last = last if isinstance(last, tuple) else (last,)
        differentiated(case, outputs, last, lengths).backward()
    assert torch.equal(torch.get_rng_state(), after)

    torch.set_rng_state(random_state)
    masks = []
    if module.dropout and module.training:
        width = widths[0] * (2 if case["bidirectional"] else 1)
        for _ in range(module.num_layers - 1):
            if isinstance(given_inputs, PackedSequence):
                mask = nn.functional.dropout(torch.ones(len(given_inputs.data), width).double(), module.dropout)
                masks.append(pad_packed_sequence(given_inputs._replace(data=mask))[0])
            else:
                masks.append(nn.functional.dropout(torch.ones(5, batch, width).double(), module.dropout))
    loop = Loop(module)
    sequences = [inputs[: lengths[b], b].detach() for b in range(batch)]
    of_loop, last_of_loop = loop(sequences, initial, masks)
    padded = torch.nn.utils.rnn.pad_sequence(of_loop)
    torch.testing.assert_close(as_padded(case, outputs), padded, rtol=1e-12, atol=1e-12)
    total = sum(
        differentiated_sequence(case, sequence, [state[:, b] for state in last_of_loop][: len(widths)])
        for b, sequence in enumerate(of_loop)
    )
    total.backward()
    profile = flow[""]
    assert profile.states == (("h", "c") if case["kind"] == "lstm" else ("h",))
    for state in profile.states:
        expected = loop.log_norms(state, 5, batch)
        torch.testing.assert_close(profile.per_sequence(state), expected, rtol=1e-9, atol=1e-9, equal_nan=True)


def as_padded(case: dict[str, Any], outputs: Any) -> Tensor:
    if isinstance(outputs, PackedSequence):
        return pad_packed_sequence(outputs)[0]
    if case["shape"] == "no batch":
        return outputs[:, None]
    return outputs.transpose(0, 1) if case["batch_first"] else outputs


def differentiated(case: dict[str, Any], outputs: Any, last: tuple[Tensor, ...], lengths: list[int]) -> Tensor:
    padded = as_padded(case, outputs)
    ends = [state if state.ndim == 3 else state[:, None] for state in last]
    return sum(
        differentiated_sequence(case, padded[:length, b], [state[:, b] for state in ends])
        for b, length in enumerate(lengths)
    )


def differentiated_sequence(case: dict[str, Any], outputs: Tensor, last: list[Tensor]) -> Tensor:
    """The loss of one sequence (time, width), and of its last states (row, width)."""
    match case["loss"]:
        case "all":
            return outputs.sin().sum() + sum(state.square().sum() for state in last)
        case "last output":
            return outputs[-1].exp().sum()
        case "first output":
            return outputs[0].exp().sum()
        case _:
            return sum((state * 3).sin().sum() for state in last)


@pytest.mark.parametrize("kind", sorted(CLASSES))
@pytest.mark.parametrize("scale", [0.05, 1.0, 6.0])
def test_in_float32_profiles_go_far_beyond_its_range(kind: str, scale: float) -> None:
    """Right wherever the loop in float64 still has a number, to 1e-290; float32 ends at 1e-38."""
    torch.manual_seed(1)
    # A relu of 120 steps at six times the weights overflows in its forward pass.
    scale = min(scale, 1.5) if kind == "relu" else scale
    module = CLASSES[kind](2, 5, **({"nonlinearity": "relu"} if kind == "relu" else {}))
    with torch.no_grad():
        module.weight_hh_l0 *= scale
    inputs = torch.randn(120, 2, 2)
    with rnnstudy.watch(module) as flow:
        module(inputs)[0][-1].square().sum().backward()
    loop = Loop(module)
    sequences = [inputs[:, b].double() for b in range(2)]
    outputs, _ = loop(sequences, None, [])
    sum(sequence[-1].square().sum() for sequence in outputs).backward()
    for state in flow[""].states:
        expected, measured = loop.log_norms(state, 120, 2), flow[""].per_sequence(state)
        reached = expected > math.log10(1e-290)
        assert bool(reached[:, -1].all())
        torch.testing.assert_close(measured[reached], expected[reached], rtol=0, atol=2e-3 if scale > 1 else 1e-4)


@pytest.mark.parametrize("decades", [-1.0, 1.0, 0.25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_three_thousand_steps_are_as_in_closed_form(decades: float, dtype: torch.dtype) -> None:
    """With h_t = tanh(w h_{t−1}) at h = 0, dL/dh_t = w^(T−t) dL/dh_T: down to 10^−3000, and up to 10^3000."""
    module = nn.RNN(2, 2, bias=False, dtype=dtype)
    with torch.no_grad():
        module.weight_hh_l0.copy_(10**decades * torch.eye(2))
    with rnnstudy.watch(module) as flow:
        outputs, _ = module(torch.zeros(3001, 1, 2, dtype=dtype))
        outputs[-1].sum().backward()
    expected = torch.arange(3000, -1, -1).double() * decades + math.log10(2) / 2
    torch.testing.assert_close(flow[""].log10()[0], expected, rtol=1e-7, atol=1e-4)
    assert flow[""].rate().item() == pytest.approx(decades, rel=1e-6)
    assert flow[""].log10_ratio().item() == pytest.approx(3000 * decades, rel=1e-6)
    if decades < 0:
        assert flow[""].half_life().item() == pytest.approx(math.log10(2) / -decades, rel=1e-6)
    else:
        assert flow[""].half_life().isnan().all()


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_outputs_gradients_and_random_numbers_are_the_same_to_the_bit_with_and_without(kind: str) -> None:
    def trained(watched: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential()
        model.recurrent = CLASSES[kind](4, 8, num_layers=2, dropout=0.2, bidirectional=True)
        model.head = nn.Linear(16, 1)
        optimiser, kept = torch.optim.Adam(model.parameters()), []
        flow = rnnstudy.watch(model, every=2) if watched else None
        for _ in range(5):
            outputs, _ = model.recurrent(torch.randn(11, 3, 4))
            loss = model.head(outputs[-1]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            kept += [outputs.detach(), loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]
        if flow:
            assert list(flow) == ["recurrent"]
        return [*kept, torch.get_rng_state()]

    for one, other in zip(trained(True), trained(False), strict=True):
        assert torch.equal(one, other)


def test_what_cannot_be_watched_is_told() -> None:
    with pytest.raises(RequestError, match=r"there is no nn\.RNN, nn\.LSTM or nn\.GRU in Linear"):
        rnnstudy.watch(nn.Linear(2, 2))
    with pytest.raises(RequestError, match="every is 0"):
        rnnstudy.watch(nn.GRU(2, 2), every=0)
