"""Files are written whole or not at all, whatever goes wrong in between."""

import os
from pathlib import Path

import pytest

from rnnstudy.training.atomic import replacing, write_all


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as unfinished:
        assert (unfinished.parent, unfinished.name[0]) == (path.parent, ".")
        unfinished.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with replacing(path) as unfinished:
        unfinished.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert names(path.parent) == ["a.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def killed() -> None:
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_no_file_moves_before_all_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / name for name in ("c", "a", "b")]
    assert write_all({path: path.name.encode() for path in paths}) == paths
    assert [path.read_text() for path in paths] == ["c", "a", "b"]
    write = Path.write_bytes

    def no_room(path: Path, data: bytes) -> int:
        if path.name.startswith(".a"):
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", no_room)
    with pytest.raises(OSError, match="No space"):
        write_all(dict.fromkeys(paths, b"new"))
    assert [path.read_text() for path in paths] == ["c", "a", "b"]
    assert names(tmp_path) == ["a", "b", "c"]


def test_files_move_in_their_order_once_they_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append(Path(new).name), replace(old, new)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), fsync(descriptor)))
    write_all({tmp_path / "b": b"1", tmp_path / "a": memoryview(b"2")})
    assert calls == ["b", "a"]
    write_all({tmp_path / "b": b"1"}, durable=True)
    assert calls[2:] == ["fsync", "b"]


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    """The system names the files that it cannot open, not those that it cannot write."""
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match="No space") as raised, replacing(path):
        raise OSError(28, "No space left on device")
    assert raised.value.filename == str(path)
    with pytest.raises(OSError, match="No space") as raised, replacing(path) as unfinished:
        raise OSError(28, "No space left on device", str(unfinished))
    assert raised.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as missing, replacing(path):
        (tmp_path / "source").read_bytes()
    assert missing.value.filename == str(tmp_path / "source")
