"""`rnnstudy.watch` and the models that people have: what is refused, watched once, accumulated, parametrised."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

import rnnstudy
from rnnstudy.spec import RequestError


def differentiate(model: nn.Module, steps: int = 8, batch: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    loss = model(torch.randn(steps, batch, 3, dtype=dtype))[0][-1].float().square().sum()
    loss.backward()
    return loss


def hooks(model: nn.Module) -> list[int]:
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


def test_dropout_between_layers_is_refused_where_its_mask_cannot_be_drawn_again() -> None:
    model = nn.ModuleDict({"encoder": nn.LSTM(3, 4, num_layers=2, dropout=0.5)})
    message = r"'encoder' \(LSTM\) drops out between its layers on meta: .* use dropout=0, or modules of one layer"
    with rnnstudy.watch(model):
        # It moves to another device during the watch; a device without memory stands for a GPU.
        model.to("meta")
        with pytest.raises(RequestError, match=message):
            model["encoder"](torch.randn(5, 2, 3, device="meta"))
    with pytest.raises(RequestError, match=message):
        rnnstudy.watch(model)
    assert hooks(model) == [0, 0]
    model.eval()
    with rnnstudy.watch(model):
        model["encoder"](torch.randn(5, 2, 3, device="meta"))


def test_copies_of_a_model_are_refused() -> None:
    model = nn.LSTM(3, 4)
    with pytest.raises(RequestError, match=r"DataParallel runs copies of the model, .*: watch\(model\.module\)"):
        rnnstudy.watch(nn.DataParallel(model))
    parts = nn.ModuleDict({"encoder": nn.DataParallel(model)})
    with pytest.raises(RequestError, match=r"'encoder' \(DataParallel\) runs copies"):
        rnnstudy.watch(parts)
    parallel = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(parallel)
    parallel.module = model
    with pytest.raises(RequestError, match="DistributedDataParallel runs copies"):
        rnnstudy.watch(parallel)
    # Wrapped after the watch began: the copies have its hooks.
    with rnnstudy.watch(model):
        copy = model._replicate_for_data_parallel()
        copy._parameters = model._parameters
        with pytest.raises(RequestError, match=r"'' runs in a copy of nn\.DataParallel"):
            copy(torch.randn(5, 2, 3))


@pytest.mark.parametrize(("layers", "dtype"), [(1, torch.float32), (2, torch.float32), (2, torch.float64)])
@pytest.mark.parametrize("packed", [False, True])
def test_outputs_that_are_changed_in_place_are_not_taken_for_states(
    layers: int, dtype: torch.dtype, packed: bool
) -> None:
    """The outputs that are kept are views of what the model then changes: two layers were 0.009 decades wrong."""
    model, inputs = nn.RNN(3, 5, layers, bidirectional=True, dtype=dtype), torch.randn(12, 4, 3, dtype=dtype)
    read = nn.utils.rnn.pack_padded_sequence(inputs, torch.tensor([12, 9, 5, 5])) if packed else inputs
    measured = []
    for relu in (torch.relu, torch.relu_):
        with rnnstudy.watch(model) as flow:
            returned = model(read)[0]
            relu(returned.data if packed else returned).sum().backward()
        measured.append(flow[""].log10("h"))
    torch.testing.assert_close(*measured, atol=1e-6 if dtype == torch.float32 else 1e-12, rtol=0)


def test_states_that_are_changed_in_place_between_calls_end_a_sequence() -> None:
    cell, inputs = nn.GRUCell(3, 4), torch.randn(6, 2, 3)
    profiles = []
    for change in (lambda h: h, lambda h: h * 0.5, lambda h: h.mul_(0.5)):
        with rnnstudy.watch(cell) as flow:
            h = torch.zeros(2, 4)
            for x in inputs:
                h = change(cell(x, h))
            h.sum().backward()
        profiles.append(flow[""].per_sequence("h"))
    whole, copied, in_place = profiles
    assert [profile.shape[-2] for profile in (whole, in_place)] == [6, 1]
    assert torch.equal(copied, in_place)


@pytest.fixture
def one_process() -> Iterator[None]:
    """A group of processes that has only this one."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_whose_weights_are_spread_over_processes_is_refused(one_process: None) -> None:
    """In the backward pass the weights of a sharded nn.LSTM are not there to recompute it with."""
    from torch.distributed import fsdp

    mesh = distributed.init_device_mesh("cpu", (1,))
    sharded = nn.ModuleDict({"encoder": fsdp.fully_shard(nn.LSTM(3, 4), mesh=mesh)})
    with pytest.raises(RequestError, match=r"'encoder' \(FSDPLSTM\) keeps its weights in parts on several processes"):
        rnnstudy.watch(sharded)
    older = fsdp.FullyShardedDataParallel(nn.LSTM(3, 4), device_id=torch.device("cpu"))
    with pytest.raises(RequestError, match="FullyShardedDataParallel keeps its weights in parts"):
        rnnstudy.watch(older)


