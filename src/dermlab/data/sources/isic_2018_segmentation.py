"""ISIC 2018 challenge, task 1: dermoscopy images with a mask of the lesion (2,594 for training, 100 and 1,000 more).

Layout as published, read in public loaders: images ``ISIC_0000000.jpg`` in ``ISIC2018_Task1-2_Training_Input``,
``…_Validation_Input`` and ``…_Test_Input``, masks ``ISIC_0000000_segmentation.png`` in
``ISIC2018_Task1_Training_GroundTruth`` and so on. There are no diagnoses.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pandas as pd

from dermlab.core.errors import InputError
from dermlab.data.manifest import TEXT
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import Matcher, find_images, image_ids, require_folder
from dermlab.data.sources.isic_2018 import CITATION, PARTS
from dermlab.data.sources.upstream import locate, published


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read task 1 of ISIC 2018 from its upstream layout; its three parts become the official split.

    Args:
        path: the folder that holds ``ISIC2018_Task1-2_Training_Input`` and the masks' folders.
        name: name of the data set; None is isic-2018-segmentation.
    """
    require_folder(path, "the folder of ISIC 2018, task 1, with ISIC2018_Task1-2_Training_Input")
    files = find_images(path)
    photos: list[str] = []
    parts: list[str] = []
    for part, ours in PARTS.items():
        folder = f"ISIC2018_Task1-2_{part}_Input"
        inside = [
            file for file in files.paths if folder in PurePosixPath(file).parts[:-1] and "_superpixels" not in file
        ]
        photos += inside
        parts += [ours] * len(inside)
    if not photos:
        raise InputError(f"{path}: holds no images in ISIC2018_Task1-2_Training_Input; expected ISIC 2018's task 1")
    ids = pd.Series(image_ids(photos), dtype=TEXT)
    ours_to_theirs = {ours: part for part, ours in PARTS.items()}
    folders = pd.Series([f"ISIC2018_Task1_{ours_to_theirs[part]}_GroundTruth/" for part in parts], dtype=TEXT)
    manifest = pd.DataFrame(
        {
            "image_id": ids,
            "source_path": pd.Series([files.absolute(photo) for photo in photos], dtype=TEXT),
            "source_mask_path": locate(folders + ids + "_segmentation.png", Matcher(files), files),
            "modality": "dermoscopy",
            "part": parts,
        }
    )
    n_bare = int(manifest["source_mask_path"].isna().sum())
    return published(
        files,
        manifest,
        files.set_aside,
        targets=[],
        notes=[f"{n_bare:,} images have no mask"] if n_bare else [],
        name=name or "isic-2018-segmentation",
        description="Dermoscopy images with a mask of the lesion",
        licence="CC-BY-NC-4.0",
        licence_card="isic-2018",
        citation=CITATION,
        source="https://challenge.isic-archive.com/data/#2018",
    )
