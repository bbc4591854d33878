"""The key of a run depends on its meaning alone and never changes; its name is for people."""

import importlib
import os
import subprocess
import sys

import pytest

from rnnstudy.cells import LRU, LSTM, Block, Elman
from rnnstudy.cells.initialisation import Chrono, ForgetBias, Gaussian, Orthogonal, PyTorchDefault, SmartTanh
from rnnstudy.optimisers import SGD, Adam, ClipNorm, ClipValue, RMSprop
from rnnstudy.probes import GradientThroughTime, ParameterGradients
from rnnstudy.run import Run, Training, unique_names
from rnnstudy.spec import SpecError, build, canonical
from rnnstudy.store.source_hashes import code_hash
from rnnstudy.tasks import Adding, CopyMemory, TemporalOrder
from rnnstudy.training.grouping import populations
from rnnstudy.training.population import Population

GOLDEN = {
    "99d6fcb6a5db": Run(task=TemporalOrder(length=100), cell=LSTM()),
    "38fd5c9db059": Run(task=Adding(length=50, variant="pascanu"), cell=Elman(activation="relu", width=20), seed=3),
    "735707e00b69": Run(
        task=CopyMemory(length=100),
        cell=LSTM(width=64),
        layers=2,
        training=Training(learning_rate=1e-2, optimiser=RMSprop(decay=0.99), clip=ClipValue(threshold=2)),
    ),
    "7fb219d68d94": Run(
        task=TemporalOrder(length=200),
        cell=LSTM(),
        initialisation=Orthogonal(gain=1.1, gate_bias=Chrono(longest=200)),
        seed=7,
    ),
    "2666efc47da9": Run(
        task=Adding(length=400),
        cell=Elman(),
        initialisation=SmartTanh(),
        training=Training(steps=5000, clip=None, optimiser=SGD(momentum=0.9), other_lengths=(200, 800)),
        data_seed=7,
    ),
    "fdda254a50bd": Run(
        task=Adding(length=100, variant="hochreiter"),
        cell=LSTM(width=4),
        initialisation=PyTorchDefault(gate_bias=ForgetBias(value=3)),
        training=Training(
            stop_when_solved=False, check_every=7, batch=50, validation_sequences=64, test_sequences=2560
        ),
    ),
    "2eac47a288bc": Run(task=TemporalOrder(length=50), cell=LSTM(), bidirectional=True),
    "031caaa00ec0": Run(
        task=TemporalOrder(length=50), cell=LRU(), layers=4, block=Block(norm="layer", mix="glu", epsilon=1e-5)
    ),
}
"""Keys as they were when the first results were stored. A change here would invalidate all stored results."""

BASE = GOLDEN["99d6fcb6a5db"]


@pytest.mark.parametrize(("key", "run"), GOLDEN.items(), ids=[run.name for run in GOLDEN.values()])
def test_golden_keys(key, run):
    assert run.key == key


def test_a_key_is_the_same_in_another_process():
    program = "from test_run import BASE; print(BASE.key)"
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "1",
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
    }
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == BASE.key


@pytest.mark.parametrize(
    "same",
    [
        Run(task=TemporalOrder(length=100), cell=LSTM(width=50), layers=1, seed=0, data_seed=None),
        BASE.replace(probes=()),
        BASE.replace(probes=(GradientThroughTime(every=3, sequences=5), ParameterGradients())),
        BASE.replace(initialisation=PyTorchDefault(gate_bias=None)),
        BASE.replace(training=Training(learning_rate=0.001, clip=ClipNorm(threshold=1), optimiser=Adam(beta1=0.9))),
        BASE.replace(training=Training(other_lengths=[])),
    ],
)
def test_equal_meaning_has_an_equal_key(same):
    assert same.key == BASE.key


DIFFERENT = [
    BASE,
    BASE.replace(seed=1),
    BASE.replace(data_seed=0),
    BASE.replace(layers=2),
    BASE.replace(cell=Elman()),
    BASE.replace(cell=LSTM(width=51)),
    BASE.replace(task=TemporalOrder(length=101)),
    BASE.replace(task=Adding(length=100)),
    BASE.replace(initialisation=Orthogonal()),
    BASE.replace(initialisation=Orthogonal(gate_bias=ForgetBias())),
    BASE.replace(initialisation=Orthogonal(gate_bias=ForgetBias(value=2))),
    BASE.replace(training=Training(steps=999)),
    BASE.replace(training=Training(batch=21)),
    BASE.replace(training=Training(learning_rate=2e-3)),
    BASE.replace(training=Training(optimiser=RMSprop())),
    BASE.replace(training=Training(clip=None)),
    BASE.replace(training=Training(clip=ClipValue())),
    BASE.replace(training=Training(clip=ClipNorm(threshold=2))),
    BASE.replace(training=Training(check_every=99)),
    BASE.replace(training=Training(stop_when_solved=False)),
    BASE.replace(training=Training(validation_sequences=999)),
    BASE.replace(training=Training(test_sequences=999)),
    BASE.replace(training=Training(other_lengths=(50,))),
]


def test_another_meaning_has_another_key():
    assert len({run.key for run in DIFFERENT}) == len(DIFFERENT)


def test_a_version_changes_the_key(monkeypatch):
    monkeypatch.setattr(LSTM, "version", 2)
    changed = Run(task=TemporalOrder(length=100), cell=LSTM())
    assert changed.key != "99d6fcb6a5db"


