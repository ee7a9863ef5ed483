"""Thumbnails for the report: small JPEGs made anew from pixels, so that no EXIF or GPS of an original travels along."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

from dermlab.core.errors import DermlabError
from dermlab.core.progress import warn

THUMBNAIL_PX = 176
JPEG_QUALITY = 82


def thumbnails(folder: str | Path, image_ids: Iterable[str], *, size_px: int = THUMBNAIL_PX) -> dict[str, str]:
    """Return data URIs of square JPEG thumbnails by image id.

    Args:
        folder: the data set folder. Where it is gone or cannot be read, there are no pictures and a warning says so.
        image_ids: the images wanted; unknown and unreadable ones are left out.
        size_px: side of the thumbnails.
    """
    wanted = list(dict.fromkeys(image_ids))
    if not wanted:
        return {}
    from PIL import Image

    from dermlab.data.dataset import Dataset
    from dermlab.data.pixel_cache import PixelRecipe, open_pixels

    try:
        dataset = Dataset.open(Path(folder))
    except DermlabError as error:
        warn(f"the report has no photos: {error}")
        return {}
    place = {str(image_id): index for index, image_id in enumerate(dataset.image_ids)}
    known = [image_id for image_id in wanted if image_id in place]
    if not known:
        return {}
    pixels = open_pixels([dataset.paths[place[image_id]] for image_id in known], PixelRecipe(size_px=size_px))
    pixels.fill("thumbnails")
    usable = [index for index in range(len(known)) if index not in pixels.failures]
    if not usable:
        return {}
    result = {}
    for index, picture in zip(usable, pixels.batch(usable), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
        result[known[index]] = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return result
