"""MED-NODE (Giotis et al. 2015, doi 10.1016/j.eswa.2015.04.034): 170 clinical photos, 70 melanomas and 100 naevi.

Layout as published, read in the loaders of Digital-Dermatology/core and of public notebooks:
``complete_mednode_dataset`` with the folders ``melanoma`` and ``naevus``. It has neither patients nor a questionnaire
nor a split.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dermlab.data.card import Target
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import find_images, image_ids, require_folder
from dermlab.data.sources.upstream import folder_labels, published, require_photos

TARGET = Target(column="diagnosis", kind="binary", classes=("naevus", "melanoma"), default=True)

CITATION = (
    "Giotis et al.: MED-NODE: A computer-assisted melanoma diagnosis system using non-dermoscopic images, Expert "
    "Systems with Applications 42:6578-6585 (2015)"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read MED-NODE from its upstream layout.

    Args:
        path: the folder that holds ``melanoma`` and ``naevus``.
        name: name of the data set; None is med-node.
    """
    require_folder(path, "the folder of MED-NODE with melanoma and naevus")
    files = find_images(path)
    photos, others = folder_labels(files, {label: label for label in TARGET.classes})
    quarantined = [*files.set_aside, *others]
    require_photos(files, photos, quarantined)
    manifest = pd.DataFrame(
        {
            "image_id": image_ids(photos["file"]),
            "source_path": photos["source_path"],
            "modality": "clinical",
            "diagnosis": photos["label"],
        }
    )
    return published(
        files,
        manifest,
        quarantined,
        targets=[TARGET],
        notes=["MED-NODE names no patients: photos of one patient cannot be kept together"],
        name=name or "med-node",
        description="Clinical photos of melanomas and naevi from Groningen",
        licence_card="med-node",
        citation=CITATION,
        source="https://www.cs.rug.nl/~imaging/databases/melanoma_naevi/",
    )
