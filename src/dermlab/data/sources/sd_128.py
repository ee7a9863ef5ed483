"""SD-128 (Sun et al. 2016): the classes of SD-198 with 20 and more photos.

Layout as :mod:`dermlab.data.sources.sd_198`.
"""

from __future__ import annotations

from pathlib import Path

from dermlab.data.sources import SourceData
from dermlab.data.sources.sd_198 import read_classes

MIN_PHOTOS = 20


def read(path: Path, *, name: str | None = None) -> SourceData:
    """Read SD-128 from SD-198's layout.

    Args:
        path: the folder that holds ``images``, or the class folders themselves.
        name: name of the data set; None is sd-128.
    """
    return read_classes(path, "sd-128", name, MIN_PHOTOS)
