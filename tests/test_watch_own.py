"""Recurrences of people's own, in `rnnstudy.watch`: marked cells, and loops that hand over their states.

The oracle is the same loop in float64 with the gradient of every state retained.
"""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rnnstudy
from rnnstudy.spec import RequestError

STEPS, BATCH, WIDTH = 9, 4, 5


class Leaky(nn.Module):
    """h_t = (1 − α) h_{t−1} + α tanh(W x_t + U h_{t−1}), with a gate of its own for each unit."""

    names = ("h",)

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.recur = nn.Linear(3, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.leak = nn.Parameter(torch.rand(WIDTH))

    @rnnstudy.states("h")
    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return (1 - self.leak) * h + self.leak * torch.tanh(self.enter(x) + self.recur(h))


class Peephole(nn.Module):
    """An LSTM whose output gate sees the cell state; it returns h and c."""

    names = ("h", "c")

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.recur = nn.Linear(3, 4 * WIDTH), nn.Linear(WIDTH, 4 * WIDTH)
        self.peep = nn.Parameter(torch.randn(WIDTH))

    @rnnstudy.states("h", "c")
    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, g, o = (self.enter(x) + self.recur(h)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return (o + self.peep * c).sigmoid() * c.tanh(), c


class StateSpace(nn.Module):
    """A bank of linear recurrences: it returns an output, which is no state, and a state with two axes of units."""

    names = ("s",)

    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.rand(WIDTH, 2))
        self.enter, self.leave = nn.Linear(3, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    @rnnstudy.states(None, "s")
    def forward(self, x: Tensor, *, state: Tensor) -> tuple[Tensor, list[Tensor]]:
        state = self.decay * state + self.enter(x).unflatten(-1, (WIDTH, 2))
        return self.leave(state.flatten(-2)), [state]


def run(cell: nn.Module, inputs: Tensor, retained: list[tuple[Tensor, ...]] | None = None) -> Tensor:
    """The outputs (time, batch, width) of a loop over a cell; its states with their gradients go to `retained`."""
    zero, outputs = inputs.new_zeros(inputs.shape[1], WIDTH), []
    state: Any = {Leaky: zero, Peephole: (zero, zero), StateSpace: torch.stack([zero, zero], -1)}[type(cell)]
    for x in inputs:
        returned = cell(x, state=state) if type(cell) is StateSpace else cell(x, state)
        state = returned[1][0] if type(cell) is StateSpace else returned
        outputs.append(returned[0] if type(cell) is not Leaky else returned)
        if retained is not None:
            states = state if type(state) is tuple else (state,)
            for value in states:
                value.retain_grad()
            retained.append(states)
    return torch.stack(outputs)


def log_norms(retained: list[tuple[Tensor, ...]], index: int) -> Tensor:
    """(time, sequence)."""
    gradients = [states[index].grad for states in retained]
    found = [torch.zeros(BATCH) if grad is None else grad.flatten(1).norm(dim=-1) for grad in gradients]
    return torch.stack([norm.double() for norm in found]).log10()


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "last": lambda outputs: outputs[-1].sin().sum(),
    "every step": lambda outputs: outputs.square().sum(),
    "a step before the end": lambda outputs: outputs[4].exp().sum(),
}


class Looped(nn.Module):
    """A model with a cell in a loop."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, inputs: Tensor) -> Tensor:
        return run(self.cell, inputs)


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("cls", [Leaky, Peephole, StateSpace])
def test_a_marked_cell_has_the_gradients_that_the_loop_retains(cls: type[nn.Module], loss: str) -> None:
    torch.manual_seed(0)
    model, inputs = Looped(cls()).double(), torch.randn(STEPS, BATCH, 3, dtype=torch.float64)
    retained: list[tuple[Tensor, ...]] = []
    LOSSES[loss](run(model.cell, inputs, retained)).backward()
    bare = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with rnnstudy.watch(model) as flow:
        LOSSES[loss](model(inputs)).backward()
    assert all(torch.equal(one, other.grad) for one, other in zip(bare, model.parameters(), strict=True))
    profile = flow["cell"]
    assert (profile.kind, profile.states) == (cls.__name__, cls.names)
    for index, state in enumerate(profile.states):
        expected = log_norms(retained, index)
        torch.testing.assert_close(profile.per_sequence(state)[0], expected, rtol=1e-9, atol=1e-9)
        gradients = [states[index].grad for states in retained if states[index].grad is not None]
        units = torch.stack(gradients).flatten(2).square().mean(1).log10() / 2
        torch.testing.assert_close(profile.per_unit(state)[0, : len(units)], units, rtol=1e-9, atol=1e-9)
    assert profile.zeros()[0].tolist() == [float(loss == "a step before the end" and t > 4) for t in range(STEPS)]
    assert set(flow.to_frame()["state"]) == set(cls.names)
    assert flow.plot().axes


@pytest.mark.parametrize("kind", ["cell", "state"])
def test_one_line_in_a_loop_gives_the_profile_of_a_cell_of_torch(kind: str) -> None:
    torch.manual_seed(1)
    cell, inputs = nn.RNNCell(3, WIDTH, dtype=torch.float64), torch.randn(STEPS, BATCH, 3, dtype=torch.float64)
    with rnnstudy.watch(cell) as expected:
        h = inputs.new_zeros(BATCH, WIDTH)
        for x in inputs:
            h = cell(x, h)
        h.square().sum().backward()

    class Same(nn.Module):
        @rnnstudy.states("h")
        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return torch.tanh(x @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh)

    same = Same()
    with rnnstudy.watch(same) if kind == "cell" else rnnstudy.watch() as flow:
        h = inputs.new_zeros(BATCH, WIDTH)
        for t, x in enumerate(inputs):
            h = same(x, h)
            if kind == "state":
                assert flow.state(h, t) is h
        h.square().sum().backward()
    torch.testing.assert_close(flow[""].per_sequence(), expected[""].per_sequence(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(flow[""].rate(), expected[""].rate(), rtol=1e-9, atol=1e-9)
    assert flow[""].rows == expected[""].rows
    assert "the loss reaches back" in flow.explain()
    assert f"shrinks by a factor of {10 ** -flow[''].rate().item():.3g} per step" in flow.explain()


def test_states_of_a_loop_are_known_by_name_step_and_direction() -> None:
    torch.manual_seed(2)
    cell, inputs = Peephole().double(), torch.randn(STEPS, BATCH, 3, dtype=torch.float64)
    retained: dict[int, tuple[Tensor, Tensor]] = {}
    with rnnstudy.watch() as flow:
        state = (inputs.new_zeros(BATCH, WIDTH),) * 2
        for t in range(STEPS, 0, -1):
            state = cell(inputs[t - 1], state)
            for name, value in zip("hc", state, strict=True):
                flow.state(value, t, name=name, module="backward")
                value.retain_grad()
            retained[t] = state
        state[0].sum().backward()
    profile = flow["backward"]
    assert profile.rows == ((0, True),)
    for index, name in enumerate("hc"):
        expected = log_norms([retained[t] for t in range(1, STEPS + 1)], index)
        torch.testing.assert_close(profile.per_sequence(name)[0], expected, rtol=1e-9, atol=1e-9)
    ratio = log_norms([retained[STEPS]], 0) - log_norms([retained[1]], 0)
    assert profile.log10_ratio().item() == pytest.approx(ratio.quantile(0.5).item())
    assert profile.reach() == max(t - 1 for t in retained if profile.log10()[0, t - 1] > profile.log10().max() - 2)


def test_runs_in_one_pass_are_sequences_beside_each_other_and_passes_start_anew() -> None:
    cell = Leaky()
    with rnnstudy.watch(cell) as marked, rnnstudy.watch() as handed:
        for _ in range(2):
            total = torch.zeros(())
            for steps, batch in ((6, 2), (4, 3)):
                h = torch.zeros(batch, WIDTH)
                for t in range(steps):
                    h = cell(torch.randn(batch, 3), h)
                    # What lies between two steps, here dropout and a mask, does not part them.
                    h = nn.functional.dropout(h, 0.1) * torch.ones(batch, 1)
                    handed.state(h, t)
                total = total + h.sum()
            total.backward()
    assert marked[""].lengths.tolist() == handed[""].lengths.tolist() == [6, 6, 4, 4, 4]
    assert marked[""].per_sequence()[0].isnan().sum(0).tolist() == [0, 0, 2, 2, 2]


def test_a_single_sequence_needs_no_batch_axis_and_zeros_and_broken_values_are_found() -> None:
    w = torch.full((1,), 0.5, requires_grad=True)
    with rnnstudy.watch() as flow:
        h = torch.ones(3)
        for t in range(6):
            h = h * w
            flow.state(h, t)
        h.sum().backward()
    assert flow[""].per_sequence().shape == (1, 6, 1)
    assert flow[""].half_life().item() == pytest.approx(1.0)
    # d√h/dh is infinite at 0.
    with rnnstudy.watch() as flow:
        h = w.expand(3)
        for t in range(6):
            h = h * w if t < 3 else (h - h.detach()).sqrt() if t == 3 else h + w
            flow.state(h, t)
        h.sum().backward()
    assert flow[""].first_nonfinite() == "step 3, state h"
    assert flow[""].nonfinite()[0].tolist() == [1, 1, 1, 0, 0, 0]
    assert flow.explain() == "the model: not finite, first at step 3, state h."


def test_a_schedule_counts_passes_and_nothing_is_asked_for_off_it_or_after_the_end() -> None:
    cell, noted = Leaky(), []
    flow = rnnstudy.watch(every=3, to=lambda numbers, step: noted.append((step, sorted(numbers))))

    def train() -> list[Tensor]:
        h, hooked = torch.zeros(BATCH, WIDTH), []
        for t in range(4):
            h = cell(torch.randn(BATCH, 3), h)
            flow.state(h, t)
            if h._backward_hooks:
                hooked.append(h)
        h.sum().backward()
        return hooked

    assert [len(train()) for _ in range(7)] == [4, 1, 1, 4, 1, 1, 4], (
        "off the schedule one hook notices the backward pass"
    )
    assert [step for step, _ in noted] == [0, 3, 6]
    assert noted[0][1] == ["through_time/h/half_life", "through_time/h/log10_ratio", "through_time/h/rate"]
    with torch.no_grad():
        flow.state(torch.zeros(2), 17)
    before = flow[""].log10()
    flow.detach()
    assert train() == []
    assert torch.equal(flow[""].log10(), before)


def test_forward_passes_without_a_backward_pass_are_forgotten() -> None:
    cell = Leaky()
    with rnnstudy.watch(cell) as flow:
        h = cell(torch.randn(BATCH, 3), torch.zeros(BATCH, WIDTH))
        for _ in range(3):
            h = cell(torch.randn(BATCH, 3), h)
        graph = weakref.ref(h)
        del h
        gc.collect()
        assert graph() is None
        h = torch.zeros(BATCH, WIDTH)
        for _ in range(6):
            h = cell(torch.randn(BATCH, 3), h)
        h.sum().backward()
    assert flow[""].lengths.tolist() == [6] * BATCH


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0, 1, 3], "state 'h' of the model is given at t = 3 after t = 1; give each step once, in order"),
        ([0, 1, 2, 2], "state 'h' of the model is given at t = 2 after t = 2"),
        ([4, 3, 4, 3, 5], "state 'h' of the model is given at t = 5 after t = 3"),
    ],
)
def test_steps_that_are_out_of_order_are_told(times: list[int], message: str) -> None:
    h = torch.zeros(2, 3, requires_grad=True) * 1

    def loop(flow: Any) -> None:
        for t in times:
            flow.state(h, t)

    refused(message, None, loop)


def refused(message: str, module: nn.Module | None, loop: Callable[[Any], object]) -> None:
    """Watch a module while `loop` runs, which is given the watch."""
    with rnnstudy.watch(module) as flow, pytest.raises(RequestError, match=message):
        loop(flow)


def test_what_is_no_recurrence_is_told() -> None:
    cell = Leaky()

    def step(h: Tensor | None = None, batch: int = 2) -> Tensor:
        return cell(torch.randn(batch, 3), torch.zeros(batch, WIDTH) if h is None else h)

    def branching(_: Any) -> None:
        first = step()
        step(first)
        step(first)

    def of_two_shapes(flow: Any) -> None:
        flow.state(step(), 0)
        flow.state(step(batch=3), 1)

    def with_a_second_state(flow: Any) -> None:
        h = flow.state(step(), 0)
        h = flow.state(step(h), 1)
        flow.state(h * 1, 1, name="c")
        h.sum().backward()

    def gain(flow: Any) -> None:
        step().sum().backward()
        flow[""].log10_gain()

    refused("called again from a state that it has gone on from", cell, branching)
    refused(r"is \(3, 5\) at t = 1 and \(2, 5\) at t = 0", None, of_two_shapes)
    refused("has the states h at t = 0, and h, c at t = 1", None, with_a_second_state)
    refused("'' is watched already; give the loop another", cell, lambda flow: flow.state(step(), 0))
    refused(r"Leaky is no recurrent module of torch\.nn", cell, gain)
    with pytest.raises(RequestError, match=r"states\(\) needs the names"):
        rnnstudy.states()

    class Short(Leaky):
        @rnnstudy.states("h", "c")
        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return Leaky.forward(self, x, h)

    short = Short()
    refused(
        r"\(Short\) returns 1 tensors; .* marked with 2: h, c",
        short,
        lambda _: short(torch.randn(2, 3), torch.zeros(2, WIDTH)),
    )
