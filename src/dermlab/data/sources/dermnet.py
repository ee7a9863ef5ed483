"""DermNet's 23 groups (dermnet.com, as distributed with ``train`` and ``test``): 19,559 clinical photos.

Layout as distributed, read in public loaders that list the 23 folders: ``train/<group>/<photo>.jpg`` and
``test/<group>/<photo>.jpg``. Not DermNet NZ, which is another collection.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from dermlab.data.card import Target
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import find_images, image_ids, require_folder
from dermlab.data.sources.upstream import folder_labels, published, require_photos

GROUPS = (
    "Acne and Rosacea Photos",
    "Actinic Keratosis Basal Cell Carcinoma and other Malignant Lesions",
    "Atopic Dermatitis Photos",
    "Bullous Disease Photos",
    "Cellulitis Impetigo and other Bacterial Infections",
    "Eczema Photos",
    "Exanthems and Drug Eruptions",
    "Hair Loss Photos Alopecia and other Hair Diseases",
    "Herpes HPV and other STDs Photos",
    "Light Diseases and Disorders of Pigmentation",
    "Lupus and other Connective Tissue diseases",
    "Melanoma Skin Cancer Nevi and Moles",
    "Nail Fungus and other Nail Disease",
    "Poison Ivy Photos and other Contact Dermatitis",
    "Psoriasis pictures Lichen Planus and related diseases",
    "Scabies Lyme Disease and other Infestations and Bites",
    "Seborrheic Keratoses and other Benign Tumors",
    "Systemic Disease",
    "Tinea Ringworm Candidiasis and other Fungal Infections",
    "Urticaria Hives",
    "Vascular Tumors",
    "Vasculitis Photos",
    "Warts Molluscum and other Viral Infections",
)


def _class(group: str) -> str:
    return re.sub(r" (Photos|pictures)\b", "", group)


TARGET = Target(column="diagnosis", classes=tuple(_class(group) for group in GROUPS), default=True)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read DermNet from its layout as distributed; ``train`` and ``test`` become the official split.

    Args:
        path: the folder that holds ``train`` and ``test``.
        name: name of the data set; None is dermnet.
    """
    require_folder(path, "the folder of DermNet with train and test")
    files = find_images(path)
    photos, others = folder_labels(files, {group.casefold(): _class(group) for group in GROUPS})
    quarantined = [*files.set_aside, *others]
    require_photos(files, photos, quarantined)
    folders = [{part.casefold() for part in PurePosixPath(file).parts[:-1]} for file in photos["file"]]
    manifest = pd.DataFrame(
        {
            "image_id": image_ids(photos["file"]),
            "source_path": photos["source_path"],
            "modality": "clinical",
            "diagnosis": photos["label"],
            "part": [next((part for part in ("train", "test") if part in names), None) for names in folders],
        }
    )
    if manifest["part"].isna().all():
        del manifest["part"]
    return published(
        files,
        manifest,
        quarantined,
        targets=[TARGET],
        notes=["the photos name no patients: the official split may divide photos of one patient"],
        name=name or "dermnet",
        description="Clinical photos of an atlas, in 23 groups of diseases",
        licence="all rights reserved",
        licence_card="dermnet",
        citation="DermNet, https://www.dermnet.com, in the 23 groups as distributed",
        source="https://www.dermnet.com",
    )
