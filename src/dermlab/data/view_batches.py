"""Batches of several views of each photo, as self-supervised pretraining looks at them.

On a CPU a batch's photos are shared out among threads, and OpenCV makes all views of a photo one after the other, in 8
bits, while it lies in the core's cache. To CUDA photos travel as uint8, and views are made there. Both follow the same
parameters: view ``v`` of photo ``i`` is drawn from ``(seed, epoch, i, v)`` and from nothing else.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from dermlab.data.augment import Augmentation, Views, draw, render_all
from dermlab.data.decode import available_cores
from dermlab.data.device_views import can_render, pack, render_batch
from dermlab.data.loader import BatchMemory, Normalise, await_arrival, one_core_each, without_failures
from dermlab.data.pixel_cache import Pixels

Made = tuple[list[torch.Tensor], np.ndarray]
"""A batch: (n, B, S, S, 3) of each kind of view, normalised, and the (B,) photos."""


@dataclass(frozen=True)
class _Kind:
    """Views drawn alike: they are drawn, made and normalised together."""

    augmentation: Augmentation
    numbers: np.ndarray

    def draw(self, images: Sequence[np.ndarray], chosen: np.ndarray, seed: int, epoch: int) -> Views:
        """Draw every photo's views, those of one photo side by side."""
        n, sizes = len(self.numbers), np.array([image.shape[:2] for image in images])
        return draw(
            self.augmentation,
            np.repeat(sizes, n, axis=0),
            np.repeat(chosen, n),
            seed=seed,
            epoch=epoch,
            view=np.tile(self.numbers, len(chosen)),
        )

    def shape(self, n_photos: int) -> tuple[int, ...]:
        size = self.augmentation.size_px
        return len(self.numbers), n_photos, size, size, 3


@dataclass(frozen=True)
class _Source:
    """Photos, and what is drawn for each in an epoch."""

    pixels: Pixels
    kinds: list[_Kind]
    seed: int
    epoch: int

    def fetch(self, asked: np.ndarray) -> tuple[list[np.ndarray], list[Views], np.ndarray]:
        """Return photos, their views of each kind, and which of those asked for these are."""
        images, chosen = without_failures(self.pixels, asked)
        if not images:
            return images, [], chosen
        return images, [kind.draw(images, chosen, self.seed, self.epoch) for kind in self.kinds], chosen


@dataclass(frozen=True)
class _InThreads:
    """OpenCV makes the views; several threads work on one batch, each on photos of its own."""

    source: _Source
    normalise: Normalise
    pool: ThreadPoolExecutor
    n_threads: int
    memory: BatchMemory

    def begin(self, asked: np.ndarray) -> Callable[[], Made]:
        """Share a batch out and return what waits for it; its tensors are parts of one piece of memory."""
        device = self.normalise.device
        shapes = [kind.shape(len(asked)) for kind in self.source.kinds]
        lengths = [math.prod(shape) for shape in shapes]
        if device.type == "cpu":
            whole = self.memory.take((sum(lengths),), self.normalise.dtype)
        else:
            whole = torch.empty(sum(lengths), dtype=torch.uint8, pin_memory=device.type == "cuda")
        made = [part.view(shape) for part, shape in zip(whole.split(lengths), shapes, strict=True)]
        edges = np.linspace(0, len(asked), min(self.n_threads, len(asked)) + 1).astype(int).tolist()
        parts = [
            self.pool.submit(self._fill, asked[a:b], [one[:, a:b] for one in made])
            for a, b in itertools.pairwise(edges)
        ]

        def end() -> Made:
            kept = [part.result() for part in parts]
            chosen, batch = np.concatenate(kept), made
            if len(chosen) < len(asked):
                places = [a + np.arange(len(found)) for a, found in zip(edges, kept, strict=False)]
                batch = [one[:, torch.from_numpy(np.concatenate(places))] for one in made]
            if device.type != "cpu" and len(chosen):
                batch = [self.normalise(one.flatten(0, 1)).permute(0, 2, 3, 1).view(one.shape) for one in batch]
            return batch, chosen

        return end

    def _fill(self, asked: np.ndarray, made: list[torch.Tensor]) -> np.ndarray:
        """Fill (n, photos, S, S, 3) of each kind, photos without an image left out; return which were not."""
        images, views, chosen = self.source.fetch(asked)
        # Worked on in small arrays, which stay in the core's own cache; the batch is written once and never read.
        scratch = [np.empty(kind.shape(1), np.uint8)[:, 0] for kind in self.source.kinds]
        numbers = [torch.empty(one.shape) for one in scratch]
        for place, image in enumerate(images):
            for drawn, rendered, values, batch in zip(views, scratch, numbers, made, strict=True):
                first, out = place * len(rendered), batch[:, place]
                if out.dtype == torch.uint8:  # to be normalised on its device
                    render_all(image, drawn, first, out.numpy())
                    continue
                render_all(image, drawn, first, rendered)
                values.copy_(torch.from_numpy(rendered))
                if out.dtype == torch.float32:
                    self.normalise.write(values, out)
                else:
                    self.normalise.write(values, values)
                    out.copy_(values)
        return chosen


