"""Whole training steps of populations on a GPU, beside cuDNN one after another and on many streams.

Ours record dL/ds_t of every state at every step; cuDNN's layers record nothing. A step is forward, readout,
cross-entropy, backward, clipping by norm and SGD. Nothing multiplies in plain TF32.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from rnnstudy.cells.cell import Cell
from rnnstudy.cells.elman import Elman
from rnnstudy.cells.lstm import LSTM
from rnnstudy.engines.cuda_graph import GraphEngine
from rnnstudy.engines.engine import Engine
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.engines.triton import TritonEngine
from rnnstudy.optimisers.sgd import SGD
from rnnstudy.run import Run, Training
from rnnstudy.tasks.temporal_order import TemporalOrder
from rnnstudy.training.batches import TrainingBatches
from rnnstudy.training.learner import Learner
from rnnstudy.training.population import Population

Step = Callable[[], Any]
Take = Callable[[str, Any], None]

LAYERS: dict[type[Cell], Callable[..., torch.nn.Module]] = {Elman: torch.nn.RNN, LSTM: torch.nn.LSTM}
MOST_ROUNDS, MOST_SECONDS = 11, 1.5
NETWORKS = 132
"""cuDNN networks in a round; more take proportionally longer, one after another."""

STREAMS = 32


def population_step(engine: Engine, cell: Cell, length: int, replicas: int, device: torch.device) -> Step:
    """A step of a population under one of our engines, all log norms of all states included."""
    training = Training(batch=20, optimiser=SGD(), learning_rate=0.01)
    # One data seed: drawing data is no part of what is measured.
    run = Run(task=TemporalOrder(length=length), cell=cell, training=training, data_seed=0)
    population = Population(tuple(run.replace(seed=seed) for seed in range(replicas)))
    learner = Learner.begin(population, device)
    data = next(TrainingBatches(population, 0, device))

    def step() -> Any:
        outputs, [trajectory] = population.model.forward(
            engine, learner.parameters, data.inputs, steps=data.steps, observed=True
        )
        loss = data.loss(population.task, outputs).mean(-1)
        before = learner.backward(loss)
        learner.update(loss, before, learner.clip(before))
        return [trajectory.log_norms(state) for state in cell.states]

    return step


def cudnn_step(cell: Cell, length: int, networks: int, streams: int, device: torch.device) -> Step:
    """A step of so many torch.nn layers, one after another, or by turns on so many CUDA streams."""
    drawn = TemporalOrder(length=length).sample(20, torch.Generator().manual_seed(0))
    inputs, targets = drawn.inputs.to(device), drawn.targets[-1].to(device)
    made = []
    for _ in range(networks):
        layer = LAYERS[type(cell)](6, cell.width).to(device)
        readout = torch.nn.Linear(cell.width, 4).to(device)
        parameters = [*layer.parameters(), *readout.parameters()]
        made.append((layer, readout, parameters, torch.optim.SGD(parameters, lr=0.01)))
    side = [torch.cuda.Stream() for _ in range(streams)]

    def one(layer: Any, readout: Any, parameters: list[Any], optimiser: torch.optim.Optimizer) -> None:
        torch.nn.functional.cross_entropy(readout(layer(inputs)[0][-1]), targets).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()

    def step() -> None:
        for stream in side:
            stream.wait_stream(torch.cuda.current_stream())
        for index, network in enumerate(made):
            if side:
                with torch.cuda.stream(side[index % streams]):
                    one(*network)
            else:
                one(*network)
        for stream in side:
            torch.cuda.current_stream().wait_stream(stream)

    return step


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(steps: dict[str, Step], device: torch.device, tiny: bool) -> dict[str, Any]:
    """Median and range over interleaved rounds, warm; for a step that fails, why."""
    found: dict[str, Any] = {}
    times: dict[str, list[float]] = {}
    for name, step in steps.items():
        try:
            for _ in range(1 if tiny else 3):
                step()
            wait(device)
            times[name] = []
        # Too little memory, or a kernel that does not launch, is a result here.
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"[:300]
    began = time.perf_counter()
    for round_ in range(2 if tiny else MOST_ROUNDS):
        if round_ > 2 and time.perf_counter() - began > MOST_SECONDS * len(times):
            break
        for name in times:
            wait(device)
            start = time.perf_counter()
            steps[name]()
            wait(device)
            times[name].append(1e3 * (time.perf_counter() - start))
    for name, values in times.items():
        spread = {"lowest": min(values), "highest": max(values), "rounds": len(values)}
        found[name] = {"median": statistics.median(values), **spread}
    return found


def measured_steps(take: Take, device: torch.device, tiny: bool) -> None:
    """Hand `take` a result for each cell and number of replicas: milliseconds for the whole population."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    length, width = (10, 4) if tiny else (200, 50)
    for replicas in (1, 2) if tiny else (1, 132, 512, 2048):
        for cell in (Elman(width=width), LSTM(width=width)):
            engines: dict[str, Engine] = {"graph": GraphEngine()}
            if device.type == "cuda":
                engines["triton"] = TritonEngine()
            if replicas in (1, 132) or tiny:
                engines["reference"] = ReferenceEngine()
            steps = {name: population_step(engine, cell, length, replicas, device) for name, engine in engines.items()}
            networks = min(replicas, NETWORKS)
            if replicas <= NETWORKS:
                steps["cudnn one after another"] = cudnn_step(cell, length, networks, 0, device)
                if device.type == "cuda" and replicas > 1:
                    steps[f"cudnn on {STREAMS} streams"] = cudnn_step(cell, length, networks, STREAMS, device)
            found = milliseconds(steps, device, tiny)
            if device.type == "cuda":
                found["most bytes"] = torch.cuda.max_memory_allocated(device)
                torch.cuda.reset_peak_memory_stats(device)
            take(f"{type(cell).__name__} K={replicas} B=20 H={width} T={length}", found)
            del steps, engines
            if device.type == "cuda":
                torch.cuda.empty_cache()
