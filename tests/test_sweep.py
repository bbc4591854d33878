"""Grids, experiment files, and the plan of a sweep."""

import itertools
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from rnnstudy.cells import LSTM, Chrono, Elman, Orthogonal
from rnnstudy.run import Run, Training, unique_names
from rnnstudy.search.definition import searches_of
from rnnstudy.spec import SpecError, build
from rnnstudy.store.tracker import CompletedRun, Failures
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.sweep.grids import Scale, grid, override
from rnnstudy.sweep.plan import duration, make_plan
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.checkpoint import checkpoint_keys
from rnnstudy.training.cost import MOST_ON_CPU, cost
from rnnstudy.training.grouping import populations
from rnnstudy.training.loop import train
from rnnstudy.training.population import Population

BASE = Run(
    task=TemporalOrder(length=10),
    cell=Elman(width=3),
    training=Training(steps=6, batch=2, check_every=2, validation_sequences=4, test_sequences=4),
)


class Shelf:
    """A store that holds nothing."""

    def finished(self, keys: Any = None) -> dict[str, CompletedRun]:
        return {}

    def failures(self, keys: Any = None) -> dict[str, Failures]:
        return {}


def test_a_grid_is_every_combination_once_in_order():
    rates, lengths = [1e-3, 1e-2], [10, 12, 14]
    runs = grid(BASE, {"training.learning_rate": rates, "task.length": lengths}, seeds=range(2))
    found = [(run.training.learning_rate, run.task.length, run.seed) for run in runs]
    assert found == list(itertools.product(rates, lengths, range(2)))
    assert len({run.key for run in runs}) == 12


def test_fields_named_together_vary_together_even_where_one_alone_would_be_impossible():
    pairs = [(LSTM(width=3), Orthogonal(gate_bias=Chrono(longest=10))), (Elman(width=3), Orthogonal())]
    runs = grid(BASE, {("cell", "initialisation"): pairs})
    assert [(run.cell, run.initialisation) for run in runs] == pairs
    with pytest.raises(SpecError, match="vary together and need 2 values"):
        grid(BASE, {("cell", "initialisation"): [(Elman(width=3),)]})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("training.learning_rat", 1.0, "did you mean 'learning_rate'"),
        ("training.learning_rate", -1.0, "must be greater than 0"),
        ("task.length", 3, "must be at least 10"),
    ],
)
def test_a_grid_over_what_cannot_be_is_refused(field, value, said):
    with pytest.raises(SpecError, match=said):
        grid(BASE, {field: [value]})


def test_override_sets_a_field_of_every_run_and_keeps_equal_runs_once():
    runs = grid(BASE, {"training.learning_rate": [1e-3, 1e-2]}, seeds=range(2))
    set_once = override(runs, ["training.learning_rate=0.5", "cell.activation=relu"])
    assert [(run.seed, run.training.learning_rate, run.cell) for run in set_once] == [
        (seed, 0.5, Elman(width=3, activation="relu")) for seed in range(2)
    ]


def test_names_carry_the_fields_that_tell_runs_apart():
    runs = grid(BASE, {"cell": [Elman(width=3), LSTM(width=3)], "training.learning_rate": [1e-3, 1e-2]})
    assert list(unique_names(runs).values()) == [
        "Elman T=10 lr 0.001 s0",
        "Elman T=10 lr 0.01 s0",
        "LSTM T=10 lr 0.001 s0",
        "LSTM T=10 lr 0.01 s0",
    ]
    assert list(unique_names(grid(BASE, {}, seeds=range(2))).values()) == [
        "Elman T=10 lr 0.001 s0",
        "Elman T=10 lr 0.001 s1",
    ]


def test_what_an_experiment_file_defines_has_the_same_identity_wherever_the_file_lies(tmp_path: Path):
    source = textwrap.dedent(
        '''
        """A task of the user's own."""
        from rnnstudy.cells import Elman
        from rnnstudy.run import Run
        from rnnstudy.tasks import TemporalOrder


        class Mine(TemporalOrder):
            """The same under another name."""


        def runs(scale):
            return [Run(task=Mine(length=scale.pick(smoke=10, desk=20, paper=30)), cell=Elman())]
        '''
    )
    keys = []
    for folder in ("here", "there"):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(source)
        experiment = load_experiment(path)
        assert experiment.name == "mine"
        assert experiment.hypothesis == "A task of the user's own."
        keys.append([run.key for scale in Scale for run in experiment.runs(scale)])
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 3


def test_a_plan_goes_on_from_a_checkpoint_and_trains_the_new_runs_apart(tmp_path: Path):
    runs = grid(BASE, {}, seeds=range(3))
    saved = tmp_path / "old.pt"
    steps = iter([False] * 3 + [True])
    assert list(train(Population(tuple(runs[:2])), checkpoint=saved, stop=lambda: next(steps)))
    planned = make_plan(runs, Shelf(), tmp_path, workers=1)
    by_keys = {tuple(run.key for run in task.runs): task for task in planned.assignments}
    assert set(by_keys) == {(runs[0].key, runs[1].key), (runs[2].key,)}
    assert by_keys[runs[0].key, runs[1].key].resume == saved
    assert by_keys[(runs[2].key,)].resume is None

    only_one = make_plan(runs[1:2], Shelf(), tmp_path, workers=1)
    assert [task.resume for task in only_one.assignments] == [saved]
    assert make_plan(runs, Shelf(), tmp_path, workers=1, rerun=True).assignments[0].resume is None


