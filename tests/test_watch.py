"""`rnnstudy.watch`: profiles equal those of the same network written as a loop with every state's gradient retained."""

import math
import subprocess
import sys
from pathlib import Path
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
    with pytest.raises(RequestError, match=r"there is no nn\.RNN, nn\.LSTM or nn\.GRU, and no cell of them, in Linear"):
        rnnstudy.watch(nn.Linear(2, 2))
    with pytest.raises(RequestError, match="every is 0"):
        rnnstudy.watch(nn.GRU(2, 2), every=0)


@settings(deadline=None, max_examples=40)
@given(cases())
def test_the_kernels_of_float32_agree_with_the_loop_in_float64(case: dict[str, Any]) -> None:
    case |= {"layers": 1, "proj_size": 0, "initial": False, "dropout": 0.0}
    module = module_of(case, torch.float32, width=5)
    lengths = [12, 7, 9] if case["shape"].startswith("packed") else [12, 12, 12]
    inputs = torch.randn(12, 3, 3)
    packed = pack_padded_sequence(inputs, torch.tensor(lengths), enforce_sorted=False)
    given_inputs: Any = packed if case["shape"].startswith("packed") else inputs
    case |= {"shape": "packed" if isinstance(given_inputs, PackedSequence) else "batch", "batch_first": False}
    module.batch_first = False
    with rnnstudy.watch(module) as flow:
        outputs, last = module(given_inputs)
        differentiated(case, outputs, last if isinstance(last, tuple) else (last,), lengths).backward()
    loop = Loop(module)
    of_loop, last_of_loop = loop([inputs[: lengths[b], b].double() for b in range(3)], None, [])
    states = 2 if case["kind"] == "lstm" else 1
    sum(
        differentiated_sequence(case, sequence, [state[:, b] for state in last_of_loop][:states])
        for b, sequence in enumerate(of_loop)
    ).backward()
    for state in flow[""].states:
        expected, measured = loop.log_norms(state, 12, 3), flow[""].per_sequence(state)
        torch.testing.assert_close(measured, expected, rtol=0, atol=1e-4, equal_nan=True)


