"""Symbols read by bidirectional layers and blocks: torch.nn in float64, and the same network with one-hot vectors."""

import math

import pytest
import torch
from torch import nn

from rnnstudy.cells import Block, Elman
from rnnstudy.cells.initialisation import PyTorchDefault
from rnnstudy.cells.one_hot import NOTHING
from rnnstudy.engines.compiled import CompiledEngine
from rnnstudy.engines.cuda_graph import GraphEngine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.scaled import ScaledEngine
from rnnstudy.probes import (
    GradientSignal,
    GradientThroughDepth,
    GradientThroughTime,
    InformativeContrast,
    ParameterGradients,
    StateDecoder,
    StateDistance,
)
from rnnstudy.run import Run, Training
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.cost import cost
from rnnstudy.training.loop import train
from rnnstudy.training.model import Model
from rnnstudy.training.population import Population
from rnnstudy.training.randomness import generator

VOCABULARY, EMBEDDING, WIDTH, OUTPUTS, LAYERS, REPLICAS, BATCH, TIME = 11, 4, 5, 3, 2, 2, 4, 7
LENGTHS = torch.tensor([7, 4, 6, 5])
CLOSE = {"rtol": 0, "atol": 1e-10}
BLOCK = Block(norm="layer", mix="glu")


class SymbolOrder(TemporalOrder):
    """Temporal order, whose batches hold the symbols' numbers."""

    @property
    def inputs_are_symbols(self):
        return True

    def sample(self, batch, generator):
        drawn = super().sample(batch, generator)
        read = drawn.inputs.any(-1)
        symbols = torch.where(read, drawn.inputs.argmax(-1), NOTHING)
        return type(drawn)(**{**vars(drawn), "inputs": symbols.unsqueeze(-1)})


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(embedding=EMBEDDING, block=BLOCK):
    model = Model(
        cell=Elman(width=WIDTH),
        layers=LAYERS,
        features=VOCABULARY,
        outputs=OUTPUTS,
        embedding=embedding,
        block=block,
        bidirectional=True,
        ends_only=True,
    )
    drawn = [model.draw(PyTorchDefault(), generator(seed, "initialisation")) for seed in range(REPLICAS)]
    ours = {name: torch.stack([one[name] for one in drawn]).double() for name in drawn[0]}
    # Scales and shifts begin at 1 and 0, where a mistake in them would not show.
    for seed, (name, value) in enumerate(ours.items()):
        if "norm" in name:
            value += 0.3 * noise(*value.shape, seed=seed)
    symbols = torch.randint(0, VOCABULARY, (TIME, REPLICAS, BATCH, 1), generator=torch.Generator().manual_seed(0))
    behind = torch.arange(TIME)[:, None, None, None] >= LENGTHS[:, None]
    return model, {name: value.requires_grad_() for name, value in ours.items()}, symbols.masked_fill(behind, NOTHING)


def judged():
    """The steps of which outputs are read, and what they are multiplied by before they are summed."""
    last = torch.arange(TIME)[:, None, None, None] == LENGTHS[:, None] - 1
    steps = tuple((LENGTHS - 1).unique().tolist())
    return steps, (noise(TIME, REPLICAS, BATCH, OUTPUTS, seed=1) * last)[list(steps)]


def of_one_sequence(ours, symbols):
    """ŷ at the end of one sequence, and h of every layer and direction in the order in which it was computed."""
    r = nn.functional.embedding(symbols, ours["W_xe"]) @ ours["W_encoder"]
    states = []

    def normalised(values, name, ending=""):
        weight, bias = ours[f"{name}_scale{ending}"], ours[f"{name}_shift{ending}"]
        return nn.functional.layer_norm(values, (WIDTH,), weight, bias, eps=BLOCK.epsilon)

    for layer in range(LAYERS):
        ending = f"_layer{layer + 1}"
        n, both = normalised(r, "norm", ending), []
        for suffix in ("", "_reverse"):
            weights = {name: ours[name + ending + suffix] for name in ("W_xh", "W_hh", "b_h")}
            h, own_order = torch.zeros(WIDTH, dtype=torch.float64), []
            for x in n.flip(0) if suffix else n:
                h = torch.tanh(x @ weights["W_xh"] + h @ weights["W_hh"] + weights["b_h"])
                h.retain_grad()
                own_order.append(h)
            states.append(own_order)
            both.append(torch.stack(own_order))
        if layer == LAYERS - 1:
            # The last state of each direction, on the stream at the end of the sequence.
            h, r = torch.cat([both[0][-1], both[1][-1]]), r[-1]
        else:
            h = torch.cat([both[0], both[1].flip(0)], dim=-1)
        a = nn.functional.gelu(h)
        r = r + (a @ ours[f"W_out{ending}"]) * torch.sigmoid(a @ ours[f"W_gate{ending}"])
    return normalised(r, "readout_norm") @ ours["W_ho"] + ours["b_o"], states


