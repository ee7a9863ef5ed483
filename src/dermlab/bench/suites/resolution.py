"""The resolution study: the same photos at several sizes, enlarged again in several ways or seen as they are.

Photos are shrunk once to each size, averaging over what each pixel covers, as a smaller archive would hold them. From
there they reach the encoder in two ways: enlarged to its own input by one interpolation, or as they are, where the
network takes that size. What differs between rows is pixels and how they are stretched, never photos, split or head.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dermlab.bench.config import folder_name, short_encoder
from dermlab.bench.curves import Line, Panel, draw_curves
from dermlab.core.errors import DermlabError
from dermlab.core.files import atomic_path
from dermlab.core.fingerprint import hash_json
from dermlab.core.progress import note
from dermlab.core.words import metric_words
from dermlab.data.pixel_cache import PixelRecipe, open_pixels

if TYPE_CHECKING:
    from dermlab.bench.suites.config import Resolution
    from dermlab.bench.suites.work import Job
    from dermlab.data.dataset import Dataset
    from dermlab.features.extract import Features

Json = dict[str, Any]
NATIVE = "as it is"
BLOCK = 256
LOOKED_AT = 64
SMALLEST_GAIN = 0.99
"""A photo of which the short side has fewer pixels than this share of a size cannot be shrunk to it."""


def study(job: Job, dataset: Dataset, split: str, found: Json) -> Json:
    """Run the study on one task.

    Args:
        job: the task, its encoders and heads.
        dataset: its photos, larger than the largest size.
        split: name of the split.
        found: the task's record; what cannot be done goes to ``skipped`` there.

    Returns:
        ``{"sentence", "sizes", "rows": [{"model", "method", "size_px", "way", "input_px", "images_per_second",
        "metrics", "run"}], "figures": [(caption, file)], "warnings": []}``.
    """
    from dermlab.bench.suites.work import probe_row, skipping

    plan = job.suite.resolution
    assert plan is not None
    frame = dataset.read_split(split)
    warnings = _too_small(dataset, plan)
    rows: list[Json] = []
    for encoder in job.encoders:
        with skipping(found, encoder):
            for size, way in _conditions(plan):
                try:
                    features, input_px = features_at(job, dataset, encoder, size, way)
                except DermlabError as error:
                    if way != NATIVE:
                        raise
                    text = f"{short_encoder(encoder)} does not take photos of {size} px as they are: {error}"
                    warnings.append(text)
                    note(text)
                    continue
                label = f"{short_encoder(encoder)}-{size}-{way.replace(' ', '-')}"
                for head in job.suite.protocol.heads:
                    row = probe_row(job, dataset, split, frame, encoder, head, features, model=label)
                    kept = ("method", "metrics", "n", "n_groups", "unit", "group_by", "run", "val_score")
                    rows.append(
                        {
                            "model": short_encoder(encoder),
                            "size_px": size,
                            "way": way,
                            "input_px": input_px,
                            "images_per_second": features.images_per_second,
                            **{key: row[key] for key in kept},
                        }
                    )
    return {
        "sentence": (
            f"Photos shrunk to {', '.join(map(str, plan.sizes))} px, then enlarged to the encoder's own input, or seen "
            "as they are where the network takes the size. Photos a second: reading the shrunk pixels, enlarging them "
            "and the network, on this machine."
        ),
        "sizes": list(plan.sizes),
        "rows": rows,
        "figures": draw(rows, job, found["metric"]) if rows else [],
        "warnings": warnings,
    }


def _conditions(plan: Resolution) -> Iterator[tuple[int, str]]:
    for size in sorted(set(plan.sizes)):
        for way in plan.interpolations:
            yield size, way
        if plan.native:
            yield size, NATIVE


def _too_small(dataset: Dataset, plan: Resolution) -> list[str]:
    """Say how many photos have fewer pixels than the largest size: these would be enlarged in place of shrunk."""
    from dermlab.data.decode import DecodeError, decode_image, read_file

    step = max(1, len(dataset) // LOOKED_AT)
    sides = []
    for path in dataset.paths[::step]:
        with contextlib.suppress(DecodeError, OSError):
            sides.append(min(decode_image(read_file(path)).size))
    small = sum(side < SMALLEST_GAIN * max(plan.sizes) for side in sides)
    if not small:
        return []
    return [
        f"{small} of {len(sides)} photos looked at have a side below {max(plan.sizes)} px: what the largest size holds "
        "beyond theirs is no information"
    ]


def features_at(job: Job, dataset: Dataset, encoder: str, size: int, way: str) -> tuple[Features, int]:
    """Return the features of photos that were shrunk to ``size`` and brought to the network in one ``way``.

    They are kept in the task's folder by what they depend on, and read from there the next time.

    Args:
        job: the task.
        dataset: its photos.
        encoder: the encoder's name.
        size: side of the shrunk photos in pixels; they are squashed to a square, as all ways must see the same.
        way: an interpolation to the encoder's own input, or :data:`NATIVE`.

    Returns:
        The features and the side in pixels that the network saw.

    Raises:
        InputError: the network does not take the size, or its weights are not here.
    """
    import cv2

    from dermlab.features.extract import Features, embed_stream
    from dermlab.models.encoders import identify_encoder

    seed = job.suite.protocol.seeds[0]
    identity = identify_encoder(encoder, seed=seed, size_px=size if way == NATIVE else None, fit="squash")
    input_px = identity.preprocess.size_px
    recipe = PixelRecipe(size_px=size, fit="squash", interpolation="area", antialias=True)
    pixels = open_pixels(dataset.paths, recipe, threads=job.threads)
    made_of = [identity.fingerprint, list(pixels.content_hashes), recipe.name, input_px, way, job.precision]
    key = hash_json(made_of)[:16]
    described = {**identity.to_dict(), "fingerprint": key}
    file = job.place / "features" / f"{folder_name(short_encoder(encoder))}-{size}-{folder_name(way)}-{key}.npz"
    if not file.exists():
        ways = {
            "nearest": cv2.INTER_NEAREST,
            "bilinear": cv2.INTER_LINEAR,
            "bicubic": cv2.INTER_CUBIC,
            "area": cv2.INTER_AREA,
        }
        readable: list[int] = []

        def photos() -> Iterator[np.ndarray]:
            for start in range(0, len(pixels), BLOCK):
                chosen = np.arange(start, min(start + BLOCK, len(pixels)))
                for index, photo in zip(chosen.tolist(), pixels.batch(chosen), strict=True):
                    if index in pixels.failures:
                        continue
                    readable.append(index)
                    if way == NATIVE or size == input_px:
                        yield photo
                    else:
                        yield cv2.resize(photo, (input_px, input_px), interpolation=ways[way])

        pixels.fill(f"shrink to {size} px")
        begun = time.monotonic()
        batches = list(
            embed_stream(
                photos(),
                encoder,
                batch_size=job.batch_size,
                size_px=size if way == NATIVE else None,
                fit="squash",
                seed=seed,
            )
        )
        seconds = time.monotonic() - begun
        values = np.zeros((len(pixels), identity.dim), np.float32)
        values[readable] = np.concatenate(batches)
        valid = np.zeros(len(pixels), bool)
        valid[readable] = True
        with atomic_path(file) as temporary, open(temporary, "wb") as opened:
            np.savez_compressed(opened, values=values, valid=valid, rate=len(readable) / seconds)
    with np.load(file) as stored:
        values, valid, rate = stored["values"], stored["valid"], float(stored["rate"])
    failures = {index: pixels.failures.get(index, "holds no image") for index in np.flatnonzero(~valid).tolist()}
    return Features(values, valid, failures, described, 0.0, int(valid.sum()), rate), input_px


def draw(rows: Sequence[Json], job: Job, metric: str) -> list[tuple[str, str]]:
    """Draw score over size (a line a way) and score over cost (a line an encoder) and return captions and files."""
    written: list[tuple[str, str]] = []
    label = metric_words(metric)[0]
    frame = pd.DataFrame(rows)
    for method, part in frame.groupby("method", sort=False):
        panels = [
            Panel(
                f"{model}",
                [
                    Line(str(way), of_way["size_px"].tolist(), [one[metric] for one in of_way["metrics"]])
                    for way, of_way in of_model.groupby("way", sort=False)
                ],
            )
            for model, of_model in part.groupby("model", sort=False)
        ]
        first = part.iloc[0]
        said = f"{first['n']:,} test cases of {first['n_groups']:,} groups; bands: 95% intervals over groups."
        stem = job.place / f"resolution-{method}"
        draw_curves(
            stem,
            panels,
            x_label="side of the photo in pixels",
            y_label=label,
            caption=f"Photos shrunk to each size, then enlarged to the encoder's own input or seen as they are. {said}",
            x_ticks=sorted(frame["size_px"].unique()),
        )
        written.append((f"{label} against the photo's pixels, {method}", _relative(stem, job)))
        ordered = part.assign(cost=[1000 / rate if rate else math.nan for rate in part["images_per_second"]])
        lines = [
            Line(str(model), of_model["cost"].tolist(), [one[metric] for one in of_model["metrics"]])
            for model, of_model in ordered[ordered["way"] == NATIVE].sort_values("cost").groupby("model", sort=False)
        ]
        lines += [
            Line(f"{model}, enlarged", of_model["cost"].tolist(), [one[metric] for one in of_model["metrics"]])
            for model, of_model in ordered[
                (ordered["way"] != NATIVE) & (ordered["size_px"] == ordered["size_px"].max())
            ]
            .sort_values("cost")
            .groupby("model", sort=False)
        ]
        lines = [line for line in lines if not any(math.isnan(x) for x in line.x)]
        if lines:
            stem = job.place / f"cost-{method}"
            draw_curves(
                stem,
                [Panel(f"{method}", lines)],
                x_label="milliseconds a photo, on this machine",
                y_label=label,
                caption=f"As they are: each size as the network takes it; enlarged: the largest size. {said}",
                log_x=False,
            )
            written.append((f"{label} against cost, {method}", _relative(stem, job)))
    return written


def _relative(stem: Path, job: Job) -> str:
    return stem.with_name(stem.name + ".png").relative_to(job.out).as_posix()
