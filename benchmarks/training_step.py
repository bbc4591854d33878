"""One training step of a population with every gradient through time recorded, against what public code does.

Ours: the compiled engine, which trains by default on the CPU, and the reference engine. Peers: `torch.nn`
un-instrumented, one network after another; the loop of cells with `retain_grad` on every state, which is what a person
writes who wants dL/dh_t; and JAX (`jax_scan`). All on one CPU core with denormals flushed. Each step is forward,
readout, cross-entropy, backward, clipping by norm and SGD. Timings are interleaved; what counts is the ratio.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks import jax_scan
from rnnstudy.cells.cell import Cell
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.gru import GRU
from rnnstudy.cells.lstm import LSTM
from rnnstudy.engines.compiled import CompiledEngine
from rnnstudy.engines.engine import Engine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.optimisers.sgd import SGD
from rnnstudy.run import Run, Training
from rnnstudy.tasks.temporal_order import TemporalOrder
from rnnstudy.training.batches import TrainingBatches
from rnnstudy.training.learner import Learner
from rnnstudy.training.population import Population

ROUNDS, FEWEST_ROUNDS, SECONDS_FOR_ROUNDS = 9, 3, 4.0
LAYERS = {Elman: torch.nn.RNN, LSTM: torch.nn.LSTM, GRU: torch.nn.GRU}
CELLS = {Elman: torch.nn.RNNCell, LSTM: torch.nn.LSTMCell, GRU: torch.nn.GRUCell}


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
    data = next(TrainingBatches(population, 0, torch.device("cpu")))

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


ONE_AT_A_TIME = (torch_nn, loop_with_retain_grad)
"""Their time for a network does not depend on how many there are: they are timed on one."""

MOST_FOR_JAX = 8 * 200 * 128 * 128
"""Replicas · steps · batch · width beyond which JAX is left out: a step takes many seconds."""

MOST_FOR_REFERENCE = 8 * 1000 * 20 * 50
"""The same for the reference engine."""


def peers(cell: Cell, length: int, batch: int, replicas: int) -> dict[str, Callable[[], Any]]:
    """The steps to be compared, by name, ours first."""
    size = replicas * length * batch * cell.width
    found = {"compiled": compiled(cell, length, batch, replicas)}
    found |= {build.__name__: build(cell, length, batch, 1) for build in ONE_AT_A_TIME}
    if size <= MOST_FOR_REFERENCE:
        found["reference"] = reference(cell, length, batch, replicas)
    if size <= MOST_FOR_JAX and jax_scan.there():
        found["jax_scan"] = jax_scan.jax_scan(cell, length, batch, replicas)
    return found


def compare(cell: Cell, length: int, batch: int, replicas: int) -> dict[str, Any]:
    """Milliseconds for each replica and step, and how many times the others' time is the compiled engine's."""
    steps = peers(cell, length, batch, replicas)
    networks = {name: 1 if name in [build.__name__ for build in ONE_AT_A_TIME] else replicas for name in steps}
    for step in steps.values():
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    began = time.perf_counter()
    for turn in range(ROUNDS):
        if turn >= FEWEST_ROUNDS and time.perf_counter() - began > SECONDS_FOR_ROUNDS:
            break
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append((time.perf_counter() - start) / networks[name])
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
        "rounds": len(times["compiled"]),
        "milliseconds": {name: 1e3 * statistics.median(values) for name, values in times.items()},
        "times_faster": {name: spread(values) for name, values in ratios.items()},
    }


def with_two_threads(cell: Cell, length: int, batch: int, replicas: int) -> dict[str, Any]:
    """How many times faster two threads are than one, the compiled engine alone."""
    step = compiled(cell, length, batch, replicas)
    ratios = []
    for _ in range(ROUNDS + 1):
        seconds = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    torch.set_num_threads(1)
    # The first round warms up.
    return {"cell": type(cell).__name__, "length": length, "replicas": replicas, "times_faster": spread(ratios[1:])}


def spread(values: Iterable[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "lowest": ordered[0], "highest": ordered[-1]}