@pytest.mark.parametrize("engine", [ReferenceEngine(), ScaledEngine()], ids=lambda engine: engine.name)
def test_an_embedding_before_bidirectional_blocks_equals_a_loop_by_hand(engine):
    model, ours, symbols = network()
    assert next(iter(ours)) == "W_xe"
    assert ours["W_encoder"].shape == (REPLICAS, EMBEDDING, WIDTH)
    steps, judge = judged()
    ends = (LENGTHS - 1).expand(REPLICAS, -1)
    outputs, trajectories = model.forward(engine, ours, symbols, steps=steps, observed=True, ends=ends)
    (outputs * judge).sum().backward()
    for replica in range(REPLICAS):
        own = {name: value.detach()[replica].clone().requires_grad_() for name, value in ours.items()}
        for b, length in enumerate(LENGTHS.tolist()):
            expected, states = of_one_sequence(own, symbols[:length, replica, b, 0])
            at = steps.index(length - 1)
            (expected * judge[at, replica, b]).sum().backward()
            torch.testing.assert_close(outputs[at, replica, b], expected, **CLOSE)
            for trajectory, hand in zip(trajectories, states, strict=True):
                found = trajectory.gradient("h")[:, replica, b]
                torch.testing.assert_close(found[:length], torch.stack([h.grad for h in hand]), **CLOSE)
                assert not found[length:].any()
        for name, value in own.items():
            assert value.grad.any(), name
            torch.testing.assert_close(ours[name].grad[replica], value.grad, **CLOSE, msg=name)


@pytest.mark.parametrize("engine", [CompiledEngine(), GraphEngine()], ids=lambda engine: engine.name)
@pytest.mark.parametrize(("embedding", "block"), [(None, None), (EMBEDDING, BLOCK)])
def test_every_engine_agrees_with_the_reference(engine, embedding, block):
    found = []
    for other, dtype in ((ReferenceEngine(), torch.float64), (engine, torch.float32)):
        model, double, symbols = network(embedding, block)
        parameters = {name: value.detach().to(dtype).requires_grad_() for name, value in double.items()}
        steps, judge = judged()
        ends = (LENGTHS - 1).expand(REPLICAS, -1)
        outputs, trajectories = model.forward(other, parameters, symbols, steps=steps, observed=True, ends=ends)
        (outputs * judge.to(dtype)).sum().backward()
        norms = [one.log_norms("h").clamp(min=-20) for one in trajectories]
        found.append([outputs[judge != 0].double(), *(one.grad.double() for one in parameters.values()), *norms])
    for one, expected in zip(*reversed(found), strict=True):
        assert (one - expected).abs().max() <= 2e-5 * max(1.0, expected.abs().max().item())


PROBES = (
    ParameterGradients(),
    GradientThroughTime(every=2, sequences=4),
    GradientThroughDepth(sequences=4),
    InformativeContrast(every=2, sequences=4),
    GradientSignal(sequences=4),
    StateDecoder(sequences=6),
    StateDistance(sequences=4),
)


@pytest.mark.parametrize(
    "given",
    [{"bidirectional": True}, {"block": BLOCK}, {"bidirectional": True, "block": BLOCK, "layers": 2}],
    ids=["bidirectional", "block", "both"],
)
def test_a_run_reads_and_learns_the_same_as_with_one_hot_vectors(given):
    options = {"length": 10, "variant": "hochreiter"}
    training = Training(steps=4, batch=6, check_every=2, validation_sequences=6, test_sequences=6)
    dense, symbols = (
        Run(task=task(**options), cell=Elman(width=WIDTH), training=training, probes=PROBES, **given)
        for task in (TemporalOrder, SymbolOrder)
    )
    expected, found = (
        next(record for record in train(run, device="cpu", engine="reference") if record.outcome)
        for run in (dense, symbols)
    )
    assert {"depth/stream_initial", "decoded/h_initial"} <= {name.replace("_layer1", "") for name in found.series}
    assert found.series.keys() == expected.series.keys()
    for name, series in expected.series.items():
        ours, theirs = torch.as_tensor(found.series[name].values), torch.as_tensor(series.values)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-3, equal_nan=True, msg=name)
    assert found.outcome.summary.keys() == expected.outcome.summary.keys()
    assert any(name.startswith("informative_contrast") for name in found.outcome.summary)
    for name, value in expected.outcome.summary.items():
        assert math.isclose(found.outcome.summary[name], value, rel_tol=1e-3, abs_tol=2e-3), name


def test_probes_take_an_embedding_before_blocks_in_both_directions():
    training = Training(steps=4, batch=6, check_every=2, validation_sequences=6, test_sequences=6)
    run = Run(
        task=SymbolOrder(length=10),
        cell=Elman(width=WIDTH),
        training=training,
        probes=PROBES,
        embedding=EMBEDDING,
        block=Block(),
        bidirectional=True,
    )
    *_, record = train(run, device="cpu")
    assert record.outcome.status == "finished"
    assert {"distance_h_reverse_initial", "informative_contrast_initial"} <= record.outcome.summary.keys()
    larger = cost(Population((run.replace(embedding=2 * EMBEDDING),))).seconds
    assert cost(Population((run,))).seconds < larger
