"""Blocks around a recurrence against a plain torch module written out here, in float64."""

import functools
import itertools

import pytest
import torch
from torch import nn

from rnnstudy import train
from rnnstudy.cells import GRU, LSTM, Block, Elman, Jordan, MinGRU
from rnnstudy.cells.initialisation import Glorot, PyTorchDefault
from rnnstudy.engines.block_float import LOG10_2, BlockFloat
from rnnstudy.engines.compiled import CompiledEngine
from rnnstudy.engines.cuda_graph import GraphEngine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.engines.scan import ScanEngine
from rnnstudy.probes import GradientThroughDepth
from rnnstudy.probes.probe import Moment
from rnnstudy.probes.reading import MEDIAN
from rnnstudy.run import Run, Training
from rnnstudy.spec import SpecError
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.batches import fixed_batch
from rnnstudy.training.evaluation import side_batch
from rnnstudy.training.model import Model
from rnnstudy.training.population import Population
from rnnstudy.training.randomness import generator

FEATURES, OUTPUTS, REPLICAS, BATCH, TIME, WIDTH, LAYERS = 3, 2, 2, 4, 7, 5, 2
CLOSE = {"rtol": 0, "atol": 1e-10}
BLOCKS = [
    Block(norm=norm, mix=mix, residual=residual)
    for norm, mix, residual in (
        ("rms", "gate", True),
        ("layer", "glu", True),
        ("rms", "mlp", True),
        ("layer", "gate", False),
        ("none", "mlp", True),
    )
]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(cell, block, bidirectional=False, layers=LAYERS):
    model = Model(
        cell=cell, layers=layers, features=FEATURES, outputs=OUTPUTS, block=block, bidirectional=bidirectional
    )
    drawn = [model.draw(PyTorchDefault(), generator(seed, "initialisation")) for seed in range(REPLICAS)]
    # Scales and shifts begin at 1 and 0, where a mistake in them would not show.
    moved = {n: torch.stack([one[n] for one in drawn]).double() for n in drawn[0]}
    for seed, (name, value) in enumerate(moved.items()):
        if "norm" in name:
            value += 0.3 * noise(*value.shape, seed=seed)
    return model, {name: value.requires_grad_() for name, value in moved.items()}


class PlainNetwork(nn.Module):
    """The same network of torch's own parts: nn.RNN without a loop of ours, nn.LayerNorm, nn.RMSNorm, nn.Linear."""

    def __init__(self, block, bidirectional):
        super().__init__()
        self.block, states = block, WIDTH * (2 if bidirectional else 1)
        norms = {"rms": nn.RMSNorm, "layer": nn.LayerNorm}

        def norm():
            return norms[block.norm](WIDTH, eps=block.epsilon) if block.norm in norms else nn.Identity()

        hidden = block.expansion * WIDTH
        gate = {"gate": (WIDTH, states), "glu": (states, WIDTH), "mlp": (states, hidden)}[block.mix]
        out = (hidden if block.mix == "mlp" else states, WIDTH)
        self.encoder = nn.Linear(FEATURES, WIDTH, bias=False)
        self.norms = nn.ModuleList([norm() for _ in range(LAYERS + 1)])
        self.recurrences = nn.ModuleList(
            [nn.RNN(WIDTH, WIDTH, nonlinearity="tanh", bidirectional=bidirectional) for _ in range(LAYERS)]
        )
        self.gates = nn.ModuleList([nn.Linear(*gate, bias=False) for _ in range(LAYERS)])
        self.outs = nn.ModuleList([nn.Linear(*out, bias=False) for _ in range(LAYERS)])
        self.readout = nn.Linear(WIDTH, OUTPUTS)
        self.streams = []

    def forward(self, inputs):
        r = self.encoder(inputs)
        for norm, recurrence, gate, out in zip(self.norms, self.recurrences, self.gates, self.outs, strict=False):
            r.retain_grad()
            self.streams.append(r)
            n = norm(r)
            h, _ = recurrence(n)
            if self.block.mix == "gate":
                mixed = out(h * nn.functional.silu(gate(n)))
            elif self.block.mix == "glu":
                mixed = out(nn.functional.gelu(h)) * torch.sigmoid(gate(nn.functional.gelu(h)))
            else:
                mixed = out(nn.functional.gelu(gate(h)))
            r = r + mixed if self.block.residual else mixed
        return self.readout(self.norms[-1](r))


