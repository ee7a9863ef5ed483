"""Ask how well photos find their own captions and captions their photos: recall@k both ways."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from dermlab.commands.zeroshot import Photos
from dermlab.core import words


class RetrievalConfig(Photos):
    """Options of ``dermlab retrieval``."""

    captions: Path = Field(description="table (.csv, .tsv, .parquet) of captions, one a row; a photo may have several")
    id: str = Field("image_id", description="its column with the image's id")
    caption: str = Field("caption", description="its column with the text")
    k: tuple[int, ...] = Field((1, 5, 10), min_length=1, description="how many answers are looked at")
    out: Path | None = Field(None, description="also write the figures to this .json file")


@dataclass(frozen=True)
class RetrievalResult:
    """Recall@k both ways, each with n, its interval over groups, and what guessing would give."""

    encoder: str
    n_photos: int
    n_captions: int
    rows: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]
    written: Path | None

    def lines(self) -> list[str]:
        """Return what a person reads."""
        lines = [
            f"{self.encoder}: {words.plural(self.n_photos, 'photo')}, {words.plural(self.n_captions, 'different text')}"
        ]
        for row in self.rows:
            low, high = words.score(row["low"]), words.score(row["high"])
            lines.append(
                f"  {row['way']}  recall@{row['k']}: {words.score(row['value'])} ({low}–{high}), guessing "
                f"{words.score(row['chance'])}"
            )
        lines += [f"warning: {text}" for text in self.warnings]
        return lines + ([f"wrote {self.written}"] if self.written is not None else [])

    def to_json(self) -> dict[str, Any]:
        """Return the same for ``--json``."""
        return dict(vars(self))


def run(config: RetrievalConfig) -> RetrievalResult:
    """Embed photos and captions, and rank each among the others."""
    import numpy as np
    import pandas as pd

    from dermlab.adapt.probe import contaminations
    from dermlab.commands.zeroshot import embed_photos
    from dermlab.core.errors import InputError
    from dermlab.core.files import write_json
    from dermlab.data.dataset import Dataset
    from dermlab.evaluate.intervals import wilson_grouped
    from dermlab.evaluate.predictions import read_table
    from dermlab.models.two_tower import open_two_tower, partner_ranks

    dataset = Dataset.open(config.folder)
    table = read_table(config.captions)
    for column, option in ((config.id, "--id"), (config.caption, "--caption")):
        if column not in table:
            raise InputError(
                f"{config.captions}: no column {column!r}; name it with {option} (columns: {', '.join(table.columns)})"
            )
    place = pd.Index(dataset.image_ids).get_indexer(pd.Index(table[config.id].astype(str)))
    text = table[config.caption].astype("string").str.strip()
    usable = (place >= 0) & (text.fillna("") != "").to_numpy()
    told = []
    if (place < 0).any():
        told.append(f"{words.plural(int((place < 0).sum()), 'caption')} of photos that the data set has not")
    if not usable.any():
        raise InputError(f"{config.captions}: no caption of a photo in {config.folder}")
    model = open_two_tower(config.encoder)
    vectors, valid, encoder = embed_photos(config, dataset, model)
    usable &= valid[np.where(place < 0, 0, place)]
    rows, photo_of = np.unique(place[usable], return_inverse=True)
    texts, text_of = np.unique(text[usable].to_numpy(dtype=str), return_inverse=True)
    if min(len(rows), len(texts)) <= max(config.k) or min(config.k) < 1:
        raise InputError(
            f"k: must lie between 1 and fewer than the {len(rows):,} photos and {len(texts):,} different texts"
        )
    own = np.zeros((len(rows), len(texts)), bool)
    own[photo_of, text_of] = True  # photos of one text share it: any of them is a right answer
    photos, sentences = vectors[rows], model.texts(texts.tolist())
    group_of_photo = np.unique(dataset.groups()[rows], return_inverse=True)[1]
    ways = {
        "text of a photo": (partner_ranks(photos, sentences, own), group_of_photo, own.sum(1), len(texts)),
        "photo of a text": (
            partner_ranks(sentences, photos, own.T),
            group_of_photo[own.argmax(0)],
            own.sum(0),
            len(rows),
        ),
    }
    found = []
    for way, (ranks, groups, partners, n_candidates) in ways.items():
        for k in config.k:
            estimate = wilson_grouped((ranks <= k).astype(float), groups)
            found.append(
                {
                    "way": way,
                    "k": k,
                    "n": len(ranks),
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "chance": _chance(partners, n_candidates, k),
                }
            )
    told += contaminations(encoder, dataset)
    result = RetrievalResult(config.encoder, len(rows), len(texts), tuple(found), tuple(told), config.out)
    if config.out is not None:
        write_json(config.out, result.to_json())
    return result


def _chance(partners: Any, n_candidates: int, k: int) -> float:
    """Return the recall@k of drawing k different candidates blindly, for queries of so many partners each."""
    import numpy as np

    missed = np.ones(len(partners))
    for drawn in range(k):
        missed *= np.maximum(n_candidates - partners - drawn, 0) / (n_candidates - drawn)
    return float(1 - missed.mean())
