"""A file is whole or absent, and a path stays in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dermlab.core.errors import DermlabError, InputError
from dermlab.core.files import atomic_path, inside, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = write_text(tmp_path / "a.txt", "old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DermlabError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_json_has_no_nan_and_no_numpy(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"a": np.float32("nan"), "b": np.arange(2), "c": (1, Path("x"))})
    assert json.loads(path.read_text()) == {"a": None, "b": [0, 1], "c": [1, "x"]}


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "link/x", "a\x00b"])
def test_a_path_that_leaves_its_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path)
    with pytest.raises(InputError):
        inside(tmp_path / "folder", path)


def test_a_path_inside_is_resolved(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/../b.jpg") == tmp_path.resolve() / "b.jpg"
