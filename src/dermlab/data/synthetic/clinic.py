"""The synthetic clinic as a data set folder: photos and masks rendered in threads, manifest and card written last."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import pandas as pd

from dermlab.core.errors import InputError
from dermlab.core.files import cannot_write
from dermlab.core.progress import progress
from dermlab.data.card import Card, MetadataColumn, Target
from dermlab.data.dataset import Dataset
from dermlab.data.decode import available_cores
from dermlab.data.synthetic.looks import BENIGN, DIAGNOSES, MALIGNANT, SEVERITY, SIGNS
from dermlab.data.synthetic.patients import CAMERAS, DERMATOSCOPES, REGIONS, SEXES, SUN, Shot, shots
from dermlab.data.synthetic.photo import render
from dermlab.data.synthetic.traps import Planted, plant

SMALLEST_PX, LARGEST_PX = 28, 1024
JPEG_QUALITY = 92

QUESTIONS: tuple[MetadataColumn, ...] = (
    MetadataColumn(column="age", kind="numeric", unit="years", description="Age on the day of the photo"),
    MetadataColumn(column="sex", kind="categorical", values=SEXES, description="Sex"),
    MetadataColumn(column="region", kind="categorical", values=REGIONS, description="Where on the body is it?"),
    MetadataColumn(column="sun_exposure", kind="categorical", values=SUN, description="Sun over the years"),
    MetadataColumn(column="family_history", kind="boolean", description="Skin cancer in the family?"),
    MetadataColumn(column="itch", kind="boolean", description="Does it itch?"),
    MetadataColumn(column="hurt", kind="boolean", description="Does it hurt?"),
    MetadataColumn(column="grew", kind="boolean", description="Has it grown of late?"),
    MetadataColumn(column="changed", kind="boolean", description="Has its colour or shape changed?"),
    MetadataColumn(column="bleed", kind="boolean", description="Has it bled?"),
    MetadataColumn(column="elevation", kind="boolean", description="Is it raised?"),
    MetadataColumn(column="diameter_mm", kind="numeric", unit="mm", description="Largest diameter, by a ruler"),
    MetadataColumn(
        column="device", kind="categorical", values=CAMERAS + DERMATOSCOPES, description="Camera or dermatoscope"
    ),
)


def make_clinic(out: Path, n: int, size_px: int, seed: int, traps: bool = False, threads: int | None = None) -> Dataset:
    """Write a synthetic clinic as a data set folder.

    Photo ``i`` depends on ``seed`` and ``i`` alone: not on ``n``, the threads or, but for its resolution, ``size_px``.

    Args:
        out: the folder; it must not exist or be empty.
        n: number of photos.
        size_px: side of the square photos, 28 to 1024.
        seed: seed of everything.
        traps: plant faults (duplicates, conflicts, leaks, unreadable files) and record them in ``traps.json``; the
            last few photos of the ``n`` are then the planted ones.
        threads: rendering threads; None is one for each CPU this process may use.

    Returns:
        The data set, with ``images/`` and ``masks/``.

    Raises:
        InputError: a number out of its range, or a folder that holds something.
    """
    out = Path(out)
    _check(out, n, size_px, threads)
    planted = Planted.plan(n, seed) if traps else None
    chosen = list(itertools.islice(shots(seed), n))
    rendered = chosen[: planted.n_clean] + chosen[planted.first_unreadable :] if planted else chosen
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        (out / "masks").mkdir(exist_ok=True)
        _render_all(out, rendered, seed, size_px, threads)
    except OSError as error:
        raise cannot_write(error.filename or out, error) from error
    rows = [_row(shot) for shot in chosen]
    card = make_card(seed)
    if planted is None:
        return Dataset.write(out, pd.DataFrame(rows), card)
    return plant(out, rows, card, planted)


def make_card(seed: int) -> Card:
    """Return the card of the synthetic clinic."""
    codes = tuple(sorted(DIAGNOSES))
    return Card(
        name="synthetic-clinic",
        version=f"1-seed{seed}",
        description=(
            "Procedurally generated clinical and dermoscopic photos of skin lesions, with patients, visits and a "
            "questionnaire. Nobody's skin: made for tests, demonstrations and teaching, not for any clinical claim."
        ),
        licence="CC0-1.0",
        citation="dermlab synthetic clinic (generated; public domain)",
        source=f"dermlab data synth --seed {seed}",
        targets=(
            Target(
                column="diagnosis",
                classes=codes,
                default=True,
                names=DIAGNOSES,
                hierarchy={"benign": BENIGN, "malignant": MALIGNANT},
                cost_matrix=tuple(tuple(_cost(true, said) for said in codes) for true in codes),
            ),
            Target(column="malignant", kind="binary", classes=("benign", "malignant")),
            Target(column="signs", kind="multilabel", classes=SIGNS),
            Target(column="severity", kind="ordinal", classes=SEVERITY),
        ),
        metadata=QUESTIONS,
        unit="image",
    )


def _cost(true: str, said: str) -> float:
    """Return what it costs to take one diagnosis for another, in units of one needless biopsy."""
    if true == said:
        return 0.0
    if true in MALIGNANT and said in BENIGN:
        return {"MEL": 10.0, "SCC": 6.0, "BCC": 3.0}[true]
    if true in BENIGN and said in MALIGNANT:
        return 1.0
    return 1.0 if true in MALIGNANT else 0.3


def _check(out: Path, n: int, size_px: int, threads: int | None) -> None:
    if n < 1:
        raise InputError(f"n: {n} photos were asked for; at least 1 is needed")
    if not SMALLEST_PX <= size_px <= LARGEST_PX:
        raise InputError(f"size: {size_px} px is out of range; photos can be {SMALLEST_PX} to {LARGEST_PX} px wide")
    if threads is not None and threads < 1:
        raise InputError(f"threads: {threads} is not a number of threads; write 1 or more")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; the clinic needs a folder")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; choose another --out or delete that folder")


def _render_all(out: Path, chosen: Sequence[Shot], seed: int, size_px: int, threads: int | None) -> None:
    def work(shot: Shot) -> None:
        picture, mask = render(shot, seed, size_px)
        jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        png = cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_BILEVEL, 1])[1]
        (out / _image(shot)).write_bytes(jpeg.tobytes())
        (out / _mask(shot)).write_bytes(png.tobytes())

    with (
        _one_opencv_thread(),
        ThreadPoolExecutor(threads or available_cores()) as pool,
        progress("synthetic clinic", len(chosen)) as advance,
    ):
        for _ in pool.map(work, chosen):
            advance(1)


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Keep OpenCV from threading inside our threads."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _image(shot: Shot) -> str:
    return f"images/{shot.image_id}.jpg"


def _mask(shot: Shot) -> str:
    return f"masks/{shot.image_id}.png"


def _row(shot: Shot) -> dict[str, Any]:
    lesion = shot.lesion
    return {
        "image_id": shot.image_id,
        "path": _image(shot),
        "patient_id": lesion.patient.patient_id,
        "lesion_id": lesion.lesion_id,
        "captured_at": pd.Timestamp(shot.day),
        "site": lesion.patient.site,
        "mask_path": _mask(shot),
        "skin_type": lesion.patient.skin_type,
        "modality": "dermoscopy" if shot.dermoscopy else "clinical",
        "event": lesion.event,
        "time_to_event": float((lesion.end - shot.day).days),
        "diagnosis": lesion.diagnosis,
        "malignant": "malignant" if lesion.diagnosis in MALIGNANT else "benign",
        "signs": list(lesion.look.signs),
        "severity": lesion.look.severity,
        **shot.answers,
        "device": shot.device,
    }
