"""A task, cell, probe and experiment of a user, in files outside the package, work like those of the package."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnstudy import results
from rnnstudy.probes.probe import Probe
from rnnstudy.report.build import build_reports
from rnnstudy.results.trained import load_network
from rnnstudy.spec import concrete
from rnnstudy.store.project import Project
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale

TASK = '''
"""Say at the end what the first symbol was."""
from math import log
from typing import ClassVar

import torch

from rnnstudy.tasks import task
from rnnstudy.tasks.task import Batch, Chance, Criterion, Task


class FirstSymbol(Task):
    """The target at the last step is the first of T symbols, A or B; the others are noise from the same two."""

    source: ClassVar[str] = "a user"
    loss_unit: ClassVar[str] = "nats"

    @property
    def features(self):
        return 2

    @property
    def outputs(self):
        return 2

    @property
    def criterion(self):
        return Criterion(0.01, "less than 1 % wrong", "share of sequences misclassified")

    @property
    def chance(self):
        return Chance(loss=log(2), error=1 / 2)

    def sample(self, batch, generator):
        symbols = torch.randint(2, (self.steps, batch), generator=generator)
        last = torch.full((batch,), self.steps - 1)
        return Batch(
            inputs=task.one_hot(symbols, 2),
            targets=symbols[:1].expand(self.steps, batch),
            mask=task.at_steps(self.steps, last),
            lengths=last + 1,
            informative=task.at_steps(self.steps, 0 * last),
        )

    def loss(self, outputs, targets):
        return task.cross_entropy(outputs, targets)

    def measures(self, outputs, targets, mask):
        return {"error": task.mean_over_supervised(task.misclassified(outputs, targets), mask)}
'''

CELL = '''
"""A leaky integrator."""
from typing import Annotated, ClassVar

import torch

from rnnstudy.cells.cell import Cell, Parameter
from rnnstudy.spec import between


class Leaky(Cell):
    """h_t = (1 - leak) h_{t-1} + leak tanh(x_t W_xh + h_{t-1} W_hh + b_h)."""

    source: ClassVar[str] = "a user"
    states: ClassVar[tuple[str, ...]] = ("h",)

    leak: Annotated[float, between(0, 1)] = 0.5

    def parameters(self, features, outputs):
        return {
            "W_xh": Parameter("input", (features, self.width), ("h",)),
            "W_hh": Parameter("recurrent", (self.width, self.width), ("h",)),
            "b_h": Parameter("bias", (self.width,), ("h",)),
        }

    def project(self, parameters, inputs):
        return torch.baddbmm(parameters["b_h"].unsqueeze(1), inputs, parameters["W_xh"])

    def step(self, parameters, projected, state, observe):
        target = torch.baddbmm(projected, state["h"], parameters["W_hh"]).tanh()
        return {"h": observe("h", (1 - self.leak) * state["h"] + self.leak * target)}
'''

PROBE = '''
"""How large the weights are."""
from typing import ClassVar

from rnnstudy.probes.probe import Probe
from rnnstudy.probes.reading import Reading


class LargestWeight(Probe):
    """log10 of the largest modulus in W_hh."""

    source: ClassVar[str] = "a user"

    def read(self, moment):
        return [Reading("weights/largest", moment.parameters["W_hh"].abs().flatten(1).amax(1).log10(), (), "log10")]
'''

EXPERIMENT = '''
"""Does a leaky integrator keep the first symbol?"""
from first_symbol import FirstSymbol
from largest_weight import LargestWeight
from leaky import Leaky

from rnnstudy import spec
from rnnstudy.probes.probe import Probe
from rnnstudy.run import Run, Training
from rnnstudy.sweep import grid


def runs(scale):
    own = [probe for probe in spec.concrete(Probe) if probe.__module__.startswith("rnnstudy.")]
    base = Run(
        task=FirstSymbol(length=6),
        cell=Leaky(width=4),
        training=Training(steps=scale.pick(smoke=6, desk=10, paper=20), batch=4, check_every=3,
                          validation_sequences=8, test_sequences=8),
        probes=(LargestWeight(every=2), *(probe(every=3) for probe in own)),
    )
    return grid(base, {"cell.leak": [0.2, 0.9]})
'''

NOTEBOOK = """
# %% [markdown]
# # Leaky integrators

# %%
from rnnstudy import figures
from rnnstudy.report import Notebook

here = Notebook("mine")
results = here.study().results
picture = figures.gradient_by_lag(results, stage="initial")
here.show(picture, "by_lag")
"""


@pytest.fixture
def own_files(project_with_store: Path) -> Path:
    project = project_with_store
    for name, source in [("first_symbol", TASK), ("leaky", CELL), ("largest_weight", PROBE), ("mine", EXPERIMENT)]:
        (project / "experiments" / f"{name}.py").write_text(source)
    (project / "reports").mkdir()
    (project / "reports" / "mine.py").write_text(NOTEBOOK)
    return project


def test_files_of_a_user_work_in_sweep_probes_tracking_results_and_report(
    own_files: Path, rnnstudy: Callable[..., Any]
) -> None:
    done = rnnstudy("sweep", "experiments/mine.py", "--scale", "smoke", "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = load_experiment(own_files / "experiments" / "mine.py").runs(Scale.SMOKE)
    project = Project(own_files)
    loaded = results.load([run.key for run in runs], project=project)
    assert loaded.runs["cell"].unique().tolist() == ["Leaky"]
    assert set(loaded.runs["cell.leak"]) == {0.2, 0.9}

    largest = loaded.readings("weights/largest")
    assert sorted(largest[largest["key"] == runs[0].key]["step"].unique()) == [0, 2, 4, 6]
    for run in runs:
        network = load_network(run.key, project=project)
        assert network.run == run
        last = largest[(largest["key"] == run.key) & (largest["step"] == 6)]["value"].item()
        assert last == pytest.approx(np.log10(network.parameters["W_hh"].abs().max().item()), abs=1e-5)
    assert {"through_time/h", "profile/h_initial", "gradient/W_hh_before"} <= set(loaded.names)
    own = [probe for probe in concrete(Probe) if probe.__module__.startswith("rnnstudy.")]
    assert len(runs[0].probes) == len(own) + 1

    written = build_reports(["mine"], project)
    assert project.built_reports / "mine.html" in written
    about = json.loads((project.built_reports / "figures" / "mine" / "by_lag.json").read_text())
    assert about["runs"] == sorted(run.key for run in runs)
