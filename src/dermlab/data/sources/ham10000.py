"""HAM10000 (Tschandl, Rosendahl, Kittler 2018, doi 10.7910/DVN/DBW86T): 10,015 dermoscopy images of 7,470 lesions.

Layout as published: ``HAM10000_metadata.csv`` with the images in ``HAM10000_images_part_1`` and ``_part_2`` (or any
folders). Masks (``HAM10000_segmentations_lesion_tschandl``, ``<image_id>_segmentation.png``) come along where they lie
there. Where the ISIC 2018 test set lies beside it (``ISIC2018_Task3_Test_GroundTruth.csv``), it becomes the test
part of the split ``official``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from dermlab.core.errors import InputError
from dermlab.data.card import Card, MetadataColumn, Target
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import Matcher, find_images, require_folder
from dermlab.data.sources.tables import Table, read_table
from dermlab.data.sources.upstream import locate, match_images, numbers, require_columns

METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
TEST_METADATA = "ISIC2018_Task3_Test_GroundTruth.csv"
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")

TARGET = Target(
    column="dx",
    classes=("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"),
    default=True,
    names={
        "akiec": "actinic keratosis or intraepithelial carcinoma",
        "bcc": "basal cell carcinoma",
        "bkl": "benign keratosis",
        "df": "dermatofibroma",
        "mel": "melanoma",
        "nv": "melanocytic nevus",
        "vasc": "vascular lesion",
    },
    hierarchy={"malignant": ("akiec", "bcc", "mel"), "benign": ("bkl", "df", "nv", "vasc")},
)

METADATA_COLUMNS = (
    MetadataColumn(column="age", kind="numeric", unit="years", description="age; upstream's 0 counts as missing"),
    MetadataColumn(column="sex", kind="categorical", values=("female", "male")),
    MetadataColumn(column="localization", kind="categorical", description="where on the body; unknown is null"),
    MetadataColumn(
        column="dx_type",
        kind="categorical",
        values=("confocal", "consensus", "follow_up", "histo"),
        description="how the diagnosis was made; known only with it",
    ),
)

CITATION = (
    "Tschandl, Rosendahl, Kittler: The HAM10000 dataset, a large collection of multi-source dermatoscopic images of "
    "common pigmented skin lesions, Scientific Data 5:180161 (2018)"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read HAM10000 from its upstream layout.

    An age of 0 and the words ``unknown`` for sex and localization are upstream's way to say 'not recorded'; they become
    null. ``dx_type`` gives the label away (every carcinoma was confirmed by histology) and is a label proxy.

    Args:
        path: the folder.
        name: name of the data set; None is ham10000.
    """
    require_folder(path, "the folder of HAM10000_metadata.csv")
    file = next((path / name for name in METADATA if (path / name).is_file()), None)
    if file is None:
        raise InputError(f"{path}: holds no {METADATA[0]}; it is published beside the images")
    tables = [_table(file)]
    if (path / TEST_METADATA).is_file():
        tables.append(_table(path / TEST_METADATA))
    files = find_images(path)
    frames, quarantined = [], list(files.set_aside)
    for table, part in zip(tables, ("train", "test"), strict=False):
        paths, missing = match_images(table, "image_id", files)
        quarantined.extend(missing)
        frames.append(_manifest(table, paths).assign(part=part))
    manifest = pd.concat(frames, ignore_index=True)
    if not manifest["source_path"].notna().any():
        raise InputError(f"{path}: none of the images of {file.name} is in this folder")
    twice = manifest["image_id"].duplicated()
    if twice.any():
        raise InputError(f"{path}: image {manifest.loc[twice, 'image_id'].iloc[0]!r} is in both tables or twice in one")
    manifest = manifest[manifest["source_path"].notna()].reset_index(drop=True)
    official = manifest.pop("part").to_numpy(dtype=object)
    masks = locate(manifest["image_id"] + "_segmentation.png", Matcher(files), files)
    if masks.notna().any():
        manifest["source_mask_path"] = masks
    card = Card(
        name=name or "ham10000",
        description="Dermoscopy images of pigmented lesions from Vienna and Queensland",
        licence="CC-BY-NC-4.0",
        licence_card="ham10000",
        citation=CITATION,
        source="doi:10.7910/DVN/DBW86T",
        targets=(TARGET,),
        metadata=METADATA_COLUMNS,
        label_proxies=("dx_type",),
    )
    return SourceData(
        root=files.root,
        manifest=manifest,
        card=card,
        official=official if np.isin("test", official) else None,
        quarantined=quarantined,
    )


def _table(file: Path) -> Table:
    table = read_table(file)
    require_columns(table, COLUMNS)
    table.refuse(
        (~table.frame["dx"].isin(TARGET.classes)).to_numpy(),
        "dx",
        f"label {{value}} is not one of {', '.join(TARGET.classes)}",
    )
    return table


def _manifest(table: Table, paths: pd.Series) -> pd.DataFrame:
    frame = table.frame
    age = numbers(table, "age")
    manifest = pd.DataFrame(
        {
            "image_id": frame["image_id"],
            "source_path": paths,
            "lesion_id": frame["lesion_id"],
            "modality": "dermoscopy",
            "dx": frame["dx"],
            "age": age.mask(age == 0),
            "sex": frame["sex"].mask(frame["sex"] == "unknown"),
            "localization": frame["localization"].mask(frame["localization"] == "unknown"),
            "dx_type": frame["dx_type"],
        }
    )
    return manifest.assign(site=frame["dataset"]) if "dataset" in frame else manifest