def test_the_device_and_number_of_threads_do_not_enter_the_canonical_form():
    def words(value):
        if isinstance(value, dict):
            return {*value["fields"]}.union(*map(words, value["fields"].values()))
        return set().union(*map(words, value)) if isinstance(value, list) else set()

    assert not {"device", "threads", "workers", "engine", "probes"} & words(canonical(GOLDEN["2666efc47da9"]))


@pytest.mark.parametrize("run", [*GOLDEN.values(), *DIFFERENT[:8]], ids=lambda run: run.key)
def test_a_run_can_be_rebuilt_from_its_text_and_its_canonical_form(run):
    modules = ["run", "tasks", "cells", "optimisers", "probes"]
    scope = {}
    for module in modules:
        scope.update(vars(importlib.import_module(f"rnnstudy.{module}")))
    assert eval(repr(run), scope) == run
    again = build(canonical(run))
    assert again == run.replace(probes=again.probes)
    assert again.key == run.key
    assert build(canonical(run.probes)) == run.probes


def test_names_contain_cell_length_seed_and_the_differing_fields():
    assert BASE.name == "LSTM T=100 lr 0.001 s0"
    assert Run(task=TemporalOrder(length=1200), cell=Elman(), seed=12).name == "Elman T=1200 lr 0.001 s12"
    alike = [
        BASE.replace(training=Training(learning_rate=rate), initialisation=initialisation)
        for rate in (1e-3, 1e-2)
        for initialisation in (PyTorchDefault(), Orthogonal(gain=1.1))
    ]
    named = unique_names(alike)
    assert named[alike[0].key] == "LSTM T=100 lr 0.001 initialisation=PyTorchDefault s0"
    assert named[alike[3].key] == "LSTM T=100 lr 0.01 initialisation=Orthogonal gain=1.1 s0"
    assert len(set(named.values())) == len(alike)


def test_names_omit_fields_that_cell_length_and_seed_determine():
    runs = [
        Run(task=TemporalOrder(length=length), cell=cell, seed=seed)
        for length in (50, 100)
        for cell in (Elman(), LSTM())
        for seed in (0, 1)
    ]
    assert set(unique_names(runs).values()) == {run.name for run in runs}


def test_short_parameters():
    assert GOLDEN["38fd5c9db059"].short_parameters == {
        "task": "Adding", "cell": "Elman", "length": 50, "width": 20, "layers": 1, "seed": 3, "learning_rate": 0.001,
    }  # fmt: skip


def test_the_data_seed_follows_the_seed_unless_given():
    assert BASE.replace(seed=4).effective_data_seed == 4
    assert BASE.replace(seed=4, data_seed=0).effective_data_seed == 0


TOGETHER = [
    BASE.replace(seed=1),
    BASE.replace(data_seed=9),
    BASE.replace(initialisation=Orthogonal(gate_bias=Chrono(longest=100))),
    BASE.replace(initialisation=Gaussian(std=0.1)),
    BASE.replace(training=Training(learning_rate=0.5)),
    BASE.replace(training=Training(clip=ClipNorm(threshold=5))),
]
APART = [
    BASE.replace(layers=2),
    BASE.replace(cell=Elman()),
    BASE.replace(cell=LSTM(width=51)),
    BASE.replace(task=TemporalOrder(length=101)),
    BASE.replace(training=Training(batch=21)),
    BASE.replace(training=Training(clip=None)),
    BASE.replace(training=Training(clip=ClipValue())),
    BASE.replace(training=Training(optimiser=Adam(beta1=0.8))),
    BASE.replace(probes=()),
]


def test_runs_that_differ_in_seeds_rates_initialisation_and_thresholds_train_together():
    assert {run.structure for run in TOGETHER} == {BASE.structure}
    assert Population((BASE, *TOGETHER)).keys == tuple(run.key for run in (BASE, *TOGETHER))


@pytest.mark.parametrize("other", APART, ids=lambda run: run.key)
def test_runs_of_another_structure_do_not_train_together(other):
    assert other.structure != BASE.structure
    with pytest.raises(SpecError):
        Population((BASE, other))


def test_grouping_keeps_the_order_and_the_largest_size():
    runs = [run.replace(seed=seed) for seed in range(5) for run in (BASE, APART[1])]
    groups = populations(runs, most=3)
    assert [[(run.cell.label(), run.seed) for run in group.runs] for group in groups] == [
        [("lstm", 0), ("lstm", 1), ("lstm", 2)],
        [("lstm", 3), ("lstm", 4)],
        [("elman", 0), ("elman", 1), ("elman", 2)],
        [("elman", 3), ("elman", 4)],
    ]


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ((), "at least one run"),
        ((BASE, BASE.replace(seed=0)), "holds each run once"),
        ((BASE, BASE.replace(layers=2)), r"different layers cannot train together \(1 and 2\)"),
        ((BASE, BASE.replace(cell=LSTM(width=9))), r"different cell.width cannot train together \(50 and 9\)"),
    ],
)
def test_an_impossible_population_is_refused(runs, words):
    with pytest.raises(SpecError, match=words):
        Population(runs)


def test_the_code_hash_follows_the_source():
    assert code_hash(LSTM) == code_hash(LSTM)
    assert code_hash(LSTM) != code_hash(Elman)
    assert code_hash(LSTM, Adding) != code_hash(LSTM)