class Model(nn.Module):
    """Two recurrent modules with names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(3, 6, bidirectional=True)
        self.decoder = nn.ModuleDict({"gru": nn.GRU(12, 5, num_layers=2)})

    def forward(self, inputs: Tensor) -> Tensor:
        return self.decoder["gru"](self.encoder(inputs)[0])[0][-1]


def differentiate(model: nn.Module, steps: int = 10, batch: int = 7) -> None:
    model(torch.randn(steps, batch, 3)).square().sum().backward()


def test_a_flow_is_a_mapping_from_the_modules_names_and_a_table_and_a_figure() -> None:
    model = Model()
    with rnnstudy.watch(model) as flow:
        assert len(flow) == 0
        differentiate(model)
    assert set(flow) == {"encoder", "decoder.gru"}
    assert repr(flow["encoder"]) == "Profile(h, c; 2 rows, 10 steps, 7 sequences)"
    assert flow["encoder"].rows == ((0, False), (0, True))
    assert flow["decoder.gru"].rows == ((0, False), (1, False))
    table = flow.to_frame()
    assert len(table) == 10 * (2 * 2 + 2)
    for (module, layer, direction, state), part in table.groupby(["module", "layer", "direction", "state"]):
        row = flow[module].rows.index((layer - 1, direction == "reverse"))
        assert part["median"].tolist() == flow[module].log10(state)[row].tolist()
        assert part["time"].tolist() == list(range(1, 11))
        values = flow[module].per_sequence(state)[row]
        assert part["q90"].tolist() == pytest.approx(values.quantile(0.9, dim=-1).tolist())
    panels = flow.plot().axes
    assert [panel.get_title() for panel in panels] == ["encoder: h", "encoder: c", "decoder.gru: h"]
    for panel in panels:
        name, _, state = panel.get_title().partition(": ")
        labels = ["forward", "reverse"] if name == "encoder" else ["layer 1", "layer 2"]
        assert [text.get_text() for text in panel.get_legend().get_texts()] == labels
        assert [line.get_linestyle() for line in panel.lines] == (["-", "--"] if name == "encoder" else ["-", "-"])
        for row, line in enumerate(panel.lines):
            assert line.get_ydata().tolist() == flow[name].log10(state)[row].tolist()
    with pytest.raises(RequestError, match="there is no state 'C'"):
        flow["encoder"].log10("C")


def test_units_zeros_and_what_is_not_finite() -> None:
    module = nn.LSTM(3, 4)
    with rnnstudy.watch(module) as flow:
        outputs, _ = module(torch.randn(6, 5, 3))
        outputs[2].square().sum().backward()
    profile = flow[""]
    assert profile.zeros()[0].tolist() == [0, 0, 0, 1, 1, 1], "nothing reaches the loss from later steps"
    assert profile.first_nonfinite() is None
    units, sequences = 10 ** profile.per_unit("c")[0], 10 ** profile.per_sequence("c")[0]
    torch.testing.assert_close(units.square().sum(-1), sequences.square().mean(-1), rtol=1e-4, atol=1e-12)
    with torch.no_grad():
        module.weight_ih_l0[4:8] = torch.nan
    with rnnstudy.watch(module) as flow:
        module(torch.randn(6, 5, 3))[0][-1].sum().backward()
    assert flow[""].nonfinite()[0, 0] == 1.0
    assert flow[""].first_nonfinite() == "layer 1 (forward), step 6, gate i, f, g, o"


class Recorder:
    """A W&B run, as far as a watch is concerned."""

    def __init__(self) -> None:
        self.noted: list[tuple[int, dict[str, float]]] = []

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.noted.append((step, numbers))


def test_a_long_watch_logs_on_its_schedule_and_ends_without_trace() -> None:
    model, run = Model(), Recorder()
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    watcher = rnnstudy.watch(model, every=3, to=run)
    for _ in range(7):
        differentiate(model)
    watcher.detach()
    differentiate(model)
    assert [step for step, _ in run.noted] == [0, 3, 6]
    assert set(run.noted[0][1]) >= {
        "through_time/encoder/h_layer1_reverse/rate", "through_time/encoder/c_layer1/log10_ratio",
        "through_time/decoder.gru/h_layer2/log10_ratio",
    }  # fmt: skip
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    written: list[Any] = []
    watcher.log(5, to=lambda numbers, step: written.append((step, numbers)))
    assert written == [(5, run.noted[-1][1])]
    with pytest.raises(RequestError, match="int is nowhere to log to"):
        rnnstudy.watch(model, to=3)


def test_gradients_are_those_of_the_weights_before_the_optimiser_changes_them() -> None:
    module = nn.GRU(3, 4, num_layers=2)
    optimiser = torch.optim.SGD(module.parameters(), lr=10.0)
    with rnnstudy.watch(module) as flow:
        inputs = torch.randn(6, 5, 3)
        module(inputs)[0][-1].sum().backward()
        before = flow[""].log10()
        units = flow[""].per_unit()
        optimiser.step()
        assert torch.equal(flow[""].log10(), before)
    with rnnstudy.watch(module) as flow:
        module(inputs)[0][-1].sum().backward()
        optimiser.step()
    assert not torch.allclose(flow[""].per_unit(), units)
    by_sequence = 10 ** flow[""].per_sequence()
    torch.testing.assert_close(
        (10 ** flow[""].per_unit()).square().sum(-1), by_sequence.square().mean(-1), rtol=1e-4, atol=1e-12
    )


def test_two_backward_passes_through_one_forward_pass_add_up() -> None:
    module, inputs = nn.RNN(3, 4, dtype=torch.float64), torch.randn(6, 5, 3, dtype=torch.float64)
    with rnnstudy.watch(module) as flow:
        outputs, _ = module(inputs)
        outputs[-1].sum().backward(retain_graph=True)
        outputs[2].square().sum().backward()
    with rnnstudy.watch(module) as at_once:
        outputs, _ = module(inputs)
        (outputs[-1].sum() + outputs[2].square().sum()).backward()
    torch.testing.assert_close(flow[""].per_sequence(), at_once[""].per_sequence(), rtol=1e-10, atol=1e-10)


def test_evaluation_without_gradients_is_not_watched() -> None:
    module = nn.RNN(3, 4)
    with rnnstudy.watch(module) as flow, torch.no_grad():
        module(torch.randn(6, 5, 3))
    assert len(flow) == 0


@pytest.mark.parametrize("kind", sorted(CLASSES))
@pytest.mark.parametrize("everywhere", [False, True], ids=["loss at the end", "loss at every step"])
def test_the_gain_is_what_one_step_back_does_to_what_arrives(kind: str, everywhere: bool) -> None:
    """Against torch.nn itself, run from each step on with the states there as leaves."""
    torch.manual_seed(3)
    options = {"nonlinearity": "relu"} if kind == "relu" else {}
    module = CLASSES[kind](3, 4, dtype=torch.float64, **options)
    inputs = torch.randn(7, 1, 3, dtype=torch.float64)

    def loss_of(outputs: Tensor) -> Tensor:
        return outputs.sin().sum() if everywhere else outputs[-1].sin().sum()

    with rnnstudy.watch(module) as flow:
        loss_of(module(inputs)[0]).backward()
    measured = flow[""].log10_gain()[0]

    def at_states(t: int) -> tuple[Tensor, Tensor]:
        """The gradients at s_t as leaves: from later steps alone, and with what the loss reads from h_t."""
        _, states = module(inputs[:t])
        leaves = [state.detach().requires_grad_() for state in (states if isinstance(states, tuple) else (states,))]
        later = torch.zeros((), dtype=torch.float64)
        if t < 7:
            later = loss_of(module(inputs[t:], tuple(leaves) if len(leaves) > 1 else leaves[0])[0])
        direct = leaves[0].sin().sum() if everywhere or t == 7 else torch.zeros(())
        gradients = []
        for total in (later, later + direct):
            found = (
                torch.autograd.grad(total, leaves, allow_unused=True, retain_graph=True) if total.requires_grad else []
            )
            parts = [gradient.flatten() for gradient in found if gradient is not None]
            gradients.append(torch.cat(parts).norm() if parts else torch.zeros(()).double())
        return gradients[0], gradients[1]

    for t in range(2, 8):
        departing, arriving = at_states(t - 1)[0], at_states(t)[1]
        assert measured[t - 1].item() == pytest.approx(
            (departing / arriving).log10().item(), rel=1e-9, abs=1e-9, nan_ok=True
        )


def test_an_explanation_says_which_layers_vanish_explode_or_are_healthy() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"a": nn.RNN(3, 30), "b": nn.RNN(3, 30), "c": nn.RNN(3, 30), "d": nn.LSTM(3, 5, num_layers=2)}
    )
    with torch.no_grad():
        for name, gain in {"a": 0.5, "b": 1.0, "c": 1.5}.items():
            nn.init.orthogonal_(model[name].weight_hh_l0, gain)
            for other in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
                getattr(model[name], other).zero_()
    with rnnstudy.watch(model) as flow:
        sum(model[name](torch.randn(50, 4, 3))[0][-1].sum() for name in model).backward()
    by_module = dict(line.split(": ", 1) for line in flow.explain().splitlines())
    assert list(by_module) == ["a", "b", "c", "d, layer 1", "d, layer 2"], "in the order of the model"
    assert by_module["a"].startswith(
        "vanishing. Going back, the gradient shrinks by a factor of 2 per step, halves in 1 steps; "
        "over 50 steps that is a factor of 10^15. What usually helps: orthogonal or identity"
    )
    assert by_module["b"].startswith("healthy.")
    assert "helps" not in by_module["b"]
    assert by_module["c"].startswith("exploding. Going back, the gradient grows by a factor of 1.5 per step; over 50")
    assert by_module["d, layer 1"].startswith("vanishing")
    assert "forget-gate bias" in by_module["d, layer 1"]
    unused = nn.RNN(3, 4)
    with rnnstudy.watch(unused) as flow:
        (unused(torch.randn(5, 2, 3))[0] * 0).sum().backward()
    assert flow.explain() == "the model: no gradient goes back through its steps."


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_under_autocast_bits_stay_and_gradients_are_measured_in_float32(kind: str) -> None:
    options = {"nonlinearity": "relu"} if kind == "relu" else {}

    def trained(watched: bool) -> tuple[list[Tensor], Tensor | None]:
        torch.manual_seed(0)
        module, inputs = CLASSES[kind](4, 8, **options), torch.randn(11, 3, 4)
        flow = rnnstudy.watch(module) if watched else None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            try:
                outputs, _ = module(inputs)
            except RuntimeError as error:
                pytest.skip(f"torch cannot run it on this processor: {error}")
            loss = outputs[-1].float().square().mean()
        loss.backward()
        bits = [outputs.detach(), *(parameter.grad for parameter in module.parameters())]
        return bits, flow[""].log10() if flow else None

    (watched, profile), (bare, _) = trained(True), trained(False)
    assert all(torch.equal(one, other) for one, other in zip(watched, bare, strict=True))
    torch.manual_seed(0)
    module, inputs = CLASSES[kind](4, 8, **options), torch.randn(11, 3, 4)
    with rnnstudy.watch(module) as flow:
        module(inputs)[0][-1].square().mean().backward()
    assert profile.dtype == torch.float64
    # bfloat16 has three digits.
    torch.testing.assert_close(profile, flow[""].log10(), rtol=0, atol=0.15)


def test_a_compiled_model_is_watched_and_computes_the_same_bits() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 6)
            self.recurrent = nn.LSTM(6, 8, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, symbols: Tensor) -> Tensor:
            return self.head(self.recurrent(self.embedding(symbols))[0].tanh())

    def trained(watched: bool) -> tuple[list[Tensor], Tensor | None]:
        torch.manual_seed(0)
        model = Tagger()
        symbols = torch.randint(10, (4, 12))
        compiled = torch.compile(model, backend="aot_eager")
        flow = rnnstudy.watch(compiled) if watched else None
        outputs = compiled(symbols)
        outputs[:, -1].logsumexp(-1).sum().backward()
        bits = [outputs.detach(), *(parameter.grad for parameter in model.parameters())]
        return bits, flow["recurrent"].log10() if flow else None

    (watched, profile), (bare, _) = trained(True), trained(False)
    assert all(torch.equal(one, other) for one, other in zip(watched, bare, strict=True))
    torch.manual_seed(0)
    model = Tagger()
    symbols = torch.randint(10, (4, 12))
    with rnnstudy.watch(model) as flow:
        model(symbols)[:, -1].logsumexp(-1).sum().backward()
    torch.testing.assert_close(profile, flow["recurrent"].log10(), rtol=0, atol=1e-5)


def test_memory_is_what_it_was_after_a_thousand_steps() -> None:
    import gc

    module = nn.GRU(3, 8)

    def tensors() -> int:
        gc.collect()
        return sum(1 for thing in gc.get_objects() if issubclass(type(thing), Tensor))

    watcher, counts = rnnstudy.watch(module), []
    for step in range(1000):
        module(torch.randn(20, 4, 3))[0][-1].square().sum().backward()
        module.zero_grad()
        if step in (9, 999):
            counts.append(tensors())
    watcher.detach()
    assert counts[0] == counts[1]


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("how", ["cell", "one step", "chunks"])
def test_a_loop_over_a_cell_or_over_short_calls_is_one_sequence(kind: str, how: str) -> None:
    torch.manual_seed(2)
    whole = CLASSES[kind](3, 4, dtype=torch.float64)
    inputs = torch.randn(8, 5, 3, dtype=torch.float64)
    with rnnstudy.watch(whole) as expected:
        outputs, _ = whole(inputs)
        (outputs[-1].sin().sum() + outputs[3].square().sum()).backward()

    class Looped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = CLASSES[kind](3, 4, dtype=torch.float64)
            if how == "cell":
                self.part = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}[kind](3, 4, dtype=torch.float64)
            values = {name.removesuffix("_l0"): value for name, value in whole.state_dict().items()}
            self.part.load_state_dict(values if how == "cell" else whole.state_dict())

        def forward(self, inputs: Tensor) -> Tensor:
            states, returned = None, []
            if how == "cell":
                for step in inputs:
                    states = self.part(step, states)
                    returned.append(states[0] if kind == "lstm" else states)
                return torch.stack(returned)
            for chunk in inputs.split(1 if how == "one step" else 3):
                outputs, states = self.part(chunk, states)
                returned.append(outputs)
            return torch.cat(returned)

    model = Looped()
    with rnnstudy.watch(model) as flow:
        looped = model(inputs)
        (looped[-1].sin().sum() + looped[3].square().sum()).backward()
    torch.testing.assert_close(looped, outputs, rtol=1e-12, atol=1e-12)
    for state in flow["part"].states:
        torch.testing.assert_close(
            flow["part"].per_sequence(state), expected[""].per_sequence(state), rtol=1e-9, atol=1e-9
        )
    torch.testing.assert_close(flow["part"].per_unit(), expected[""].per_unit(), rtol=1e-9, atol=1e-9)
    assert flow.explain().replace("part", "the model") == expected.explain()


def test_a_cell_that_the_user_loops_over_is_watched_itself_on_its_schedule() -> None:
    cell = nn.GRUCell(3, 4)
    run = Recorder()
    watcher = rnnstudy.watch(cell, every=2, to=run)
    for _ in range(4):
        h = torch.zeros(2, 4)
        for _ in range(6):
            h = cell(torch.randn(2, 3), h)
        h.sum().backward()
    watcher.detach()
    assert [step for step, _ in run.noted] == [0, 2]
    assert watcher[""].log10().shape == (1, 6)


def test_two_uses_of_a_module_in_one_pass_are_sequences_beside_each_other() -> None:
    module = nn.LSTM(3, 4)
    first, second = torch.randn(6, 2, 3), torch.randn(4, 3, 3)
    with rnnstudy.watch(module) as flow:
        (module(first)[0][-1].sum() + module(second)[0][-1].square().sum()).backward()
    profile = flow[""]
    assert profile.lengths.tolist() == [6, 6, 4, 4, 4]
    for inputs, part, loss in (
        (first, slice(0, 2), torch.sum),
        (second, slice(2, 5), lambda value: value.square().sum()),
    ):
        with rnnstudy.watch(module) as alone:
            loss(module(inputs)[0][-1]).backward()
        for state in profile.states:
            together = profile.per_sequence(state)[:, : len(inputs), part]
            torch.testing.assert_close(together, alone[""].per_sequence(state), rtol=1e-6, atol=1e-6)


def test_torch_pandas_numpy_and_seaborn_are_enough(tmp_path: Path) -> None:
    script = f"""
