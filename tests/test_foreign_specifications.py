"""What other people's specifications and values may do: choose no module, break no message, show no password."""

import sys
from pathlib import Path

import pytest

from rnnstudy.cells import Elman
from rnnstudy.errors import LONGEST, RequestError, shown, without_passwords
from rnnstudy.run import Run, Training
from rnnstudy.spec import ClassMissing, Spec, SpecError, build, canonical
from rnnstudy.sweep.experiment import load_experiment
from rnnstudy.tasks import TemporalOrder


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("module", ["antigravity", "this", "marker"])
def test_a_stored_specification_imports_nothing(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "marker.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ClassMissing, match="cannot be found; load the file that defines it"):
        build({"class": f"{module}:Anything", "fields": {}})
    assert module not in sys.modules
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    "named", ["os:system", "pathlib:Path", "rnnstudy.spec:nearest", "rnnstudy.spec:Spec.replace", "sys:modules.os"]
)
def test_what_is_no_specification_is_refused(named: str) -> None:
    with pytest.raises(SpecError):
        build({"class": named, "fields": {}})


@pytest.mark.parametrize(
    "described",
    [
        {"class": 3, "fields": {}},
        {"class": "rnnstudy.cells.elman:Elman", "fields": []},
        {"class": "rnnstudy.cells.elman:Elman", "fields": {"width": {}}},
        {"class": "rnnstudy.cells.elman:Elman", "fields": {"x\0y": 1}},
        {"class": "rnnstudy.cells.elman:Elman", "fields": {"width": "é" * 10_000}},
        {"class": "", "fields": {}},
        {"class": ":", "fields": {}},
        {"class": "rnnstudy.:", "fields": {}},
        {"class": "rnnstudy..cells:Elman", "fields": {}},
    ],
)
def test_a_damaged_specification_is_refused_in_one_line(described: dict[str, object]) -> None:
    with pytest.raises(SpecError) as caught:
        build(described)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 2 * LONGEST + 100


def test_classes_of_a_loaded_experiment_file_and_of_the_files_beside_it_are_found(tmp_path: Path) -> None:
    (tmp_path / "leaky_cell_beside.py").write_text("from rnnstudy.cells import Elman\nclass Leaky(Elman): ...\n")
    file = tmp_path / "with_own_class.py"
    file.write_text(
        "from leaky_cell_beside import Leaky\nfrom rnnstudy.run import Run\nfrom rnnstudy.tasks import TemporalOrder\n"
        "class Own(Leaky): ...\n"
        "def runs(scale):\n    return [Run(task=TemporalOrder(length=10), cell=cell()) for cell in (Leaky, Own)]\n"
    )
    described = {"class": "experiments.with_own_class:Own", "fields": {}}
    with pytest.raises(ClassMissing):
        build(described)
    module = load_experiment(file).module
    try:
        assert type(build(described)) is vars(module)["Own"]
        assert type(build({"class": "leaky_cell_beside:Leaky", "fields": {}})) is vars(module)["Leaky"]
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["leaky_cell_beside"], sys.modules["experiments.with_own_class"]


@pytest.mark.parametrize(
    "number", [10**400, -(10**400), 10**5000, Broken(), float("nan"), "1", None, [10**400]], ids=lambda _: ""
)
def test_what_is_no_finite_number_is_refused_in_one_line(number: object) -> None:
    with pytest.raises(SpecError, match=r"Training\.learning_rate is .*; it takes a finite number"):
        Training(learning_rate=number)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["task", "cell", "layers", "training", "probes", "seed", "initialisation"])
def test_an_object_without_a_text_is_refused_in_one_line(field: str) -> None:
    fields = {"task": TemporalOrder(length=10), "cell": Elman(), field: Broken()}
    with pytest.raises(SpecError, match=rf"Run.{field} is a Broken that cannot be printed; it takes"):
        Run(**fields)  # type: ignore[arg-type]


def test_values_are_shown_short_and_in_one_line() -> None:
    assert shown("a\nb") == "'a\\nb'"
    assert len(shown("x" * 10**6)) == LONGEST + 1
    assert shown(10**5000) == "an int that cannot be printed"
    run = Run(task=TemporalOrder(length=10), cell=Elman())
    assert isinstance(build(canonical(run)), Spec)


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("http://me:secret@host:5000/x", "http://me:…@host:5000/x"),
        ("postgresql+psycopg2://me:se:cr@et@host/db", "postgresql+psycopg2://me:…@host/db"),
        ("postgresql://me:se/cret@host/db down", "postgresql://me:…@host/db down"),
        ("postgresql:///db?user=me&password=secret&x=1", "postgresql:///db?user=me&password=…&x=1"),
        ("there is no file http:/me:secret@host", "there is no file http:/me:…@host"),
        ("http://host:5000/#/experiments/1", "http://host:5000/#/experiments/1"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("write to me@host or postgresql://me@host/db", "write to me@host or postgresql://me@host/db"),
    ],
)
def test_passwords_are_in_no_error(text: str, without: str) -> None:
    assert without_passwords(text) == without
    assert str(RequestError(text)) == str(SpecError(text)) == without
