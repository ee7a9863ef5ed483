"""MedMNIST v2 and MedMNIST+ (Yang et al. 2023, doi 10.1038/s41597-022-01721-8): the 2D sets at 28, 64, 128 and 224 px.

Classes, task and licence come from the package ``medmnist``, which also downloads where there is a network.
"""

from __future__ import annotations

import importlib.util
import re
import runpy
from pathlib import Path
from typing import Any

from dermlab.core.errors import DermlabError, InputError, MissingExtraError, first_line
from dermlab.core.folders import cache_root
from dermlab.core.progress import note
from dermlab.data.card import Card, Target, TargetKind
from dermlab.data.sources import SourceData, npz
from dermlab.data.sources.ham10000 import TARGET as HAM_TARGET

SIZES = (28, 64, 128, 224)
_KINDS: dict[str, TargetKind] = {
    "multi-class": "multiclass",
    "binary-class": "binary",
    "multi-label, binary-class": "multilabel",
    "ordinal-regression": "ordinal",
}
CITATION = (
    "Yang et al., MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image classification, "
    "Scientific Data 10:41 (2023)"
)


def read(path: Path, *, size: int | None = None, name: str | None = None) -> SourceData:
    """Read a MedMNIST set.

    Args:
        path: a file ``<flag>.npz`` or ``<flag>_<size>.npz``; or a flag such as ``dermamnist``, which is looked for in
            this folder and in ``~/.medmnist`` and else downloaded by the package.
        size: pixels a side, one of 28, 64, 128, 224; None is what the file's name says, else 28.
        name: name of the data set; None is the flag with the size.
    """
    info = _info()
    flag, named_size = _flag_and_size(path, info)
    if size is not None and size not in SIZES:
        raise InputError(f"size: {size} is not one of {', '.join(map(str, SIZES))}")
    if size is not None and named_size is not None and size != named_size:
        raise InputError(f"{path}: is of {named_size} px, --size asks for {size}")
    size = size or named_size or 28
    file = path if path.is_file() else _find_or_download(flag, size, info[flag])
    target = _target(flag, info[flag])
    source = npz.read(file, kind=target.kind, classes=target.classes)
    card = Card(
        name=name or (flag if size == 28 else f"{flag}_{size}"),
        description=info[flag]["description"],
        licence=spdx(info[flag]["license"]),
        licence_card=flag,
        citation=CITATION,
        source=f"dermlab data import medmnist {flag} --size {size}",
        targets=(target,),
    )
    manifest = source.manifest.assign(modality="dermoscopy") if flag == "dermamnist" else source.manifest
    return SourceData(source.root, manifest, card, source.official, arrays=source.arrays, notes=source.notes)


def _info() -> dict[str, Any]:
    # The package's own import loads torch and torchvision; its table of contents is one plain file.
    package = importlib.util.find_spec("medmnist")
    if package is None or not package.submodule_search_locations:
        raise MissingExtraError("the source medmnist", "medmnist", "medmnist")
    return runpy.run_path(str(Path(package.submodule_search_locations[0]) / "info.py"))["INFO"]


def _flag_and_size(path: Path, info: dict[str, Any]) -> tuple[str, int | None]:
    """Return the flag, and the size where the name is a file's: ``dermamnist_64.npz``, ``dermamnist.npz`` (28)."""
    match = re.fullmatch(r"([a-z0-9]+?mnist(?:3d)?)(?:_(\d+))?(\.npz)?", path.name)
    flag = match.group(1) if match else path.name
    if match is None or flag not in info:
        flags = ", ".join(flag for flag in info if not flag.endswith("3d"))
        raise InputError(f"{path}: not a MedMNIST file or flag; the flags are {flags}")
    if flag.endswith("3d"):
        raise InputError(f"{flag}: holds 3D volumes; dermlab reads photos")
    if path.suffix == ".npz" and not path.is_file():
        raise InputError(f"{path}: no such file; give the flag {flag!r} alone to download it")
    return flag, int(match.group(2)) if match.group(2) else (28 if match.group(3) else None)


def _find_or_download(flag: str, size: int, info: dict[str, Any]) -> Path:
    suffix = "" if size == 28 else f"_{size}"
    file_name = f"{flag}{suffix}.npz"
    kept = cache_root() / "medmnist"
    for folder in (Path(), Path.home() / ".medmnist", kept):
        if (folder / file_name).is_file():
            return folder / file_name
    import medmnist

    kept.mkdir(parents=True, exist_ok=True)
    note(f"downloading {file_name}")
    try:
        getattr(medmnist, info["python_class"])(split="train", download=True, root=str(kept), size=size)
    except Exception as error:  # the package turns every failed download into a RuntimeError of many lines
        (kept / file_name).unlink(missing_ok=True)
        reason = first_line(error.__context__ or error)
        raise DermlabError(f"{file_name} could not be downloaded ({reason}); fetch it and pass its path") from None
    return kept / file_name


def _target(flag: str, info: dict[str, Any]) -> Target:
    """Return the target: classes are the labels' names without what stands in brackets, the full ones for reading."""
    if (
        flag == "dermamnist"
    ):  # HAM10000's own classes in the same order, so that models of one can be tested on the other
        return HAM_TARGET.model_copy(update={"column": "label"})
    full = [info["label"][str(k)] for k in range(len(info["label"]))]
    short = [re.sub(r"\s*\(.*\)", "", label) for label in full]
    classes = short if len(set(short)) == len(short) else full
    names = {name: label for name, label in zip(classes, full, strict=True) if name != label}
    return Target(column="label", kind=_KINDS[info["task"]], classes=tuple(classes), names=names, default=True)


def spdx(licence: str) -> str:
    """Return the SPDX identifier of a Creative Commons licence: ``CC BY-NC 4.0`` -> ``CC-BY-NC-4.0``."""
    return licence.strip().replace(" ", "-")
