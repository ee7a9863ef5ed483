"""Batches for networks: cached pixels → views in threads → one scale and bias on the device, channels last.

No worker processes: everything heavy lets go of Python's lock, memory maps are shared, and a resume is exact because a
batch depends on nothing but its arguments.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np
import threadpoolctl
import torch

from dermlab.core.randomness import generator
from dermlab.data.augment import MINKOWSKI, Augmentation, Views, draw, illuminant_gains, rebalance, render
from dermlab.data.decode import available_cores
from dermlab.data.pixel_cache import Pixels


class Normalise:
    """Turns pixels into what a network takes: ``(pixels / 255 - mean) / std`` by one scale and one bias, in float32.

    Args:
        mean: of the three channels, in the range 0 to 1.
        std: of the three channels, in the range 0 to 1.
        dtype: of the result.
        device: where the arithmetic happens; a batch moves there as uint8 first, a quarter of the bytes.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.dtype = dtype
        self.device = torch.device(device)
        mean64, std64 = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self._scale = (1 / (255 * std64)).float().to(self.device)
        self._bias = (-mean64 / std64).float().to(self.device)
        self._row: tuple[torch.Tensor, torch.Tensor] = (self._scale, self._bias)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, H, W) in channels-last memory from (B, H, W, 3) uint8."""
        # Only CUDA keeps its source alive until the copy is done; MPS may read memory that was given to others.
        values = pixels.to(self.device, non_blocking=self.device.type == "cuda").to(torch.float32)
        self.write(values, values)
        return values.to(self.dtype).permute(0, 3, 1, 2)

    def write(self, values: torch.Tensor, out: torch.Tensor) -> None:
        """Normalise float32 pixels (..., W, 3), each row contiguous, into ``out``, which may be the same."""
        # Rows of width × 3 numbers keep the inner loop long; three numbers at a time it is five times slower.
        length = values.shape[-2] * 3
        shape = (*values.shape[:-2], length)
        scale, bias = self._row
        if len(scale) != length:
            scale, bias = self._scale.repeat(length // 3), self._bias.repeat(length // 3)
            self._row = scale, bias
        torch.addcmul(bias, values.view(shape), scale, out=out.view(shape))


def batches(
    pixels: Pixels,
    indices: Sequence[int] | np.ndarray,
    batch_size: int | Sequence[int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    augment: Augmentation | None = None,
    seed: int = 0,
    epoch: int = 0,
    threads: int | None = None,
    prefetch: int = 2,
    device: torch.device | str = "cpu",
    occurrences: np.ndarray | None = None,
    gains: np.ndarray | None = None,
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Yield batches of photos in the order of ``indices``, made a few ahead in threads.

    Args:
        pixels: the photos; those not in the cache are decoded on the way. Without ``augment`` all of one shape.
        indices: (N,) which photos, in this order; see :func:`epoch_order`.
        batch_size: photos in a batch; the last one may be smaller. Or the size of each batch in turn.
        mean: of the network's input, three channels, 0 to 1.
        std: of the network's input, three channels, 0 to 1.
        dtype: of the tensors.
        augment: random views of the photos; None gives them as they are.
        seed: of the views.
        epoch: the pass over the data, part of what the views are drawn from.
        threads: making batches (default: the cores of this process).
        prefetch: batches made ahead beyond one a thread.
        device: where the tensors are wanted. To CUDA pixels travel as uint8 from pinned memory, on a stream of their
            own.
        occurrences: (N,) which view of its photo each place takes, for orders that name a photo several times.
        gains: float64 (photos of ``pixels``, 3), by which each photo's channels are multiplied before anything else;
            see :func:`dermlab.data.augment.illuminant_gains`.

    Yields:
        (B, 3, S, S) tensor in channels-last memory, and the (B,) indices of its photos. Photos that hold no image are
        left out of both; ``pixels.failures`` has the reason.
    """
    if isinstance(batch_size, int) and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if augment is None and pixels.recipe.fit == "short":
        raise ValueError("photos of a 'short' recipe differ in shape: batches of them need an augmentation")
    indices = np.asarray(indices, np.int64)
    if isinstance(batch_size, int):
        edges = [*range(0, len(indices), batch_size), len(indices)]
    else:
        edges = np.cumsum([0, *batch_size]).tolist()
    normalise = Normalise(mean, std, dtype=dtype, device=device)
    device = normalise.device
    threads = threads or available_cores()
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    memory = BatchMemory(threads + prefetch + 2)  # and one with the caller, one just let go of

    def make(start: int, end: int) -> tuple[torch.Tensor, np.ndarray]:
        asked = indices[start:end]
        images, chosen = without_failures(pixels, asked)
        if gains is not None:
            images = [rebalance(image, gains[index]) for image, index in zip(images, chosen.tolist(), strict=True)]
        view = 0 if occurrences is None else occurrences[start:end][np.isin(asked, chosen)]
        views = None
        if augment is not None and images:
            sizes = np.array([image.shape[:2] for image in images])
            views = draw(augment, sizes, chosen, seed=seed, epoch=epoch, view=view)
        size = pixels.recipe.size_px if augment is None else augment.size_px
        shape = (len(images), size, size, 3)
        if device.type != "cpu":
            made = torch.empty(shape, dtype=torch.uint8, pin_memory=stream is not None)
            return _as_pixels(images, views, made), chosen
        return _as_numbers(images, views, memory.take(shape, dtype), normalise), chosen

    pool = ThreadPoolExecutor(threads, thread_name_prefix="dermlab-batches", initializer=one_core_each)
    waiting: deque[Future[tuple[torch.Tensor, np.ndarray]]] = deque()
    pairs = itertools.pairwise(edges)

    def submit() -> None:
        for start, end in pairs:
            waiting.append(pool.submit(make, start, end))
            if len(waiting) >= threads + prefetch:
                return

    uploaded: deque[tuple[torch.Tensor, np.ndarray, torch.cuda.Event | None]] = deque()
    try:
        submit()
        while waiting or uploaded:
            if waiting:
                made, kept = waiting.popleft().result()
                submit()
                if len(kept):
                    uploaded.append(_upload(made, kept, normalise, stream))
            # On CUDA one batch is on its way while the network works on the one before.
            if uploaded and (stream is None or len(uploaded) > 1 or not waiting):
                batch, kept, arrived = uploaded.popleft()
                await_arrival([batch], arrived)
                yield batch, kept
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=False, cancel_futures=True)