import sys
for name in "mlflow optuna numba ray sklearn scipy triton jax sqlalchemy click rich psutil".split():
    sys.modules[name] = None
import torch
import rnnstudy
module = torch.nn.LSTM(3, 4)
with rnnstudy.watch(module) as flow:
    module(torch.randn(9, 2, 3))[0][-1].sum().backward()
assert flow[""].log10("c").shape == (1, 9)
assert len(flow.to_frame()) == 18
flow.plot().savefig({str(tmp_path / "flow.png")!r})
print(flow.explain())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the model: ")


class Blocks(nn.Module):
    """An embedding, a transformer layer, a convolution and an LSTM, side by side over the same symbols."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.convolution = nn.Conv1d(8, 8, 3, padding=1)
        self.recurrent = nn.LSTM(8, 8, batch_first=True)

    def forward(self, symbols: Tensor) -> Tensor:
        attended = self.attention(self.embedding(symbols))
        convolved = self.convolution(attended.transpose(1, 2)).transpose(1, 2)
        return self.recurrent(convolved)[0][:, -1]


def test_any_sequence_module_is_watched_by_name_at_what_it_reads() -> None:
    torch.manual_seed(0)
    model, symbols = Blocks(), torch.randint(10, (4, 12))

    def gradients(watched: str | None) -> tuple[Any, list[Tensor]]:
        model.zero_grad()
        flow = rnnstudy.watch(model, watched) if watched else None
        model(symbols).square().sum().backward()
        if flow is not None:
            flow.detach()
        return flow, [parameter.grad.clone() for parameter in model.parameters()]

    _, bare = gradients(None)
    flow, watched = gradients("[acer]*n*")
    assert all(torch.equal(one, other) for one, other in zip(bare, watched, strict=True))
    assert {"embedding", "attention", "convolution", "recurrent"} <= set(flow)
    # The same by hand.
    embedded = model.embedding(symbols)
    attended = model.attention(embedded)
    outputs = model.recurrent(model.convolution(attended.transpose(1, 2)).transpose(1, 2))[0][:, -1]
    at_embedded, at_attended = torch.autograd.grad(outputs.square().sum(), [embedded, attended])
    for name, gradient in {"embedding": at_embedded, "attention": at_embedded, "convolution": at_attended}.items():
        assert flow[name].states == ("x",)
        torch.testing.assert_close(
            flow[name].per_sequence()[0], gradient.double().norm(dim=-1).log10().T, rtol=0, atol=1e-5
        )
    assert "attention: the loss reaches back" in flow.explain()
    assert set(flow.to_frame()["state"]) == {"x", "h", "c"}
    assert flow.plot().axes
    with pytest.raises(RequestError, match="Embedding is no recurrent module"):
        flow["embedding"].log10_gain()


def test_a_schedule_counts_the_passes_of_any_model_and_not_its_evaluations() -> None:
    model, run, symbols = Blocks(), Recorder(), torch.randint(10, (4, 12))
    watcher = rnnstudy.watch(model, "attention", every=3, to=run)
    for _ in range(7):
        with torch.no_grad():
            model(symbols)
        model(symbols).square().sum().backward()
    watcher.detach()
    assert [step for step, _ in run.noted] == [0, 3, 6]


def test_data_without_gradient_are_watched_and_what_is_not_known_is_asked_for() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    inputs = torch.randn(5, 7, 3)
    with pytest.raises(
        RequestError, match=r"not known where time is in what Linear reads; give watch\(…, batch_first="
    ):
        rnnstudy.watch(model, "0")
    with pytest.raises(RequestError, match="no module of Sequential is called like 'blocks"):
        rnnstudy.watch(model, "blocks.*")
    with rnnstudy.watch(model, "0", batch_first=True) as flow:
        model(inputs)[:, 2].sum().backward()
    assert flow["0"].log10().shape == (1, 7)
    assert flow["0"].log10().isfinite().squeeze().tolist() == [t == 2 for t in range(7)]
    assert flow["0"].reach() == 0, "a loss on position 2 of a layer without memory reaches position 2 alone"
    with rnnstudy.watch(model, "0", batch_first=False) as flow:
        model(inputs)[2].sum().backward()
    assert flow["0"].log10().shape == (1, 5)
    with rnnstudy.watch(model, "0", batch_first=True), pytest.raises(RequestError, match=r"'0' is given \(7, 3\)"):
        model(inputs[0])