def test_a_checkpoint_with_other_probes_or_damaged_is_not_continued(tmp_path: Path):
    run = BASE
    saved = tmp_path / "old.pt"
    steps = iter([False, True])
    list(train(run, checkpoint=saved, stop=lambda: next(steps)))
    assert make_plan([run.replace(probes=())], Shelf(), tmp_path, workers=1).assignments[0].resume is None
    assert make_plan([run], Shelf(), tmp_path, workers=1).assignments[0].resume == saved
    saved.write_bytes(saved.read_bytes()[:100])
    assert checkpoint_keys(saved) == ()
    assert make_plan([run], Shelf(), tmp_path, workers=1).assignments[0].resume is None


def test_populations_are_split_until_every_worker_has_work():
    runs = grid(BASE, {}, seeds=range(8))
    assert len(make_plan(runs, Shelf(), Path("nowhere"), workers=1).assignments) == 1
    for workers in (2, 4):
        tasks = make_plan(runs, Shelf(), Path("nowhere"), workers=workers).assignments
        assert len(tasks) >= workers
        assert sorted(run.seed for task in tasks for run in task.runs) == list(range(8))


@pytest.mark.parametrize(
    # At the largest scale two studies have so many runs that naming them takes a minute each.
    "scale",
    [Scale.SMOKE, Scale.DESK, pytest.param(Scale.PAPER, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent.parent / "experiments").glob("*.py")), ids=lambda p: p.stem
)
def test_every_experiment_of_this_repository_can_be_planned(path: Path, scale: Scale):
    experiment = load_experiment(path)
    assert experiment.hypothesis
    guide = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    [row] = re.findall(rf"^\| {path.stem} \| (.*) \|$", guide, re.MULTILINE)
    stated = row.split(" | ")[list(Scale).index(scale)]
    if experiment.searches_here:
        searches = [definition.search for definition in searches_of(experiment, scale)]
        most = sum(search.trials * len(search.seeds) + len(search.fresh_seeds) for search in searches)
        assert stated == f"{most} runs"
        return
    runs = experiment.runs(scale)
    assert len({run.key for run in runs}) == len(runs) == len(set(unique_names(runs).values()))
    count, estimate = stated.split(", ")
    assert count == f"{len(runs)} runs"
    if scale is not Scale.PAPER:
        # Of tens of thousands of runs the estimate alone takes a minute.
        groups = populations(runs, MOST_ON_CPU, 4e9)
        assert estimate == duration(sum(cost(group).seconds for group in groups))


@pytest.mark.parametrize(
    "name", ["my experiment", "2024-11 run", "été", "v1.2", "class", "it's", "numpy", "_x", "run (copy)", "test"]
)
def test_files_named_as_people_name_them_are_experiments(name: str, tmp_path: Path) -> None:
    file = tmp_path / f"{name}.py"
    file.write_text(OWN_CELL)
    experiment = load_experiment(file)
    [run] = experiment.runs(Scale.SMOKE)
    assert experiment.name == name
    assert build(run.described).key == run.key
    sent = pickle.dumps(run)
    # As in a worker, which imports the file first.
    del sys.modules[f"experiments.{name}"]
    load_experiment(file)
    assert pickle.loads(sent).key == run.key


OWN_CELL = """
from rnnstudy.cells import Elman
from rnnstudy.run import Run
from rnnstudy.tasks import TemporalOrder

class Mine(Elman):
    "An Elman cell of one's own."

def runs(scale):
    return [Run(task=TemporalOrder(length=10), cell=Mine(width=4))]
"""


def test_what_an_experiment_defines_can_be_sent_to_another_process(tmp_path: Path) -> None:
    """From any folder, and to a process that has imported nothing but the file: as workers and cluster nodes do."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "studies" / "own_task.py").write_text(
        "from rnnstudy.cells import Elman\nfrom rnnstudy.run import Run\nfrom rnnstudy.tasks import TemporalOrder\n\n\n"
        'class Mine(TemporalOrder):\n    """A task that only this file knows."""\n\n\n'
        "def runs(scale):\n    return [Run(task=Mine(length=10), cell=Elman(width=3))]\n"
    )
    load = (
        "import pickle, sys; from pathlib import Path; from rnnstudy.sweep import Scale, load_experiment; "
        "experiment = load_experiment(Path(sys.argv[1])); "
    )
    sent = "sys.stdout.buffer.write(pickle.dumps(experiment.runs(Scale.SMOKE)))"
    received = "print(pickle.loads(sys.stdin.buffer.read())[0].task)"
    # -P: the working directory is not on the path, as for an installed command.
    command = [sys.executable, "-P", "-c"]
    path = str(tmp_path / "studies" / "own_task.py")
    where = {"cwd": tmp_path / "elsewhere", "capture_output": True, "timeout": 120}
    pickled = subprocess.run([*command, load + sent, path], **where)
    assert pickled.returncode == 0, pickled.stderr.decode()
    unpickled = subprocess.run([*command, load + received, path], input=pickled.stdout, **where)
    assert unpickled.returncode == 0, unpickled.stderr.decode()
    assert unpickled.stdout.decode().strip() == "Mine(length=10)"