def await_arrival(tensors: Sequence[torch.Tensor], arrived: torch.cuda.Event | None) -> None:
    """Let the network's stream wait for what another one brings, and keep that memory until the network is done."""
    if arrived is None:
        return
    for tensor in tensors:
        current = torch.cuda.current_stream(tensor.device)
        arrived.wait(current)
        tensor.record_stream(current)


class BatchMemory:
    """Memory for batches, used again when nobody holds a tensor over it any more.

    Fresh memory costs a page fault every 4 kB, which for a batch is as long as filling it.
    """

    def __init__(self, n_kept: int) -> None:
        self._n_kept = n_kept
        self._blocks: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return an uninitialised tensor."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if not n_bytes:  # a batch none of whose photos holds an image
            return torch.empty(shape, dtype=dtype)
        with self._lock:
            for place in range(len(self._blocks)):
                # A tensor over the block, or a view of it, would hold a reference besides the list's and this call's.
                if self._blocks[place].nbytes >= n_bytes and sys.getrefcount(self._blocks[place]) == 2:
                    block = self._blocks[place]
                    break
            else:
                block = np.empty(n_bytes, np.uint8)  # numpy asks for huge pages, torch does not
                if len(self._blocks) < self._n_kept:
                    self._blocks.append(block)
            return torch.from_numpy(block)[:n_bytes].view(dtype).view(shape)


def photo_gains(pixels: Pixels, rows: np.ndarray, kind: str, threads: int | None = None) -> np.ndarray:
    """Return what colour constancy multiplies the channels of some photos by, float64 (photos of ``pixels``, 3).

    Args:
        pixels: the photos; the light is estimated on them as they are cached.
        rows: whose factors are wanted; those of all others are 1.
        kind: of :data:`dermlab.data.augment.MINKOWSKI`.
        threads: default: the cores of this process.
    """
    gains = np.ones((len(pixels), 3))

    def estimate(part: np.ndarray) -> None:
        images, chosen = without_failures(pixels, part)
        for image, index in zip(images, chosen.tolist(), strict=True):
            gains[index] = illuminant_gains(image, MINKOWSKI[kind])

    with ThreadPoolExecutor(threads or available_cores(), thread_name_prefix="dermlab-gains") as pool:
        list(pool.map(estimate, np.array_split(rows, max(1, len(rows) // 256))))
    return gains


def epoch_order(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return a shuffled order of ``n`` photos, (n,) int64, that depends on seed and epoch alone."""
    return generator(seed, "order", epoch).permutation(n)


def without_failures(pixels: Pixels, chosen: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the photos among those chosen that hold an image, and which these are."""
    images = pixels.images(chosen)
    if not pixels.failures:
        return images, chosen
    good = [index not in pixels.failures for index in chosen.tolist()]
    return [image for image, is_good in zip(images, good, strict=True) if is_good], chosen[good]


def _as_pixels(images: list[np.ndarray], views: Views | None, made: torch.Tensor) -> torch.Tensor:
    """Fill a uint8 batch (B, S, S, 3), to be normalised on its device."""
    for place, (image, out) in enumerate(zip(images, made.numpy(), strict=True)):
        if views is None:
            out[...] = image
        else:
            render(image, views, place, out)
    return made


def _as_numbers(
    images: list[np.ndarray], views: Views | None, made: torch.Tensor, normalise: Normalise
) -> torch.Tensor:
    """Fill a normalised batch photo by photo and return it as (B, 3, S, S).

    Each photo is worked on in one small array, which stays in the core's own cache; the batch, which does not, is
    written once and never read.
    """
    scratch = torch.empty(made.shape[1:], dtype=torch.float32)
    pixels = scratch.numpy()
    for place, image in enumerate(images):
        if views is None:
            pixels[...] = image
        else:
            # float32 straight away: it spares a rounding, and OpenCV resizes it faster than uint8.
            render(image, views, place, pixels)
        if made.dtype == torch.float32:
            normalise.write(scratch, made[place])
        else:
            normalise.write(scratch, scratch)
            made[place] = scratch
    return made.permute(0, 3, 1, 2)


def _upload(
    made: torch.Tensor, kept: np.ndarray, normalise: Normalise, stream: torch.cuda.Stream | None
) -> tuple[torch.Tensor, np.ndarray, torch.cuda.Event | None]:
    """Bring a batch to its device; on CUDA without waiting, and with the event that says when it is there."""
    if stream is not None:
        with torch.cuda.stream(stream):
            return normalise(made), kept, stream.record_event()
    return (made if made.dtype != torch.uint8 else normalise(made)), kept, None


@cache
def _thread_pools() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()  # looks through all loaded libraries: once is enough


def one_core_each() -> None:
    """Keep torch's operations in this thread from spreading over the cores that the other threads and the model use."""
    torch.get_num_threads()  # torch sets a thread's number at its first question; afterwards it stays as set here
    _thread_pools().limit(limits=1, user_api="openmp")
