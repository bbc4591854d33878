"""One training step of a population with every gradient through time recorded, against what public code does.

Ours: the compiled engine, which trains by default on the CPU, and the reference engine. Peers: `torch.nn`
un-instrumented, one network after another; and the loop of cells with `retain_grad` on every state, which is what a
person writes who wants dL/dh_t. All on one CPU thread with denormals flushed. Each step is forward, readout,
cross-entropy, backward, clipping by norm and SGD. Timings are interleaved; what counts is the ratio.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from rnnstudy.cells.cell import Cell
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.lstm import LSTM
from rnnstudy.learner import Learner
from rnnstudy.optimisers.sgd import SGD
from rnnstudy.population import Population
from rnnstudy.run import Run, Training
from rnnstudy.tasks.temporal_order import TemporalOrder
from rnnstudy.unroll.compiled import CompiledEngine
from rnnstudy.unroll.reference import ReferenceEngine
from rnnstudy.unroll.trajectory import Engine

ROUNDS = 7
LAYERS = {Elman: torch.nn.RNN, LSTM: torch.nn.LSTM}
CELLS = {Elman: torch.nn.RNNCell, LSTM: torch.nn.LSTMCell}


def compiled(cell: Cell, length: int, batch: int, replicas: int) -> Callable[[], Any]:
    """The compiled engine: a program for each replica, log10 norms of every state at every step read."""
    return _ours(CompiledEngine(), cell, length, batch, replicas)


def reference(cell: Cell, length: int, batch: int, replicas: int) -> Callable[[], Any]:
    """The reference engine: a population in one program, log10 norms of every state at every step read."""
    return _ours(ReferenceEngine(), cell, length, batch, replicas)


def _ours(engine: Engine, cell: Cell, length: int, batch: int, replicas: int) -> Callable[[], Any]:
    training = Training(batch=batch, optimiser=SGD(), learning_rate=0.01)
    runs = [Run(task=TemporalOrder(length=length), cell=cell, training=training, seed=s) for s in range(replicas)]
    population = Population(tuple(runs))
    learner = Learner.begin(population, torch.device("cpu"))
    data = next(population.training_batches(0, torch.device("cpu")))

    def step() -> Any:
        outputs, [trajectory] = population.model.forward(
            engine, learner.parameters, data.inputs, steps=data.steps, observed=True
        )
        loss = data.loss(population.task, outputs).mean(-1)
        before = learner.backward(loss)
        learner.update(loss, before, learner.clip(before))
        return [trajectory.log_norms(state) for state in cell.states]

    return step


def torch_nn(cell: Cell, length: int, batch: int, replicas: int) -> Callable[[], Any]:
    """torch.nn's own layer, nothing recorded, one network after another."""
    networks = [
        torch.nn.ModuleList([LAYERS[type(cell)](6, cell.width), torch.nn.Linear(cell.width, 4)])
        for _ in range(replicas)
    ]
    return _one_after_another(networks, lambda layer, inputs: layer(inputs)[0][-1], length, batch)


def loop_with_retain_grad(cell: Cell, length: int, batch: int, replicas: int) -> Callable[[], Any]:
    """A Python loop of torch.nn cells that keeps the gradient of every state, one network after another."""
    networks = [
        torch.nn.ModuleList([CELLS[type(cell)](6, cell.width), torch.nn.Linear(cell.width, 4)]) for _ in range(replicas)
    ]

    def last_state(layer: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        state = None
        for one in inputs:
            state = layer(one, state)
            for kept in state if isinstance(state, tuple) else (state,):
                kept.retain_grad()
        return state[0] if isinstance(state, tuple) else state  # pyright: ignore[reportReturnType]

    return _one_after_another(networks, last_state, length, batch)


def _one_after_another(
    networks: list[torch.nn.ModuleList], last_state: Callable[[Any, torch.Tensor], Any], length: int, batch: int
) -> Callable[[], Any]:
    drawn = TemporalOrder(length=length).sample(batch, torch.Generator().manual_seed(0))

    def step() -> None:
        for layer, readout in networks:
            parameters = [*layer.parameters(), *readout.parameters()]
            optimiser = torch.optim.SGD(parameters, lr=0.01)
            torch.nn.functional.cross_entropy(readout(last_state(layer, drawn.inputs)), drawn.targets[-1]).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            optimiser.zero_grad()

    return step


STEPS = (compiled, reference, torch_nn, loop_with_retain_grad)


def compare(cell: Cell, length: int, batch: int, replicas: int) -> dict[str, Any]:
    """Median milliseconds for each replica and step, and how many times the others' time is the compiled engine's."""
    steps = {build.__name__: build(cell, length, batch, replicas) for build in STEPS}
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            times[name].append((time.perf_counter() - began) / replicas)
    ratios = {
        name: sorted(theirs / own for theirs, own in zip(times[name], times["compiled"], strict=True))
        for name in steps
        if name != "compiled"
    }
    return {
        "cell": type(cell).__name__,
        "length": length,
        "batch": batch,
        "width": cell.width,
        "replicas": replicas,
        "milliseconds": {name: 1e3 * statistics.median(values) for name, values in times.items()},
        "times_faster": {
            name: {"median": statistics.median(values), "lowest": values[0], "highest": values[-1]}
            for name, values in ratios.items()
        },
    }
