"""A finished run's network, to be looked at and used."""

import json
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy import results
from rnnstudy.cells.cell import Parameters
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.run import Run
from rnnstudy.spec import build
from rnnstudy.store.project import Project
from rnnstudy.training.evaluation import probe_batches
from rnnstudy.training.model import Model
from rnnstudy.training.population import Population


@dataclass(frozen=True)
class TrainedNetwork:
    """The network of one run as it was when training ended.

    Attributes:
        run: its specification.
        parameters: name to weights, without a replica axis.
    """

    run: Run
    parameters: Parameters

    def __call__(self, inputs: Float[Tensor, "time batch features"]) -> Float[Tensor, "time batch outputs"]:
        """What the network says at every step. Differentiable in the inputs and the parameters."""
        model = Model.of(self.run.task, self.run.cell, self.run.layers)
        population = {name: value.unsqueeze(0) for name, value in self.parameters.items()}
        outputs, _ = model.forward(
            ReferenceEngine(), population, inputs.unsqueeze(1), steps=range(len(inputs)), observed=False
        )
        return outputs.squeeze(1)


def load_network(key: str, *, project: Project | None = None) -> TrainedNetwork:
    """The trained network of the run `key`, or of the one run whose key begins so.

    Raises `SpecError` when there is no such run, it has not ended, or its classes cannot be imported: a task or cell
    defined in an experiment file needs that file loaded first (`rnnstudy.sweep.load_experiment`).
    """
    stored = results.stored_run(key, project=project)
    run = build(json.loads(stored.tags["rnnstudy.spec"])).replace(
        probes=build(json.loads(stored.tags["rnnstudy.probes"]))
    )
    with np.load(results.artifact_file(stored.key, "weights.npz", project=project)) as weights:
        parameters = {name: torch.from_numpy(weights[name]) for name in weights.files}
    return TrainedNetwork(run, parameters)


def probe_readings(network: TrainedNetwork, probe: Probe) -> list[Reading]:
    """What `probe` reads at the final moment of a trained network, each with a replica axis of length one.

    The sequences are those that the probe would have seen in the run itself.
    """
    population = Population((network.run,))
    parameters = {name: value.unsqueeze(0) for name, value in network.parameters.items()}
    batches = probe_batches(population, parameters, torch.device("cpu"))
    return probe.read(Moment("final", 0, parameters, {}, {}, None, batches, network.run.cell))


def read_probe(key: str, probe: Probe, *, project: Project | None = None) -> list[Reading]:
    """What `probe` reads of the run `key`, or of the one run whose key begins so.

    Raises `SpecError` when there is no such run, or its network cannot be loaded (see `trained.load`).
    """
    return probe_readings(load_network(key, project=project), probe)
