"""A finished run's network, to be looked at and used."""

import json
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rnnstudy import results
from rnnstudy.cells.cell import Parameters
from rnnstudy.home import Home
from rnnstudy.model import Model
from rnnstudy.run import Run
from rnnstudy.spec import build
from rnnstudy.unroll.reference import ReferenceEngine


@dataclass(frozen=True)
class Trained:
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


def load(key: str, *, home: Home | None = None) -> Trained:
    """The trained network of the run `key`, or of the one run whose key begins so.

    Raises `SpecError` when there is no such run, it has not ended, or its classes cannot be imported: a task or cell
    defined in an experiment file needs that file loaded first (`rnnstudy.sweep.load_experiment`).
    """
    stored = results.stored(key, home=home)
    run = build(json.loads(stored.tags["rnnstudy.spec"])).replace(
        probes=build(json.loads(stored.tags["rnnstudy.probes"]))
    )
    with np.load(results.artifact(stored.key, "weights.npz", home=home)) as weights:
        parameters = {name: torch.from_numpy(weights[name]) for name in weights.files}
    return Trained(run, parameters)
