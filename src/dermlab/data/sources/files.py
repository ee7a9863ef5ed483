"""Finding image files: which files of a folder are images, and which of them a table means."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dermlab.core.errors import InputError

_PLAIN = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib")
EXTENSIONS = frozenset((*_PLAIN, ".tif", ".tiff", ".heic", ".heif", ".dcm", ".dicom"))
NO_SUCH_FILE = "no such file"
OUTSIDE = "leads out of the folder"

# A folder that holds one of these was made by an import: its copies are not photos to import again.
_MADE_BY_IMPORT = frozenset(["manifest.parquet", ".import.jsonl"])


@dataclass
class ImageFiles:
    """The image files under a folder.

    Attributes:
        root: the folder, with links resolved.
        paths: paths relative to it with ``/``, sorted.
        set_aside: (path, reason) of what will not be opened.
        others: count of files that are no images, by extension.
    """

    root: Path
    paths: list[str] = field(default_factory=list)
    set_aside: list[tuple[str, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def absolute(self, relative: str) -> str:
        """Return the absolute path of one of :attr:`paths`."""
        return str(self.root / relative)


def require_folder(path: Path, what: str) -> Path:
    """Return ``path`` if it is a folder, else raise InputError saying ``what`` was expected."""
    if not path.exists():
        raise InputError(f"{path}: no such folder; expected {what}")
    if not path.is_dir():
        raise InputError(f"{path}: is a file; expected {what}")
    return path


def find_images(folder: Path) -> ImageFiles:
    """List the images under a folder, subfolders included.

    A file counts by its extension, one without extension by its first bytes. Hidden files are passed over; a link that
    leaves the folder and a linked folder are set aside with a reason.
    """
    found = ImageFiles(folder.resolve())
    _walk(found, found.root, "")
    found.paths.sort()
    return found


def _walk(found: ImageFiles, folder: Path, prefix: str) -> None:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        found.set_aside.append((prefix or ".", f"folder cannot be read ({error.strerror})"))
        return
    if prefix and any(entry.name in _MADE_BY_IMPORT for entry in entries):
        return
    for entry in entries:
        relative = prefix + entry.name
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if not relative.isprintable():  # a surrogate of undecodable bytes, a line break: no table could hold it
            found.set_aside.append((ascii(relative), "a file name with unprintable characters"))
        elif entry.is_dir(follow_symlinks=False):
            _walk(found, Path(entry.path), relative + "/")
        elif entry.is_symlink() and entry.is_dir():
            found.set_aside.append((relative, "a link to a folder, which is not followed"))
        elif not _is_image(entry):
            found.others[os.path.splitext(entry.name)[1].lower() or "no extension"] += 1
        elif entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(found.root):
            found.set_aside.append((relative, "a link that leaves the folder"))
        else:
            found.paths.append(relative)


def _is_image(entry: os.DirEntry[str]) -> bool:
    from dermlab.data.decode import DecodeError, sniff

    extension = os.path.splitext(entry.name)[1].lower()
    if extension or not entry.is_file(follow_symlinks=False):
        return extension in EXTENSIONS
    try:
        with open(entry.path, "rb") as file:
            sniff(file.read(1024))
        return True
    except (OSError, DecodeError):
        return False


def without_extension(path: str) -> str:
    """Return a path without its extension if that is an image's (``IMG.0012`` keeps its number)."""
    stem, extension = os.path.splitext(path)
    return stem if extension.lower() in EXTENSIONS else path


def image_ids(paths: Iterable[str]) -> list[str]:
    """Return the shortest unique ids for paths: the files' names, else the paths without extension, else the paths."""
    paths = list(paths)
    names = [without_extension(PurePosixPath(path).name) for path in paths]
    stems = [without_extension(path) for path in paths]
    return next(ids for ids in (names, stems, paths) if len(set(ids)) == len(ids) or ids is paths)


class Matcher:
    """Finds the file that a table's entry means: by path, else by name, else by name without extension."""

    def __init__(self, files: ImageFiles) -> None:
        """Index the files once; letter case is ignored."""
        self._by_path = {path.casefold(): path for path in files.paths}
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for path in files.paths:
            name = PurePosixPath(path).name.casefold()
            self._by_name.setdefault(name, []).append(path)
            self._by_stem.setdefault(without_extension(name), []).append(path)

    def find(self, entry: str) -> list[str]:
        """Return the relative paths that ``entry`` may mean: one if it is clear, none if there is no such file."""
        wanted = entry.replace("\\", "/").removeprefix("./").casefold()
        if wanted in self._by_path:
            return [self._by_path[wanted]]
        name = wanted.rpartition("/")[2]
        candidates = self._by_name.get(name) or self._by_stem.get(without_extension(name)) or []
        if len(candidates) < 2:
            return candidates
        # Files of one name in several folders: the one whose folders agree with the entry's for longest.
        folders = wanted.split("/")[-2::-1]
        agreeing = [_agreement(folders, path.casefold().split("/")[-2::-1]) for path in candidates]
        longest = max(agreeing)
        return [path for path, length in zip(candidates, agreeing, strict=True) if length == longest]


def _agreement(a: list[str], b: list[str]) -> int:
    for length, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return length
    return min(len(a), len(b))
