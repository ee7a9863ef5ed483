"""Photos to vectors: what the store knows is read, what it does not know is computed once and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermlab.core.device import Runtime, resolve
from dermlab.core.errors import DermlabError, InputError
from dermlab.core.progress import progress
from dermlab.data.pixel_cache import PixelRecipe, Pixels, open_pixels, resize
from dermlab.features import histogram
from dermlab.features.store import open_store

if TYPE_CHECKING:
    import torch

    from dermlab.data.dataset import Dataset
    from dermlab.models.encoders import Encoder

# Larger batches gain nothing on a CPU, where a batch of 32 already fills the caches; a GPU wants more at a time.
BATCH_SIZES = {"cpu": 32, "mps": 32, "cuda": 128}

GATHERED_AT_ONCE = 1024  # known vectors: beside the result itself memory must not grow with their number

Computed = Iterator[tuple[np.ndarray, np.ndarray]]  # (B,) indices and their (B, D) float32 vectors


@dataclass(frozen=True)
class Features:
    """The vectors of N photos.

    Attributes:
        values: (N, D) float32; rows of photos that hold no image are zero.
        valid: (N,) whether the row is a photo's.
        failures: index → reason of the rows that are not.
        encoder: name, fingerprint, dim, licence_card, lineage, preprocess, …
        seconds: how long it took.
        n_computed: photos that went through the encoder, the others were known.
        images_per_second: of those that were computed; 0 where none was.
    """

    values: np.ndarray
    valid: np.ndarray
    failures: dict[int, str]
    encoder: dict[str, Any]
    seconds: float
    n_computed: int
    images_per_second: float
    runtime: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Extractor:
    """A way from pixels to vectors: what it is, the pixels it wants, and the work."""

    description: dict[str, Any]
    recipe: PixelRecipe
    runtime: Runtime
    compute: Callable[[Pixels, np.ndarray], Computed]
    compute_arrays: Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]


def embed(
    dataset: Dataset,
    encoder_name: str,
    *,
    runtime: Runtime | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    size_px: int | None = None,
    fit: str | None = None,
    seed: int = 0,
) -> Features:
    """Return the features of a data set's photos, in the order of its manifest.

    Args:
        dataset: whose photos.
        encoder_name: any name of :func:`dermlab.models.create_encoder`, or ``"histogram"``.
        runtime: device and precision (default: :func:`dermlab.core.device.resolve`).
        batch_size: photos at a time (default: by device).
        threads: decoding threads (default: the cores of this process).
        size_px: another input size than the encoder's own.
        fit: another fit than the encoder's own.
        seed: of random weights.

    Raises:
        InputError: no such encoder, its weights are not its own, or the batch does not fit.
        MissingWeightsError: its weights are not here.
    """
    return embed_paths(
        dataset.paths,
        encoder_name,
        runtime=runtime,
        batch_size=batch_size,
        threads=threads,
        size_px=size_px,
        fit=fit,
        seed=seed,
    )


def embed_paths(
    paths: Sequence[Path],
    encoder_name: str,
    *,
    runtime: Runtime | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    size_px: int | None = None,
    fit: str | None = None,
    seed: int = 0,
) -> Features:
    """Return the features of photos by path; the arguments are those of :func:`embed`.

    Features are kept by the photos' content, so a copied, renamed or repeated photo costs nothing, and one new photo
    among thousands costs one.
    """
    start = time.monotonic()
    extractor = _extractor(encoder_name, runtime, batch_size, threads, size_px, fit, seed)
    pixels = open_pixels(paths, extractor.recipe, threads=threads)
    keys = pixels.content_hashes
    values = np.zeros((len(pixels), extractor.description["dim"]), np.float32)
    valid = np.zeros(len(pixels), bool)
    n_computed, computing = 0, 0.0
    with open_store(extractor.description, extractor.runtime) as store:
        rows = store.rows(keys)
        known = np.flatnonzero(store.intact(rows))
        for first in range(0, len(known), GATHERED_AT_ONCE):
            part = known[first : first + GATHERED_AT_ONCE]
            values[part] = store.gather(rows[part])
        valid[known] = True
        same = _positions(keys, np.flatnonzero(~valid), pixels.failures)
        todo = np.array([positions[0] for positions in same.values()], np.int64)
        if len(todo):
            began = time.monotonic()
            with progress(f"embed {extractor.description['name']}", len(todo)) as advance:
                for indices, vectors in extractor.compute(pixels, todo):
                    for index, vector in zip(indices.tolist(), vectors, strict=True):
                        store.append(keys[index], vector)
                        values[same[keys[index]]] = vector
                        valid[same[keys[index]]] = True
                    n_computed += len(indices)
                    advance(len(indices))
            computing = time.monotonic() - began
            pixels.flush()
    failures = {i: pixels.failures.get(i, "holds no image") for i in np.flatnonzero(~valid).tolist()}
    return Features(
        values=values,
        valid=valid,
        failures=failures,
        encoder=extractor.description,
        seconds=time.monotonic() - start,
        n_computed=n_computed,
        images_per_second=n_computed / computing if computing > 0 else 0.0,
        runtime=extractor.runtime.to_dict(),
    )


def embed_arrays(
    images: Iterable[np.ndarray],
    encoder_name: str,
    *,
    runtime: Runtime | None = None,
    batch_size: int | None = None,
    size_px: int | None = None,
    fit: str | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Return the features (N, D) float32 of images in memory; nothing is read from or written to the store.

    Args:
        images: N arrays (H, W, 3) uint8 RGB, of any sizes.
        encoder_name: as for :func:`embed`, which describes the other arguments too.
        runtime: device and precision.
        batch_size: images at a time.
        size_px: another input size than the encoder's own.
        fit: another fit than the encoder's own.
        seed: of random weights.
    """
    parts = list(
        embed_stream(images, encoder_name, runtime=runtime, batch_size=batch_size, size_px=size_px, fit=fit, seed=seed)
    )
    if parts:
        return np.concatenate(parts)
    extractor = _extractor(encoder_name, runtime, batch_size, None, size_px, fit, seed)
    return np.zeros((0, extractor.description["dim"]), np.float32)


