"""A file or a folder has its name only once it is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.atomic import atomic_file, atomic_folder


def broken_off(final: Path) -> None:
    with atomic_folder(final) as part:
        (part / "half").touch()
        with atomic_file(final / "file") as file:
            file.write_text("half")
            raise RuntimeError("half")


def test_the_old_stays_until_the_new_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "folder"
    with atomic_folder(final) as part:
        (part / "file").write_text("old")
    (tmp_path / ".folder.part").mkdir()  # as a killed process leaves it
    with pytest.raises(RuntimeError, match="half"):
        broken_off(final)
    assert [(path.name, path.read_text()) for path in final.iterdir()] == [("file", "old")]
    with atomic_file(final / "file") as part, atomic_file(final / "file") as another:
        part.write_text("new")
        another.write_text("another")
    assert [(path.name, path.read_text()) for path in final.iterdir()] == [("file", "new")]
    with atomic_folder(final) as part:
        (part / "new").touch()
    assert [path.name for path in final.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [final]
