"""PH² (Mendonça et al. 2013, doi 10.1109/EMBC.2013.6610779): 200 dermoscopy images with masks and dermoscopic criteria.

Layout as published, read in public loaders of ``PH2_dataset.txt`` (one quotes its rows) and of the folders: ``PH2
Dataset images/IMD003/IMD003_Dermoscopic_Image/IMD003.bmp``, ``…/IMD003_lesion/IMD003_lesion.bmp`` (the mask) and
``PH2_dataset.txt``, whose rows are ``|| name || histology || clinical diagnosis || six criteria, | between || colours
||``. The file itself was not at hand: the order of the six criteria is that of the published legend.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dermlab.core.delimited import read_text
from dermlab.core.errors import InputError
from dermlab.data.card import MetadataColumn, Target
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import NO_SUCH_FILE, Matcher, find_images
from dermlab.data.sources.upstream import find_file, locate, published, require_photos

TARGET = Target(
    column="diagnosis",
    classes=("common nevus", "atypical nevus", "melanoma"),
    default=True,
    hierarchy={"malignant": ("melanoma",), "benign": ("common nevus", "atypical nevus")},
)

_PRESENCE = {"A": "absent", "P": "present"}
_CRITERIA = {
    "asymmetry": {"0": "symmetric", "1": "asymmetric in one axis", "2": "asymmetric in two axes"},
    "pigment_network": {"T": "typical", "AT": "atypical"},
    "dots_globules": {"A": "absent", "T": "typical", "AT": "atypical"},
    "streaks": _PRESENCE,
    "regression_areas": _PRESENCE,
    "blue_whitish_veil": _PRESENCE,
}
_COLOURS = {"1": "white", "2": "red", "3": "light_brown", "4": "dark_brown", "5": "blue_gray", "6": "black"}

METADATA = (
    *(
        MetadataColumn(
            column=column, kind="categorical", values=tuple(codes.values()), description="read by dermatologists"
        )
        for column, codes in _CRITERIA.items()
    ),
    *(
        MetadataColumn(column=f"colour_{colour}", kind="boolean", description="read by dermatologists")
        for colour in _COLOURS.values()
    ),
    MetadataColumn(
        column="histological_diagnosis",
        kind="categorical",
        description="histology where there was one; known only with the diagnosis",
    ),
)

CITATION = (
    "Mendonça et al.: PH2 - A dermoscopic image database for research and benchmarking, 35th International Conference "
    "of the IEEE EMBS, 5437-5440 (2013)"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read PH² from its upstream layout.

    The histological diagnosis, and whether there is one, gives the label away and is a label proxy.

    Args:
        path: the folder with ``PH2_dataset.txt``.
        name: name of the data set; None is ph2.
    """
    file = find_file(path, ["PH2_dataset.txt"], "PH2")
    files = find_images(path)
    records, quarantined = _rows(file)
    if not records:
        why = f"; the first: {quarantined[0][0]}: {quarantined[0][1]}" if quarantined else ""
        raise InputError(f"{file}: not the published table, it has no usable row{why}")
    manifest = pd.DataFrame(records)
    names = manifest["image_id"]
    matcher = Matcher(files)
    manifest.insert(1, "source_path", locate(names + "_Dermoscopic_Image/" + names + ".bmp", matcher, files))
    manifest.insert(2, "source_mask_path", locate(names + "_lesion/" + names + "_lesion.bmp", matcher, files))
    manifest.insert(3, "lesion_id", names)
    manifest.insert(4, "modality", "dermoscopy")
    found = manifest["source_path"].notna()
    quarantined = [*files.set_aside, *quarantined, *((entry, NO_SUCH_FILE) for entry in names[~found])]
    manifest = manifest[found].reset_index(drop=True)
    require_photos(files, manifest, quarantined)
    n_bare = int(manifest["source_mask_path"].isna().sum())
    return published(
        files,
        manifest,
        quarantined,
        targets=[TARGET],
        metadata=METADATA,
        label_proxies=("histological_diagnosis",),
        notes=[f"{n_bare:,} images have no mask"] if n_bare else [],
        name=name or "ph2",
        description="Dermoscopy images of melanocytic lesions from Matosinhos, with masks and dermoscopic criteria",
        licence_card="ph2",
        citation=CITATION,
        source="https://www.fc.up.pt/addi/ph2%20database.html",
    )


def _rows(file: Path) -> tuple[list[dict[str, object]], list[tuple[str, str]]]:
    """Return the records of the table, and what was set aside with its line."""
    records: list[dict[str, object]] = []
    quarantined: list[tuple[str, str]] = []
    seen: set[str] = set()
    for line, text in enumerate(read_text(file)[0].splitlines(), start=1):
        cells = [cell.strip() for cell in text.split("||")]
        if len(cells) < 2 or not cells[1].upper().startswith("IMD"):
            continue  # the header, and the legend below the table
        try:
            if cells[1] in seen:
                raise ValueError(f"{cells[1]!r} stands in an earlier row already")
            records.append(_record(cells))
            seen.add(cells[1])
        except ValueError as error:
            quarantined.append((f"{file.name} row {line}", str(error)))
    return records, quarantined


def _record(cells: list[str]) -> dict[str, object]:
    if len(cells) < 6:
        raise ValueError(f"has {len(cells) - 1} parts between its double bars where the table has 5")
    name, histology, diagnosis, criteria, colours = cells[1:6]
    if diagnosis not in ("0", "1", "2"):
        raise ValueError(f"clinical diagnosis {diagnosis!r} is not one of 0, 1, 2")
    codes = [cell.strip() for cell in criteria.split("|")]
    if len(codes) != len(_CRITERIA):
        raise ValueError(f"has {len(codes)} dermoscopic criteria where the table has {len(_CRITERIA)}")
    record: dict[str, object] = {"image_id": name, "diagnosis": TARGET.classes[int(diagnosis)]}
    for (column, readings), code in zip(_CRITERIA.items(), codes, strict=True):
        if code and code not in readings:
            raise ValueError(f"{column} {code!r} is not one of {', '.join(readings)}")
        record[column] = readings.get(code)
    present = colours.replace(",", " ").split()
    unknown = [code for code in present if code not in _COLOURS]
    if unknown:
        raise ValueError(f"colour {unknown[0]!r} is not one of {', '.join(_COLOURS)}")
    for code, colour in _COLOURS.items():
        record[f"colour_{colour}"] = code in present if present else None
    return record | {"histological_diagnosis": histology or None}