def pairs(theirs, ours, bidirectional):
    """(a parameter of the plain network, our name, whether ours is transposed)."""
    yield theirs.encoder.weight, "W_encoder", True
    for layer in range(LAYERS):
        ending = f"_layer{layer + 1}"
        yield theirs.gates[layer].weight, f"W_gate{ending}", True
        yield theirs.outs[layer].weight, f"W_out{ending}", True
        for suffix in ("", "_reverse") if bidirectional else ("",):
            own = dict(theirs.recurrences[layer].named_parameters())
            yield own[f"weight_ih_l0{suffix}"], f"W_xh{ending}{suffix}", True
            yield own[f"weight_hh_l0{suffix}"], f"W_hh{ending}{suffix}", True
            yield own[f"bias_ih_l0{suffix}"], f"b_h{ending}{suffix}", False
    for norm, where in zip(
        theirs.norms, (*(f"norm_{{}}_layer{n + 1}" for n in range(LAYERS)), "readout_norm_{}"), strict=True
    ):
        if theirs.block.norm != "none":
            yield norm.weight, where.format("scale"), False
        if theirs.block.norm == "layer":
            yield norm.bias, where.format("shift"), False
    yield theirs.readout.weight, "W_ho", True
    yield theirs.readout.bias, "b_o", False


@pytest.mark.parametrize("engine", [ReferenceEngine(), ScaledEngine()], ids=lambda engine: engine.name)
@pytest.mark.parametrize(
    ("block", "bidirectional"), [*((block, False) for block in BLOCKS), *((block, True) for block in BLOCKS[:2])]
)
def test_equals_a_plain_module(block, bidirectional, engine):
    model, ours = network(Elman(width=WIDTH), block, bidirectional)
    inputs = noise(TIME, REPLICAS, BATCH, FEATURES).requires_grad_()
    steps = (2, TIME - 1)
    judge = noise(len(steps), REPLICAS, BATCH, OUTPUTS, seed=1)
    outputs, _ = model.forward(engine, ours, inputs, steps=steps, observed=True)
    (outputs * judge).sum().backward()
    for replica in range(REPLICAS):
        theirs = PlainNetwork(block, bidirectional).double()
        named = list(pairs(theirs, ours, bidirectional))
        assert {name for _, name, _ in named} == set(ours)
        with torch.no_grad():
            for value, name, turned in named:
                value.copy_(ours[name][replica].mT if turned else ours[name][replica])
            for recurrence in theirs.recurrences:
                for name, value in recurrence.named_parameters():
                    if "bias_hh" in name:
                        value.zero_()
        own = inputs.detach()[:, replica].clone().requires_grad_()
        expected = theirs(own)[list(steps)]
        (expected * judge[:, replica]).sum().backward()
        torch.testing.assert_close(outputs[:, replica], expected, **CLOSE)
        torch.testing.assert_close(inputs.grad[:, replica], own.grad, **CLOSE)
        for value, name, turned in named:
            found = ours[name].grad[replica]
            torch.testing.assert_close(
                found.mT if turned else found, value.grad, msg=lambda text, name=name: f"{name}: {text}", **CLOSE
            )
        if isinstance(engine, ScaledEngine):
            # What the network reads, then the stream at the input of every block.
            expected_streams = [own.grad, *(stream.grad for stream in theirs.streams)]
            for stream, gradient in zip(engine.streams, expected_streams, strict=True):
                torch.testing.assert_close(stream.gradient.values()[:, replica], gradient, **CLOSE)


@pytest.mark.parametrize(
    ("engine", "cell"),
    [(CompiledEngine(), LSTM(width=WIDTH)), (GraphEngine(), GRU(width=WIDTH)), (ScanEngine(), MinGRU(width=WIDTH))],
    ids=lambda value: getattr(value, "name", ""),
)
def test_every_engine_agrees_with_the_reference(engine, cell):
    found = []
    for other, dtype in ((ReferenceEngine(), torch.float64), (engine, torch.float32)):
        model, double = network(cell, Block(norm="layer", mix="glu"))
        parameters = {name: value.detach().to(dtype).requires_grad_() for name, value in double.items()}
        inputs = noise(TIME, REPLICAS, BATCH, FEATURES).to(dtype)
        outputs, trajectories = model.forward(other, parameters, inputs, steps=(TIME - 1,), observed=True)
        (outputs * noise(1, REPLICAS, BATCH, OUTPUTS, seed=1).to(dtype)).sum().backward()
        gradients = [value.grad.double() for value in parameters.values()]
        norms = [one.log_norms(state).clamp(min=-20) for one in trajectories for state in cell.states]
        found.append([outputs.double(), *gradients, *norms])
    for one, expected in zip(*reversed(found), strict=True):
        assert (one - expected).abs().max() <= 2e-5 * max(1.0, expected.abs().max().item())


