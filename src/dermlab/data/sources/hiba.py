"""HIBA (Ricci Lara et al. 2023, doi 10.1038/s41597-023-02630-0): skin lesions of Hospital Italiano de Buenos Aires.

Layout: an export of the ISIC archive (:mod:`dermlab.data.sources.isic_archive`), here under any name, as ``hiba.csv``
in Digital-Dermatology/core; dermoscopic and clinical images, told apart by ``image_type``.
"""

from __future__ import annotations

from pathlib import Path

from dermlab.data.sources import SourceData
from dermlab.data.sources.isic_archive import read_export

CITATION = (
    "Ricci Lara et al.: A dataset of skin lesion images collected in Argentina for the evaluation of AI tools in this "
    "population, Scientific Data 10:712 (2023)"
)


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read HIBA from an export of the ISIC archive.

    Args:
        path: the folder with the export and the images.
        name: name of the data set; None is hiba.
    """
    return read_export(
        path,
        "HIBA",
        name=name or "hiba",
        description="Dermoscopic and clinical images of skin lesions from Buenos Aires",
        licence_card="hiba",
        citation=CITATION,
        source="doi:10.34970/587329",
    )