def embed_stream(
    images: Iterable[np.ndarray],
    encoder_name: str,
    *,
    runtime: Runtime | None = None,
    batch_size: int | None = None,
    size_px: int | None = None,
    fit: str | None = None,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Yield the features of :func:`embed_arrays`, batch by batch, (B, D) float32, as the images come."""
    from PIL import Image

    extractor = _extractor(encoder_name, runtime, batch_size, None, size_px, fit, seed)
    n_at_once = batch_size or _batch_size(extractor.runtime)

    def batches() -> Iterator[np.ndarray]:
        batch: list[np.ndarray] = []
        for image in images:
            batch.append(resize(Image.fromarray(image), extractor.recipe))
            if len(batch) == n_at_once:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)

    yield from extractor.compute_arrays(batches())


def encode(
    encoder: Encoder,
    pixels: Pixels,
    indices: np.ndarray,
    *,
    runtime: Runtime,
    batch_size: int | None = None,
    threads: int | None = None,
) -> Computed:
    """Yield the vectors of cached photos, batch by batch, while the next batches are made in threads.

    Args:
        encoder: its weights are moved to the runtime's device and left there; its mode is not touched.
        pixels: photos under the encoder's own recipe.
        indices: (N,) which photos.
        runtime: device and precision.
        batch_size: photos at a time.
        threads: making batches.

    Yields:
        (B,) indices and (B, D) float32 vectors. Photos that hold no image are left out.

    Raises:
        DermlabError: vectors that are not finite, or a batch that does not fit into the device's memory.
    """
    from dermlab.data.loader import batches

    batch_size = batch_size or _batch_size(runtime)
    stream = batches(
        pixels,
        indices,
        batch_size,
        mean=encoder.preprocess.mean,
        std=encoder.preprocess.std,
        threads=threads,
        device=runtime.device,
    )
    kept: list[np.ndarray] = []

    def images() -> Iterator[torch.Tensor]:
        for batch, chosen in stream:
            kept.append(chosen)
            yield batch

    for vectors in _forward(encoder, images(), runtime, batch_size):
        yield kept.pop(0), vectors


def _forward(
    encoder: Encoder, images: Iterator[torch.Tensor], runtime: Runtime, batch_size: int
) -> Iterator[np.ndarray]:
    """Run batches through an encoder.

    The contexts are left before each result is handed on: whoever takes it must not find himself without gradients.
    That the weights are cast anew for every batch costs little beside the batch.
    """
    import torch

    from dermlab.models.inference import for_inference

    network = for_inference(encoder, runtime, encoder.preprocess.size_px)
    while True:
        try:
            batch = next(images, None)
            if batch is None:
                return
            with torch.inference_mode(), runtime.autocast():
                vectors = network(batch).float().cpu().numpy()
        except torch.OutOfMemoryError:
            raise DermlabError(
                f"encoder {encoder.name}: a batch of {batch_size} does not fit into the memory of "
                f"{runtime.device}; --batch_size {max(1, batch_size // 2)} needs half"
            ) from None
        if not np.isfinite(vectors).all():
            raise DermlabError(
                f"encoder {encoder.name}: gave values that are not finite in {runtime.precision}"
                + ("" if runtime.precision == "fp32" else "; --precision fp32 may help")
            )
        yield vectors


def _extractor(
    name: str,
    runtime: Runtime | None,
    batch_size: int | None,
    threads: int | None,
    size_px: int | None,
    fit: str | None,
    seed: int,
) -> _Extractor:
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size: must be at least 1, not {batch_size}")
    if name == histogram.NAME:
        return _histogram_extractor(batch_size or BATCH_SIZES["cpu"])
    from dermlab.models.names import parse_name

    if parse_name(name).library in ("endpoint", "savedmodel"):
        return _service_extractor(name, size_px, fit)
    from dermlab.models.encoders import create_encoder, recall_encoder

    chosen = runtime or resolve()
    identity = recall_encoder(name, seed=seed, size_px=size_px, fit=fit)
    built: list[Encoder] = []

    def encoder() -> Encoder:
        if not built:
            built.append(create_encoder(name, seed=seed, size_px=size_px, fit=fit)[0])
        return built[0]

    # Where every photo is known the network is never built: its identity is remembered by its file.
    identity = identity or encoder().identity

    def compute(pixels: Pixels, indices: np.ndarray) -> Computed:
        return encode(encoder(), pixels, indices, runtime=chosen, batch_size=batch_size, threads=threads)

    def compute_arrays(batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        import torch

        from dermlab.data.loader import Normalise

        network = encoder()
        normalise = Normalise(network.preprocess.mean, network.preprocess.std, device=chosen.device)
        images = (normalise(torch.from_numpy(batch)) for batch in batches)
        return _forward(network, images, chosen, batch_size or _batch_size(chosen))

    return _Extractor(identity.to_dict(), identity.preprocess.recipe(), chosen, compute, compute_arrays)


def _service_extractor(name: str, size_px: int | None, fit: str | None) -> _Extractor:
    """Give the photos to another process or machine, which returns their vectors."""
    from dermlab.models.remote import open_service

    service = open_service(name, size_px=size_px, fit=fit)

    def compute(pixels: Pixels, indices: np.ndarray) -> Computed:
        service.announce(len(indices))
        for start in range(0, len(indices), service.batch_size):
            chosen = indices[start : start + service.batch_size]
            batch = pixels.batch(chosen)
            good = np.array([index not in pixels.failures for index in chosen.tolist()], bool)
            if good.any():
                yield chosen[good], service.embed(batch[good])

    return _Extractor(
        service.identity.to_dict(),
        service.identity.preprocess.recipe(),
        Runtime(device="cpu", precision="fp32", reason="the network runs elsewhere"),
        compute,
        lambda batches: (service.embed(batch) for batch in batches),
    )


def _histogram_extractor(batch_size: int) -> _Extractor:
    def compute(pixels: Pixels, indices: np.ndarray) -> Computed:
        for start in range(0, len(indices), batch_size):
            chosen = indices[start : start + batch_size]
            vectors = histogram.color_histogram(pixels.batch(chosen))
            good = np.array([index not in pixels.failures for index in chosen.tolist()], bool)
            yield chosen[good], vectors[good]

    runtime = Runtime(device="cpu", precision="fp32", reason="counting needs no network")
    return _Extractor(
        histogram.describe(),
        histogram.RECIPE,
        runtime,
        compute,
        lambda batches: (histogram.color_histogram(batch) for batch in batches),
    )


def _batch_size(runtime: Runtime) -> int:
    return BATCH_SIZES.get(runtime.device.partition(":")[0], 32)


def _positions(keys: Sequence[str], indices: np.ndarray, failures: dict[int, str]) -> dict[str, list[int]]:
    """Return the positions of each content among ``indices``; photos known to hold no image are left out."""
    same: dict[str, list[int]] = {}
    for index in indices.tolist():
        if index not in failures and keys[index]:
            same.setdefault(keys[index], []).append(index)
    return same
