"""Offline folders of other people: what is in them is checked whole; a damaged or hostile run leaves nothing behind."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnstudy.cells import Elman
from rnnstudy.probes import GradientThroughTime
from rnnstudy.run import Run, Training
from rnnstudy.store.arrays import MANIFEST, READINGS, WEIGHTS, read_manifest, read_series, read_weights
from rnnstudy.store.documents import NOTE
from rnnstudy.store.errors import DamagedFile
from rnnstudy.store.mlflow_store import Store
from rnnstudy.store.offline import DESCRIPTION, ENDING, POINTS, OfflineFolder, OfflineTracker
from rnnstudy.store.project import Project
from rnnstudy.store.run_description import SweepInfo
from rnnstudy.store.sync import OfflineRun, sync
from rnnstudy.tasks import TemporalOrder
from rnnstudy.training.loop import train


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run, as an offline sweep writes it."""
    training = Training(steps=4, batch=2, check_every=2, validation_sequences=4, test_sequences=4)
    probes = (GradientThroughTime(every=2, sequences=3),)
    run = Run(task=TemporalOrder(length=10), cell=Elman(width=3), training=training, probes=probes)
    tracker = OfflineTracker(OfflineFolder(tmp_path_factory.mktemp("offline")), SweepInfo("toy"))
    tracker.begin(run, "toy")
    for record in train(run, device="cpu", engine="reference"):
        tracker.write(record)
    return tracker.folder.path / run.key


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "offline" / written.name))


