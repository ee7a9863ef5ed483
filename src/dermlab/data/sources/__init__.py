"""Where data sets come from: one file a public data set or format, each with one function ``read(path, ...)``.

In: a path in the source's own layout. Out: a :class:`SourceData`, which ``dermlab.data.ingest`` turns into a data set
folder. Whoever writes such a function adds a source: a line in :data:`SOURCES` is all that it needs.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dermlab.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from dermlab.data.card import Card

SOURCES: dict[str, str] = {
    "folder": "dermlab.data.sources.folder",
    "csv": "dermlab.data.sources.csv",
    "imagefolder": "dermlab.data.sources.imagefolder",
    "npz": "dermlab.data.sources.npz",
    "medmnist": "dermlab.data.sources.medmnist",
    "pad-ufes-20": "dermlab.data.sources.pad_ufes_20",
    "ham10000": "dermlab.data.sources.ham10000",
    "bcn20000": "dermlab.data.sources.bcn20000",
    "ddi": "dermlab.data.sources.ddi",
    "derm7pt": "dermlab.data.sources.derm7pt",
    "dermnet": "dermlab.data.sources.dermnet",
    "fitzpatrick17k": "dermlab.data.sources.fitzpatrick17k",
    "hiba": "dermlab.data.sources.hiba",
    "isic-2018": "dermlab.data.sources.isic_2018",
    "isic-2018-segmentation": "dermlab.data.sources.isic_2018_segmentation",
    "isic-2019": "dermlab.data.sources.isic_2019",
    "isic-2020": "dermlab.data.sources.isic_2020",
    "isic-archive": "dermlab.data.sources.isic_archive",
    "med-node": "dermlab.data.sources.med_node",
    "mskcc": "dermlab.data.sources.mskcc",
    "passion": "dermlab.data.sources.passion",
    "patch16": "dermlab.data.sources.patch16",
    "ph2": "dermlab.data.sources.ph2",
    "scin": "dermlab.data.sources.scin",
    "sd-128": "dermlab.data.sources.sd_128",
    "sd-198": "dermlab.data.sources.sd_198",
}
"""Name of a source -> the module that reads it, imported where it is used."""


class Arrays(Protocol):
    """Images that are rows of an array file, read block by block."""

    @property
    def fingerprint(self) -> str:
        """Changes when the array file changes."""

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, images uint8 (B, H, W) or (B, H, W, 3)) from the first row to the last."""


@dataclass(frozen=True)
class SourceData:
    """What a source's ``read`` returns: everything but the copied images.

    Attributes:
        root: folder that the source's files lie in.
        manifest: one row an image: ``image_id``, the reserved columns but ``path``, targets and metadata, typed as a
            manifest; ``source_path`` (absolute path of the image; absent where ``arrays`` holds the images) and, where
            there are masks, ``source_mask_path``.
        card: the data set's card.
        official: the source's own split, ``train``, ``val`` or ``test`` for each row, or None.
        quarantined: rows and files that were set aside already: ``path, reason``.
        arrays: the images where they are no files; row i belongs to row i of the manifest.
        notes: what was decided on the way, a sentence each.
    """

    root: Path
    manifest: pd.DataFrame
    card: Card
    official: np.ndarray | None = None
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    arrays: Arrays | None = None
    notes: tuple[str, ...] = ()


def read_source(source: str, path: str | Path, /, **options: Any) -> SourceData:
    """Read a source by its name.

    Args:
        source: one of :data:`SOURCES`.
        path: where it lies.
        options: the options of that source's ``read``.

    Raises:
        InputError: no such source, an option that it does not take, or unusable input.
    """
    if source not in SOURCES:
        near = difflib.get_close_matches(source, SOURCES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"no source {source!r}{hint}; there are {', '.join(SOURCES)}")
    read = importlib.import_module(SOURCES[source]).read
    known = list(inspect.signature(read).parameters)[1:]
    for option in options:
        if option not in known:
            takes = ", ".join(f"--{word}" for word in known)
            raise InputError(f"the source {source!r} takes no --{option}; it takes {takes}")
    return read(Path(path).expanduser(), **options)
