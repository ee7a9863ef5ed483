"""Batches for networks: cached pixels → views in threads → one scale and bias on the device, channels last.

No worker processes: everything heavy lets go of Python's lock, memory maps are shared, and a resume is exact because a
batch depends on nothing but its arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from dermlab.core.randomness import generator
from dermlab.data.augment import Augmentation, draw, render
from dermlab.data.decode import available_cores
from dermlab.data.pixel_cache import Pixels


class Normalise:
    """Turns a batch of pixels into what a network takes: ``(pixels / 255 - mean) / std`` by one scale and one bias.

    Args:
        mean: of the three channels, in the range 0 to 1.
        std: of the three channels, in the range 0 to 1.
        dtype: of the result; the arithmetic is float32 whatever it is.
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

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, H, W) in channels-last memory from (B, H, W, 3) uint8, or float32 pixels, which are reused."""
        batch, height, width, _ = pixels.shape
        pixels = pixels.to(self.device, non_blocking=True)
        # Rows of width × 3 numbers keep the inner loop long; three numbers at a time it is five times slower.
        rows = pixels.reshape(batch * height, width * 3)
        values = rows if rows.dtype == torch.float32 else rows.to(torch.float32)
        torch.addcmul(self._bias.repeat(width), values, self._scale.repeat(width), out=values)
        return values.to(self.dtype).view(batch, height, width, 3).permute(0, 3, 1, 2)


def batches(
    pixels: Pixels,
    indices: Sequence[int] | np.ndarray,
    batch_size: int,
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
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Yield batches of photos in the order of ``indices``, made a few ahead in threads.

    Args:
        pixels: the photos; those not in the cache are decoded on the way. Without ``augment`` all of one shape.
        indices: (N,) which photos, in this order; see :func:`epoch_order`.
        batch_size: photos in a batch; the last one may be smaller.
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

    Yields:
        (B, 3, S, S) tensor in channels-last memory, and the (B,) indices of its photos. Photos that hold no image are
        left out of both; ``pixels.failures`` has the reason.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    indices = np.asarray(indices, np.int64)
    device = torch.device(device)
    normalise = Normalise(mean, std, dtype=dtype, device=device)
    threads = threads or available_cores()
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def make(chosen: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        if augment is None:
            return _plain(pixels, chosen, pinned=stream is not None)
        return _augmented(pixels, chosen, augment, seed=seed, epoch=epoch, pinned=stream is not None)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="dermlab-batches")
    waiting: deque[Future[tuple[torch.Tensor, np.ndarray]]] = deque()
    starts = iter(range(0, len(indices), batch_size))

    def submit() -> None:
        for start in starts:
            waiting.append(pool.submit(make, indices[start : start + batch_size]))
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
                if arrived is not None:
                    arrived.wait(torch.cuda.current_stream(device))
                    batch.record_stream(torch.cuda.current_stream(device))
                yield batch, kept
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=False, cancel_futures=True)


def epoch_order(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return a shuffled order of ``n`` photos, (n,) int64, that depends on seed and epoch alone."""
    return generator(seed, "order", epoch).permutation(n)


def _upload(
    made: torch.Tensor, kept: np.ndarray, normalise: Normalise, stream: torch.cuda.Stream | None
) -> tuple[torch.Tensor, np.ndarray, torch.cuda.Event | None]:
    """Bring a batch to its device; on CUDA without waiting, and with the event that says when it is there."""
    if stream is None:
        return normalise(made), kept, None
    with torch.cuda.stream(stream):
        return normalise(made), kept, stream.record_event()


def _plain(pixels: Pixels, chosen: np.ndarray, *, pinned: bool) -> tuple[torch.Tensor, np.ndarray]:
    size = pixels.recipe.size_px
    made = torch.empty((len(chosen), size, size, 3), dtype=torch.uint8, pin_memory=pinned)
    pixels.batch(chosen, out=made.numpy())
    return _without_failures(pixels, chosen, made)


def _augmented(
    pixels: Pixels, chosen: np.ndarray, augment: Augmentation, *, seed: int, epoch: int, pinned: bool
) -> tuple[torch.Tensor, np.ndarray]:
    images = pixels.images(chosen)
    sizes = np.array([image.shape[:2] for image in images])
    views = draw(augment, sizes, chosen, seed=seed, epoch=epoch)
    # On a CPU the views stay unrounded: OpenCV resizes float32 faster, and it is what the arithmetic needs next.
    dtype = torch.uint8 if pinned else torch.float32
    made = torch.empty((len(chosen), augment.size_px, augment.size_px, 3), dtype=dtype, pin_memory=pinned)
    for place, (image, out) in enumerate(zip(images, made.numpy(), strict=True)):
        render(image, views, place, out)
    return _without_failures(pixels, chosen, made)


def _without_failures(pixels: Pixels, chosen: np.ndarray, made: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    if not pixels.failures:
        return made, chosen
    good = np.array([index not in pixels.failures for index in chosen.tolist()])
    return (made, chosen) if good.all() else (made[torch.from_numpy(good)], chosen[good])