@dataclass(frozen=True)
class _OnDevice:
    """Photos travel as they are cached; torch makes all views of a batch where the network is."""

    source: _Source
    normalise: Normalise
    pool: ThreadPoolExecutor

    def begin(self, asked: np.ndarray) -> Callable[[], Made]:
        """Fetch a batch's photos and draw its views in a thread, and return what then makes them."""
        is_cuda = self.normalise.device.type == "cuda"

        def fetch() -> tuple[torch.Tensor | None, list[np.ndarray], list[Views], np.ndarray]:
            images, views, chosen = self.source.fetch(asked)
            return pack(images, pinned=is_cuda) if images else None, images, views, chosen

        fetched = self.pool.submit(fetch)

        def end() -> Made:
            packed, images, views, chosen = fetched.result()
            if packed is None:
                return [], chosen
            photos = packed.to(self.normalise.device, non_blocking=is_cuda)
            sizes = np.array([image.shape[:2] for image in images])
            made = [render_batch(photos, sizes, one).permute(0, 1, 3, 4, 2) for one in views]
            for one in made:
                self.normalise.write(one, one)
            return [one.to(self.normalise.dtype) for one in made], chosen

        return end


def view_batches(
    pixels: Pixels,
    indices: Sequence[int] | np.ndarray,
    batch_size: int,
    augmentations: Sequence[Augmentation],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    epoch: int = 0,
    threads: int | None = None,
    prefetch: int = 1,
    device: torch.device | str = "cpu",
    on_device: bool | None = None,
) -> Iterator[tuple[list[torch.Tensor], np.ndarray]]:
    """Yield several views of each photo.

    Args:
        pixels: the photos, of any shapes; those not in the cache are decoded on the way.
        indices: (N,) which photos, in this order; see :func:`dermlab.data.loader.epoch_order`.
        batch_size: photos in a batch; the last one may be smaller.
        augmentations: what is drawn for each view; alike ones side by side are made together.
        mean: of the network's input, three channels, 0 to 1.
        std: of the network's input, three channels, 0 to 1.
        dtype: of the tensors.
        seed: of the views.
        epoch: the pass over the data, part of what the views are drawn from.
        threads: making views (default: the cores of this process).
        prefetch: batches made ahead.
        device: where the tensors are wanted.
        on_device: whether views are made there (default: on CUDA, unless an augmentation has operations, which only
            OpenCV makes).

    Yields:
        One (B, 3, S, S) tensor a view in channels-last memory, and the (B,) indices of its photos. Photos that hold no
        image are left out of both; ``pixels.failures`` has the reason.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    indices = np.asarray(indices, np.int64)
    kinds = []
    for augmentation, alike in itertools.groupby(enumerate(augmentations), key=lambda one: one[1]):
        kinds.append(_Kind(augmentation, np.array([number for number, _ in alike])))
    normalise = Normalise(mean, std, dtype=dtype, device=device)
    is_cuda = normalise.device.type == "cuda"
    if on_device is None:
        on_device = is_cuda and all(can_render(one) for one in augmentations)
    threads = threads or available_cores()
    stream = torch.cuda.Stream(normalise.device) if is_cuda else None
    pool = ThreadPoolExecutor(threads, thread_name_prefix="dermlab-views", initializer=one_core_each)
    source = _Source(pixels, kinds, seed, epoch)
    memory = BatchMemory(prefetch + 3)  # and one being made, one with the caller, one just let go of
    maker = _OnDevice(source, normalise, pool) if on_device else _InThreads(source, normalise, pool, threads, memory)
    pairs = itertools.pairwise([*range(0, len(indices), batch_size), len(indices)])
    ahead: deque[Callable[[], Made]] = deque()
    arriving: deque[tuple[list[torch.Tensor], np.ndarray, torch.cuda.Event | None]] = deque()
    try:
        while True:
            for start, end in itertools.islice(pairs, 1 + prefetch - len(ahead)):
                ahead.append(maker.begin(indices[start:end]))
            if ahead:
                with torch.cuda.stream(stream):  # of no effect without one
                    made, kept = ahead.popleft()()
                    views = [view.permute(0, 3, 1, 2) for kind in made for view in kind]
                    arriving.append((views, kept, stream.record_event() if stream is not None else None))
            if not arriving:
                return
            # On CUDA one batch is on its way while the network works on the one before.
            if stream is None or len(arriving) > 1 or not ahead:
                views, kept, arrived = arriving.popleft()
                await_arrival(views, arrived)
                if len(kept):
                    yield views, kept
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
