"""The trained network of a finished run: load it, run it, read probes on it."""

import json
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rnnstudy.cells.cell import Parameters
from rnnstudy.engines.reference import ReferenceEngine
from rnnstudy.probes.probe import Moment, Probe
from rnnstudy.probes.reading import Reading
from rnnstudy.results.loading import artifact_file, stored_run
from rnnstudy.run import Run
from rnnstudy.spec import ClassMissing, build
from rnnstudy.store.arrays import WEIGHTS, read_weights
from rnnstudy.store.errors import DamagedFile
from rnnstudy.store.project import Project, find_project
from rnnstudy.store.stored_run import StoredRun
from rnnstudy.tasks import locations
from rnnstudy.training.cost import population_bounds, require_room_for_jacobians
from rnnstudy.training.evaluation import probe_batches
from rnnstudy.training.population import Population


@dataclass(frozen=True)
class TrainedNetwork:
    """The network of one run, with its weights at the end of training.

    Attributes:
        run: its specification.
        parameters: name to weights, without a replica axis.
    """

    run: Run
    parameters: Parameters

    def __call__(
        self, inputs: Float[Tensor, "time batch features"] | Int[Tensor, "time batch 1"]
    ) -> Float[Tensor, "time batch outputs"]:
        """The outputs at every step. Differentiable with respect to the inputs and the parameters.

        Of a task whose inputs are symbols, `inputs` are symbols or their one-hot vectors. The reverse direction of a
        bidirectional network begins at the last of these steps, in all sequences. Where the task is supervised at its
        end alone, only the last output is an answer.
        """
        model = Population((self.run,)).model
        population = {name: value.unsqueeze(0) for name, value in self.parameters.items()}
        outputs, _ = model.forward(
            ReferenceEngine(), population, inputs.unsqueeze(1), steps=range(len(inputs)), observed=False
        )
        return outputs.squeeze(1)


def load_network(key: str, *, project: Project | None = None) -> TrainedNetwork:
    """The trained network of the run `key`; a unique beginning of the key is enough.

    Raises `RequestError` when there is no such run or it is not complete, `DamagedFile` when it is damaged, and
    `SpecError` when its classes cannot be imported: load the experiment file that defines its task or cell first
    (`rnnstudy.sweep.load_experiment`).
    """
    stored = stored_run(key, project=project)
    if stored.state == "damaged":
        raise DamagedFile(stored.damage)
    try:
        probes = build(json.loads(stored.tags["rnnstudy.probes"]))
        run = specification(stored, project).replace(probes=probes)
    except ClassMissing as error:
        file = stored.tags.get("mlflow.source.name") or "FILE"
        raise ClassMissing(f"{error}: `--file {file}`, or `load_experiment` in Python") from None
    weights = read_weights(artifact_file(stored.key, WEIGHTS, project=project))
    return TrainedNetwork(run, {name: torch.from_numpy(values) for name, values in weights.items()})


def specification(stored: StoredRun, project: Project | None = None) -> Run:
    """The specification of a stored run. Where its data lie is looked for as in its experiment's file.

    Raises what `spec.build` raises.
    """
    file = (project or find_project()).root / stored.tags.get("mlflow.source.name", "")
    locations.look_in(file.parent, (project or find_project()).root)
    return build(json.loads(stored.tags["rnnstudy.spec"]))


def read_probe(key: str, probe: Probe, *, project: Project | None = None) -> list[Reading]:
    """The readings of `probe` on the trained network of the run `key`, each with a replica axis of length one.

    The probe sees the same sequences as it would at the end of the run. Raises what `load_network` raises, and
    `RequestError` when there is no room for the Jacobians that the probe needs.
    """
    network = load_network(key, project=project)
    require_room_for_jacobians(network.run, (probe,), lambda: population_bounds(torch.device("cpu"))[1])
    population = Population((network.run,))
    parameters = {name: value.unsqueeze(0) for name, value in network.parameters.items()}
    batches = probe_batches(population, parameters, torch.device("cpu"))
    return probe.read(Moment("final", 0, parameters, {}, {}, None, batches, network.run.cell))
