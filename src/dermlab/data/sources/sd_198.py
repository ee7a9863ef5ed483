"""SD-198 and SD-128 (Sun et al. 2016, doi 10.1007/978-3-319-46466-4_13): clinical photos of DermQuest, 198 classes.

Layout as published, read in public loaders: ``images/<Class>/<photo>.jpg`` with ``classes.txt``, ``images.txt`` and
``image_class_labels.txt``; the class folders say what the lists say. The lists of SD-128's classes and of the paper's
split were not found: SD-128 is made by its rule, the classes with 20 and more photos, and there is no official split.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dermlab.data.sources import SourceData
from dermlab.data.sources.files import find_images, image_ids, require_folder
from dermlab.data.sources.upstream import folder_labels, observed_target, published, require_photos

CITATION = (
    "Sun et al.: A benchmark for automatic visual classification of clinical skin disease images, ECCV 2016, 206-222"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read SD-198 from its upstream layout.

    Args:
        path: the folder that holds ``images``, or the class folders themselves.
        name: name of the data set; None is sd-198.
    """
    return read_classes(path, "sd-198", name)


def read_classes(path: Path, card: str, name: str | None, min_photos: int = 1) -> SourceData:
    """Read the classes of SD-198 that have so many photos.

    Args:
        path: as :func:`read`.
        card: id of the licence card, ``sd-`` and the number of classes, and the default name.
        name: name of the data set.
        min_photos: classes with fewer photos are left out.
    """
    require_folder(path, f"the folder of {card.upper()} with its class folders")
    files = find_images(path)
    photos, others = folder_labels(files, below="images")
    quarantined = [*files.set_aside, *others]
    require_photos(files, photos, quarantined)
    n_photos = photos["label"].map(photos["label"].value_counts())
    rare = photos.loc[n_photos < min_photos, "label"]
    photos = photos[n_photos >= min_photos].reset_index(drop=True)
    notes = ["the photos name no patients: photos of one patient cannot be kept together"]
    if len(rare):
        notes.append(
            f"{rare.nunique():,} classes with fewer than {min_photos} photos were left out, {len(rare):,} photos"
        )
    require_photos(files, photos, [*quarantined, *((label, f"fewer than {min_photos} photos") for label in rare[:1])])
    folders = photos["label"]
    n_published = int(card.removeprefix("sd-"))
    if folders.nunique() != n_published:
        notes.append(f"{folders.nunique():,} classes are here; as published there are {n_published}")
    manifest = pd.DataFrame(
        {
            "image_id": image_ids(photos["file"]),
            "source_path": photos["source_path"],
            "modality": "clinical",
            "diagnosis": folders.str.replace("_", " ").str.casefold(),
        }
    )
    readable = dict(zip(manifest["diagnosis"], folders.str.replace("_", " "), strict=True))
    return published(
        files,
        manifest,
        quarantined,
        targets=[observed_target(manifest, "diagnosis", default=True, names=readable)],
        notes=notes,
        name=name or card,
        description="Clinical photos of skin diseases, collected from DermQuest",
        licence_card=card,
        citation=CITATION,
        source="doi:10.1007/978-3-319-46466-4_13",
    )