class OwnForward(nn.LSTM):
    def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(inputs)[0]


class OwnStep(nn.GRUCell):
    def forward(self, inputs: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(inputs, h) + 1


@pytest.mark.parametrize(("module", "kind"), [(OwnForward(3, 4), "OwnForward"), (OwnStep(3, 4), "OwnStep")])
def test_a_recurrent_module_with_a_forward_of_its_own_is_refused(module: nn.Module, kind: str) -> None:
    model = nn.ModuleDict({"own": module, "torchs": nn.GRU(3, 4)})
    with pytest.raises(RequestError, match=rf"'own' \({kind}\) has a forward of its own, .* @rnnstudy\.states"):
        rnnstudy.watch(model)
    assert rnnstudy.watch(model, "torchs").names == ["torchs"]


def test_a_module_that_reads_no_sequence_of_floats_is_told() -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    with (
        rnnstudy.watch(nn.ModuleDict({"all": model}), "all", batch_first=True),
        pytest.raises(RequestError, match=r"'all' reads torch\.int64; a watch needs a tensor of floats"),
    ):
        model(torch.zeros(2, 4, dtype=torch.long))


def test_watching_twice_is_one_watch() -> None:
    model, noted = nn.LSTM(3, 4), []

    def note(numbers: dict[str, float], step: int) -> None:
        noted.append(step)

    first = rnnstudy.watch(model, every=2, to=note)
    before = hooks(model)
    assert rnnstudy.watch(model, every=2, to=note) is first
    with rnnstudy.watch(torch.compile(model, backend="eager"), every=2, to=note) as compiled:
        assert compiled is first
        assert hooks(model) == before
        for _ in range(3):
            differentiate(model)
    assert noted == [0, 2]
    assert hooks(model) == [0]
    second = rnnstudy.watch(model)
    assert second is not first, "a watch that has ended is not taken up again"
    with pytest.raises(RequestError, match=r"this LSTM is watched already, with other arguments; end that watch first"):
        rnnstudy.watch(model, every=2)
    with rnnstudy.watch(model), rnnstudy.watch(model):
        pass
    assert hooks(model) == [0]


def test_a_watch_does_not_keep_a_model_that_is_gone() -> None:
    import gc
    import weakref

    model = nn.GRU(3, 4)
    flow, gone = rnnstudy.watch(model), weakref.ref(model)
    differentiate(model)
    flow.detach()
    del model, flow
    gc.collect()
    assert gone() is None


def test_accumulated_gradients_stay_the_same_and_the_profile_is_that_of_the_newest_part() -> None:
    def accumulated(every: int | None) -> tuple[list[Tensor], Any, list[int]]:
        torch.manual_seed(0)
        model, steps = nn.LSTM(3, 4, num_layers=2), []
        flow = rnnstudy.watch(model, every=every, to=lambda _, step: steps.append(step)) if every else None
        for _ in range(3):
            for _ in range(4):
                (model(torch.randn(6, 5, 3))[0][-1].square().mean() / 4).backward()
        return [parameter.grad for parameter in model.parameters()], flow, steps

    bare, watched = accumulated(None)[0], accumulated(1)
    assert all(torch.equal(one, other) for one, other in zip(bare, watched[0], strict=True))
    assert watched[2] == list(range(12))
    assert accumulated(4)[2] == [0, 4, 8], "each part of a step is a forward pass"
    torch.manual_seed(0)
    model = nn.LSTM(3, 4, num_layers=2)
    for _ in range(11):
        torch.randn(6, 5, 3)
    with rnnstudy.watch(model) as alone:
        (model(torch.randn(6, 5, 3))[0][-1].square().mean() / 4).backward()
    assert torch.equal(watched[1][""].per_sequence("c"), alone[""].per_sequence("c"))


def test_two_forward_passes_before_one_backward_pass_are_beside_each_other() -> None:
    model = nn.GRU(3, 4)
    with rnnstudy.watch(model) as flow:
        first, second = (model(torch.randn(6, batch, 3))[0][-1].sum() for batch in (2, 3))
        (first + second).backward()
    assert flow[""].lengths.tolist() == [6] * 5


@pytest.mark.parametrize("cls", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_module_in_bfloat16_is_measured_in_float32(cls: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    exact = cls(3, 6, num_layers=2)
    rounded = cls(3, 6, num_layers=2, dtype=torch.bfloat16)
    rounded.load_state_dict(exact.state_dict())
    exact.load_state_dict(rounded.state_dict())
    inputs = torch.randn(10, 4, 3).bfloat16()
    with rnnstudy.watch(rounded) as flow:
        rounded(inputs)[0][-1].float().square().sum().backward()
    with rnnstudy.watch(exact) as expected:
        exact(inputs.float())[0][-1].square().sum().backward()
    for state in flow[""].states:
        # bfloat16 has three digits.
        torch.testing.assert_close(flow[""].log10(state), expected[""].log10(state), rtol=0, atol=0.1)
        units = flow[""].per_unit(state)
        assert torch.unique(units).numel() > units.numel() / 2, "not rounded to three digits themselves"


@pytest.mark.parametrize("name", ["rnn", "lstm", "cell"])
def test_parametrised_and_normalised_weights_are_those_of_the_pass(name: str) -> None:
    torch.manual_seed(0)
    module = {"rnn": nn.RNN(3, 4, num_layers=2), "lstm": nn.LSTM(3, 4), "cell": nn.RNNCell(3, 4)}[name].double()
    plain = type(module)(3, 4, **({"num_layers": 2} if name == "rnn" else {})).double()
    weight = "weight_hh" if name == "cell" else "weight_hh_l0"
    add = torch.nn.utils.parametrizations.weight_norm if name == "lstm" else torch.nn.utils.parametrizations.orthogonal
    add(module, weight)
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0)
    inputs = torch.randn(6, 5, 3, dtype=torch.float64)

    def train(model: nn.Module) -> None:
        if name == "cell":
            h = inputs.new_zeros(5, 4)
            for x in inputs:
                h = model(x, h)
            h.square().sum().backward()
        else:
            model(inputs)[0][-1].square().sum().backward()

    with rnnstudy.watch(module) as flow:
        train(module)
        optimiser.step()
        with torch.no_grad():
            for key, value in plain.named_parameters():
                value.copy_(getattr(module, key))
        train(module)
    with rnnstudy.watch(plain) as expected:
        train(plain)
    assert flow[""].kind == expected[""].kind
    torch.testing.assert_close(flow[""].per_sequence(), expected[""].per_sequence(), rtol=1e-9, atol=1e-9)
    assert flow.explain() == expected.explain()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_computes_a_pass_twice_and_counts_it_once(reentrant: bool) -> None:
    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.recurrent = nn.Linear(3, 4), nn.GRU(4, 5)

        def forward(self, inputs: Tensor) -> Tensor:
            entered = self.enter(inputs)
            recurrent = lambda values: self.recurrent(values)[0]  # noqa: E731
            return torch.utils.checkpoint.checkpoint(recurrent, entered, use_reentrant=reentrant)

    torch.manual_seed(0)
    model, inputs, noted = Saving(), torch.randn(7, 3, 3), []
    with rnnstudy.watch(model, every=2, to=lambda _, step: noted.append(step)) as flow:
        for _ in range(5):
            model(inputs)[-1].square().sum().backward()
    assert noted == [0, 2, 4]
    with rnnstudy.watch(model) as expected:
        model.recurrent(model.enter(inputs))[0][-1].square().sum().backward()
    torch.testing.assert_close(flow["recurrent"].per_sequence(), expected["recurrent"].per_sequence())


def test_a_backward_pass_that_breaks_off_leaves_the_watch_at_work() -> None:
    model, inputs = nn.GRU(3, 4), torch.randn(6, 2, 3, requires_grad=True)
    with rnnstudy.watch(model) as flow:
        read = inputs * 1
        read.register_hook(lambda _: (_ for _ in ()).throw(ValueError("broken off")))
        with pytest.raises(ValueError, match="broken off"):
            model(read)[0][-1].sum().backward()
        model(torch.randn(6, 3, 3))[0][-1].sum().backward()
    assert flow[""].lengths.tolist() == [6] * 3


def test_a_schedule_holds_where_parts_are_called_and_not_the_model() -> None:
    model, noted = nn.ModuleDict({"lstm": nn.LSTM(3, 4), "head": nn.Linear(4, 1)}), []
    with rnnstudy.watch(model, every=3, to=lambda _, step: noted.append(step)):
        for _ in range(7):
            model["head"](model["lstm"](torch.randn(5, 2, 3))[0][-1]).sum().backward()
    assert noted == [0, 3, 6]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("blocks.*", {"blocks.0", "blocks.1"}),
        ("blocks.?.0", {"blocks.0.0", "blocks.1.0"}),
        ("**.1", {"blocks.1", "blocks.0.1", "blocks.1.1"}),
        (["embedding", "blocks.1"], {"embedding", "blocks.1"}),
    ],
)
def test_a_star_in_a_name_stands_for_what_is_between_two_dots(pattern: Any, names: set[str]) -> None:
    model = nn.Module()
    model.embedding = nn.Embedding(5, 4)
    model.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(2))
    assert set(rnnstudy.watch(model, pattern, batch_first=True).names) == names