def changed(path: Path, change: Callable[[Any], Any]) -> None:
    """Rewrite a JSON file after `change` has been at its content."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


def in_description(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: changed(folder / DESCRIPTION, lambda described: described.update(fields))


def in_tags(**tags: Any) -> Callable[[Path], None]:
    named = {f"rnnstudy.{name}": value for name, value in tags.items()}
    return lambda folder: changed(folder / DESCRIPTION, lambda described: described["tags"].update(named))


def holding(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def linked(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        secret = folder.parent.parent / "secret"
        shutil.copy(folder / name, secret)
        (folder / name).unlink()
        (folder / name).symlink_to(secret)

    return spoil


def repacked(name: str, change: Callable[[dict[str, bytes]], Any], how: int = zipfile.ZIP_STORED) -> Any:
    """An array file whose members `change` has changed."""

    def spoil(folder: Path) -> None:
        with zipfile.ZipFile(folder / name) as archive:
            members = {member: archive.read(member) for member in archive.namelist()}
        change(members)
        with zipfile.ZipFile(folder / name, "w", how) as archive:
            for member, content in members.items():
                archive.writestr(member, content)

    return spoil


def in_manifest(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def spoil(members: dict[str, bytes]) -> None:
        manifest = json.loads(members[MANIFEST])
        change(manifest)
        members[MANIFEST] = json.dumps(manifest).encode()

    return repacked(READINGS, spoil)


def claimed_shape(members: dict[str, bytes]) -> None:
    """A header that asks for 4 TB."""
    name = next(name for name in members if name.startswith("values/"))
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117) + "\n"
    members[name] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0" * 64


def in_header(before: bytes, after: bytes) -> Callable[[Path], None]:
    """One text of the header of the first weights replaced, at the same length."""

    def spoil(members: dict[str, bytes]) -> None:
        name, content = next(iter(members.items()))
        assert before in content
        members[name] = content.replace(before.ljust(len(after)), after.ljust(len(before)), 1)

    return repacked(WEIGHTS, spoil)


def fifo(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return spoil


DEEP = b"[" * 100_000

SPOILT = {
    "readings.npz is a link": (linked(READINGS), "is not a regular file"),
    "weights.npz is a link": (linked(WEIGHTS), "is not a regular file"),
    "run.json is a link": (linked(DESCRIPTION), "is not a regular file"),
    "points.jsonl is a link": (linked(POINTS), "is not a regular file"),
    "ending.json is a link": (linked(ENDING), "is not a regular file"),
    "points.jsonl is a pipe": (fifo(POINTS), "is not a regular file"),
    "run.json is a number": (holding(DESCRIPTION, b"3"), "should be an object"),
    "run.json is half a file": (holding(DESCRIPTION, b'{"key": "'), "Invalid JSON"),
    "run.json is of another encoding": (holding(DESCRIPTION, '{"key": "é"}'.encode("utf-16")), "Invalid JSON"),
    "run.json is empty": (holding(DESCRIPTION, b""), "Invalid JSON"),
    "run.json nests deeply": (holding(DESCRIPTION, DEEP), "recursion limit"),
    "a name with NUL": (in_description(name="a\0b"), "'name': a text of another form"),
    "a name with an escape sequence": (in_description(name="\x1b[2J"), "'name': a text of another form"),
    "a key that is a path": (in_description(key="../../../x"), "'key': a text of another form"),
    "an experiment that is a path": (in_description(experiment="../x"), "'experiment': a text of another form"),
    "a document that is a path": (in_description(documents={"../x": "y"}), "a text of another form"),
    "tags of another shape": (in_description(tags=3), "'tags': Input should be an object"),
    "a tag that is a number": (in_tags(sweep=3), "Input should be a valid string"),
    "steps that are no number": (in_description(steps="many"), "'steps': Input should be a valid integer"),
    "a field too many": (in_description(more=1), "'more': Extra inputs"),
    "the specification is no JSON": (in_tags(spec="{"), "rnnstudy.spec is damaged"),
    "the specification is a list": (in_tags(spec="[]"), "rnnstudy.spec is damaged"),
    "the specification is of another run": (
        in_tags(spec='{"class": "os:system", "fields": {}}'),
        "is not the hash of its specification",
    ),
    "the probes are a number": (in_tags(probes="1"), "rnnstudy.probes is damaged"),
    "the code is a list": (in_tags(code="[]"), "rnnstudy.code is damaged"),
    "an ending of another shape": (holding(ENDING, b'{"tags": 3, "time": 0}'), "'tags': Input should be an object"),
    "an outcome that there is not": (
        holding(ENDING, b'{"tags": {"rnnstudy.outcome": "<script>"}, "time": 0}'),
        "Input should be 'finished', 'diverged', 'pruned' or 'failed'",
    ),
    "half an ending": (holding(ENDING, b'{"tags'), "Invalid JSON"),
    "a point of another shape": (holding(POINTS, b"[[1, 2, 3]]\n"), "line 1"),
    "a point of another type": (holding(POINTS, b'[["learning/loss", "x", 1.0, 2]]\n'), "line 1"),
    "a point that is not finite": (holding(POINTS, b'[["learning/loss", 1, NaN, 2]]\n'), "finite"),
    "a point beyond all numbers": (holding(POINTS, b'[["a", 1' + b"0" * 400 + b", 1.0, 2]]\n"), "line 1"),
    "points that are no text": (holding(POINTS, b"\xff\xfe\n"), "line 1"),
    "readings of another run": (
        in_manifest(lambda manifest: manifest["run"].update(key="0" * 12)),
        "the readings of the run 000000000000",
    ),
    "a manifest of another shape": (in_manifest(lambda manifest: manifest.update(series=3)), "should be an object"),
    "a series without its arrays": (
        in_manifest(lambda manifest: manifest["series"].update(x=manifest["series"]["learning/loss"])),
        "its members are not those",
    ),
    "readings that are compressed": (repacked(READINGS, lambda _: None, zipfile.ZIP_DEFLATED), "are compressed"),
    "weights that are compressed": (repacked(WEIGHTS, lambda _: None, zipfile.ZIP_DEFLATED), "are compressed"),
    "an array that claims more than it has": (repacked(READINGS, claimed_shape), "which is not its size"),
    "an array of Python objects": (
        repacked(WEIGHTS, lambda members: members.update({"x.npy": b"\x93NUMPY\x01\x00"})),
        "is not an array file",
    ),
    "a header that does not end": (in_header(b"}", b"{"), "has a damaged header"),
    "a header that nests deeply": (in_header(b"}" + b" " * 20, b"(" * 21), "has a damaged header"),
    "a header with a broken indent": (in_header(b"{'descr'", b"\n  1\n 2\n"), "has a damaged header"),
    "a member that is no array": (repacked(WEIGHTS, lambda members: members.update(x=b"")), "is not an array file"),
    "readings that are no archive": (holding(READINGS, b"PK\x03\x04"), "is not an array file"),
}


@pytest.mark.parametrize(("spoil", "reason"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_run_is_refused_in_one_line_and_leaves_nothing(
    folder: Path, project: Path, rnnstudy: Callable[..., Any], spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(folder)
    answer = rnnstudy("sync", str(folder.parent))
    assert answer.returncode == 1
    assert reason in answer.stderr
    assert answer.stderr.startswith(f"rnnstudy: {folder.name} was not copied: ")
    assert len(answer.stderr.splitlines()) == 1
    assert "0 runs added" in answer.stdout
    assert not Store(Project(project)).exists


def test_a_folder_that_leads_elsewhere_is_refused(folder: Path, project: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    shutil.move(folder, outside / folder.name)
    folder.symlink_to(outside / folder.name)
    report = sync([folder.parent], Store(Project(project)))
    assert "leads out of" in report.refused[folder.name]
    assert not Store(Project(project)).exists


def test_a_sound_run_comes_in_beside_a_spoilt_one(folder: Path, project_with_store: Path) -> None:
    spoilt = Path(shutil.copytree(folder, folder.with_name("0" * 12)))
    store = Store(Project(project_with_store))
    report = sync([folder.parent], store)
    assert (report.added, list(report.refused)) == ((folder.name,), [spoilt.name])
    assert [run.state for run in store.runs()] == ["finished"]


def test_descriptions_of_other_people_hold_no_html(folder: Path) -> None:
    in_description(hypothesis="<img src=x onerror=alert(1)>")(folder)
    changed(folder / DESCRIPTION, lambda described: described["tags"].update({NOTE: "<script>1 < 2</script>"}))
    described = OfflineRun.read(folder).described
    assert described.hypothesis == "&lt;img src=x onerror=alert(1)>"
    assert described.tags[NOTE] == "&lt;script>1 < 2&lt;/script>"


def test_points_are_appended_to_no_link(folder: Path, tmp_path: Path) -> None:
    """An offline sweep that continues in a folder from elsewhere."""
    linked(POINTS)(folder)
    before = (tmp_path / "secret").read_bytes()
    (folder / ENDING).unlink()
    training = Training(steps=4, batch=2, check_every=2, validation_sequences=4, test_sequences=4)
    probes = (GradientThroughTime(every=2, sequences=3),)
    run = Run(task=TemporalOrder(length=10), cell=Elman(width=3), training=training, probes=probes)
    assert run.key == folder.name
    with pytest.raises(DamagedFile, match="is not a regular file"):
        OfflineTracker(OfflineFolder(folder.parent), SweepInfo("toy")).begin(run, "toy")
    assert (tmp_path / "secret").read_bytes() == before


def test_array_files_need_no_more_memory_than_they_have_bytes(folder: Path) -> None:
    """A file of 64 kB whose manifest has 64 MB: it is refused before anything of it is unpacked."""
    with zipfile.ZipFile(folder / READINGS, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(MANIFEST, "w") as file:
        for _ in range(16):
            file.write(b" " * 2**22)
    with pytest.raises(DamagedFile, match="its members are compressed"):
        read_manifest(folder / READINGS)


def test_a_sound_folder_is_read_whole(written: Path) -> None:
    run = OfflineRun.read(written)
    assert [path.name for path in run.files] == [READINGS, WEIGHTS]
    manifest = read_manifest(written / READINGS)
    with np.load(written / READINGS) as archive:
        for name in manifest["series"]:
            np.testing.assert_array_equal(
                read_series(written / READINGS, name, manifest).values, archive[f"values/{name}"]
            )
    with np.load(written / WEIGHTS) as archive:
        for name, weights in read_weights(written / WEIGHTS).items():
            np.testing.assert_array_equal(weights, archive[name])
            assert weights.flags.writeable