def test_the_gradient_keeps_its_exponents_through_the_blocks():
    """A gradient of 10⁻⁴⁰⁰ at the outputs of one step arrives with the same shape as one of 1, 10⁻⁴⁰⁰ as large."""
    found = []
    for exponent in (0, -1400):
        engine = ScaledEngine()
        model, ours = network(LSTM(width=WIDTH), Block(mix="mlp"), bidirectional=True)
        outputs, trajectories = model.forward(
            engine, ours, noise(TIME, REPLICAS, BATCH, FEATURES), steps=range(TIME), observed=True
        )
        top = engine._made[-1][1]
        # A plain number cannot be so small: it is given with its exponent, and autograd only says when.
        judge = BlockFloat.of(noise(TIME, REPLICAS, BATCH, WIDTH, seed=1), 3)
        top.receive(BlockFloat(judge.mantissa, judge.exponent + exponent))
        (0 * outputs).sum().backward()
        norms = [one.log_norms(state) for one in trajectories for state in ("h", "c")]
        found.append([*norms, *(stream.gradient.log_norms() for stream in engine.streams)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one - 1400 * LOG10_2, **CLOSE)


def run_of(**given):
    training = Training(steps=4, batch=6, check_every=2, validation_sequences=6, test_sequences=6)
    fields = {"task": TemporalOrder(length=10), "cell": LSTM(width=WIDTH), "layers": 2, "training": training}
    return Run(**{**fields, "block": Block(), **given})


def test_a_normalisation_begins_as_published_whatever_the_initialisation():
    for initialisation in (PyTorchDefault(), Glorot()):
        drawn = Population((run_of(block=Block(norm="layer"), initialisation=initialisation),)).initial_parameters()
        for name in ("norm_{}_layer1", "norm_{}_layer2", "readout_norm_{}"):
            assert (drawn[name.format("scale")] == 1).all()
            assert (drawn[name.format("shift")] == 0).all()
        assert drawn["W_encoder"].shape == (1, TemporalOrder(length=10).features, WIDTH)


def test_a_run_in_blocks_trains_and_its_key_is_its_own():
    *_, record = train(run_of())
    assert record.outcome.status == "finished"
    assert "log10_ratio_initial_h_layer2" in record.outcome.summary
    runs = [run_of(block=block) for block in (None, *BLOCKS)]
    assert all(one.key != other.key for one, other in itertools.combinations(runs, 2))
    assert run_of(block=None).key == Run(**{n: getattr(runs[0], n) for n in ("task", "cell", "layers", "training")}).key


class Retaining(ReferenceEngine):
    """Keeps what the layers of a network read, with its gradient; of a `bare` network each layer's own input."""

    def __init__(self, bare):
        self.bare, self.read = bare, []

    def stream(self, values):
        values.retain_grad()
        self.read.append(values)
        return values

    def unroll_layer(self, run):
        if self.bare:
            self.stream(run.inputs)
        return super().unroll_layer(run)


@pytest.mark.parametrize(
    ("block", "bidirectional"),
    [(Block(), False), (Block(norm="layer", residual=False), True), (None, False), (None, True)],
)
def test_the_gradient_through_depth_is_that_of_what_each_layer_reads(block, bidirectional):
    population = Population((run_of(block=block, bidirectional=bidirectional, layers=3),))
    parameters = population.initial_parameters()
    side = functools.cache(lambda n: side_batch(population, parameters, n, torch.device("cpu")))
    moment = Moment("initial", 0, parameters, {}, {}, None, side, LSTM(width=WIDTH))
    found = {reading.name: reading for reading in GradientThroughDepth(sequences=8).read(moment)}
    drawn = fixed_batch(population, "probe", 8, torch.device("cpu"))
    engine = Retaining(bare=block is None and not bidirectional)
    outputs, _ = population.model.forward(
        engine,
        {name: value.double() for name, value in parameters.items()},
        drawn.inputs.double().requires_grad_(),
        steps=drawn.steps,
        observed=False,
        ends=drawn.last,
    )
    drawn.loss_of_last_step(population.task, outputs).sum().backward()
    by_layer = torch.stack([one.grad[:, 0].norm(dim=(0, 2)).log10() for one in engine.read[-3:]])
    readings = found["depth/stream_initial"]
    assert readings.coordinates == {"layer": (1.0, 2.0, 3.0)}
    torch.testing.assert_close(readings.values[0, MEDIAN], by_layer.quantile(0.5, dim=1), **CLOSE)
    ratio = (by_layer[0] - by_layer[2]).quantile(0.5)
    torch.testing.assert_close(found["summary/depth_ratio_initial"].values[0], ratio, **CLOSE)


@pytest.mark.parametrize(
    ("block", "bidirectional"), [(Block(norm="layer", mix="glu"), False), (Block(mix="mlp"), True), (None, True)]
)
def test_a_run_ends_with_the_same_bits_alone_and_among_others(block, bidirectional):
    runs = [run_of(block=block, bidirectional=bidirectional, layers=1, seed=seed, probes=()) for seed in range(3)]
    found = []
    for together in (runs, runs[1:2]):
        records = [record for record in train(together) if record.key == runs[1].key and record.weights is not None]
        found.append(records[-1].weights)
    for name, values in found[0].items():
        assert torch.equal(torch.as_tensor(values), torch.as_tensor(found[1][name])), name


def test_a_cell_that_is_its_own_readout_is_refused_in_one_line():
    with pytest.raises(SpecError, match=r"^Jordan is its own readout and cannot be part of a block; use another cell"):
        run_of(cell=Jordan(width=WIDTH))