class Writer:
    """A TensorBoard SummaryWriter, as far as a watch is concerned."""

    def __init__(self) -> None:
        self.written: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, global_step: int) -> None:
        self.written.append((tag, value, global_step))


def test_numbers_go_to_tensorboard_and_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    model, writer, logged = nn.GRU(3, 4), Writer(), []
    flow = rnnstudy.watch(model, to=writer)
    differentiate(model)
    numbers = {tag: value for tag, value, _ in writer.written}
    assert set(numbers) == {
        *(f"through_time/h/{name}" for name in ("rate", "log10_ratio", "half_life")), "through_time/log10_gain",
    }  # fmt: skip
    assert numbers["through_time/h/rate"] == flow[""].rate().item()
    monkeypatch.setattr(mlflow, "log_metrics", lambda numbers, step: logged.append((step, numbers)))
    flow.log(7)
    assert logged == [(7, flow.scalars())]


def test_importing_takes_little_and_a_watch_only_what_it_uses() -> None:
    script = """
import sys, torch
before = set(sys.modules)
import rnnstudy
assert len(set(sys.modules) - before) < 20, sorted(set(sys.modules) - before)
watch, states = rnnstudy.watch, rnnstudy.states
model = torch.nn.LSTM(3, 4).double()
with watch(model) as flow:
    model(torch.randn(9, 2, 3).double())[0][-1].sum().backward()
    flow.explain()
heavy = "mlflow pandas numba scipy sklearn matplotlib seaborn optuna ray torch._dynamo IPython".split()
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stdout + done.stderr


def test_lag_counts_from_the_last_step_that_the_loss_reaches() -> None:
    """A language model is not asked for what follows the last symbol."""
    torch.manual_seed(0)
    model, inputs = nn.LSTM(3, 4, bidirectional=True, dtype=torch.float64), torch.randn(9, 5, 3, dtype=torch.float64)
    with rnnstudy.watch(model) as flow:
        outputs = model(inputs)[0]
        (outputs[6, :, :4].sum() + outputs[2, :, 4:].sum()).backward()
    profile = flow[""]
    values = profile.per_sequence()
    forward, reverse = values[0] - values[0, 6], values[1] - values[1, 2]
    expected = forward.quantile(0.5, dim=-1)[:7].flip(0)
    torch.testing.assert_close(profile.by_lag()[0, :7], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(profile.by_lag()[1, :7], reverse.quantile(0.5, dim=-1)[2:], rtol=1e-12, atol=1e-12)
    assert profile.by_lag()[:, 7:].isnan().all()
    assert profile.log10_ratio().tolist() == pytest.approx(
        [forward[0].quantile(0.5).item(), reverse[-1].quantile(0.5).item()]
    )
    assert bool((profile.rate() < 0).all())
    with rnnstudy.watch(model) as flow:
        (model(inputs)[0] * 0).sum().backward()
    assert bool(flow[""].rate().isnan().all())


@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_a_callback_says_what_to_install(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"rnnstudy.watching.callbacks.{library}", raising=False)
    with pytest.raises(ImportError, match=rf"needs {library}: pip install 'rnnstudy\[{library}\]'"):
        importlib.import_module(f"rnnstudy.watching.callbacks.{library}")


def test_the_logged_gain_shows_that_a_network_forgets_also_with_a_loss_at_every_step() -> None:
    """The gradients themselves then look even, because each step adds to them."""
    torch.manual_seed(0)
    model, inputs = nn.LSTM(3, 5, num_layers=2), torch.randn(40, 4, 3)
    found = {}
    for where in ("last", "every"):
        with rnnstudy.watch(model) as flow:
            outputs, _ = model(inputs)
            (outputs[-1] if where == "last" else outputs).square().sum().backward()
        found[where] = flow.scalars()
        gains = flow[""].log10_gain()[1]
        name = "through_time/layer2/log10_gain"
        assert found[where][name] == pytest.approx(gains[gains.isfinite()].mean().item())
    rate = "through_time/h_layer2/rate"
    assert found["last"][name] == pytest.approx(found["last"][rate], rel=0.2)
    # A gradient that has just entered points elsewhere than one from far away, so the two gains are not equal.
    assert found["every"][name] < -0.2
    assert abs(found["every"][rate]) < 0.1 * abs(found["last"][rate])
