"""The root of a project is found from its experiment file, whatever the working directory."""

from pathlib import Path

import pytest

from rnnstudy.store.project import find_project


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RNNSTUDY_HOME", raising=False)
    (tmp_path / "work" / "studies").mkdir(parents=True)
    (tmp_path / "work" / "studies" / "one.py").touch()
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


@pytest.mark.parametrize("marker", ["pyproject.toml", "mlruns"])
def test_the_nearest_marked_folder_above_is_the_root(
    folder: Path, monkeypatch: pytest.MonkeyPatch, marker: str
) -> None:
    if marker == "mlruns":
        (folder / "work" / marker).mkdir()
    else:
        (folder / "work" / marker).touch()
    for here in ("work", "work/studies", "elsewhere"):
        monkeypatch.chdir(folder / here)
        assert find_project(Path(folder, "work", "studies", "one.py")).root == folder / "work"


def test_a_project_without_markers_begins_in_the_working_directory_above_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "work")
    assert find_project(Path("studies/one.py")).root == find_project().root == folder / "work"
    # Once something has been written, the same store is found from anywhere.
    find_project().mlruns.mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert find_project(folder / "work" / "studies" / "one.py").root == folder / "work"


def test_a_file_outside_the_working_directory_keeps_its_runs_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "elsewhere")
    assert find_project(folder / "work" / "studies" / "one.py").root == folder / "work" / "studies"


def test_the_environment_overrides_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNSTUDY_HOME", str(folder / "elsewhere"))
    monkeypatch.chdir(folder / "work")
    assert find_project(Path("studies/one.py")).root == find_project().root == folder / "elsewhere"
