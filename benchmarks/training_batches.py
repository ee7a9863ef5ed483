"""How fast an epoch of 224 px training batches is: dermlab's warm cache against the usual loaders, in one run.

    python benchmarks/training_batches.py --images 2000 --rounds 5
    python benchmarks/training_batches.py --photos FOLDER_OF_CLASS_FOLDERS

All give float32 batches of 32, normalised, in channels-last memory where they can, from random resized crops with flips
(the "plain" rows: the cached squares as they are). Two threads or two workers each; persistent workers; one epoch each
to warm up; then rounds in turn, so that a busy machine slows all of them; medians over the rounds.

litdata and webdataset hold the photos already resized (shorter side 256, JPEG at quality 90) and decode them; "bare" is
a numpy gather from an array in memory and torch's ``float()``, no normalising: the least that anybody can do.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, SHORT, BATCH, THREADS = 224, 256, 32, 2
SCALE = (0.35, 1.0)
WORKERS: dict[str, Any] = {"num_workers": THREADS, "persistent_workers": True, "multiprocessing_context": "fork"}

TRAIN = transforms.Compose(
    [
        transforms.RandomResizedCrop(SIZE, SCALE),
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
)


def make_photos(folder: Path, n: int, width: int = 1200, height: int = 900) -> None:
    """Write ``n`` synthetic photos with skin-like detail at JPEG quality 90, in two class folders."""
    for i in range(n):
        rng = np.random.default_rng(i)
        coarse = cv2.resize(rng.integers(80, 230, (12, 16, 3), dtype=np.uint8), (width, height), interpolation=2)
        fine = cv2.resize(rng.integers(-14, 15, (height // 2, width // 2, 3), dtype=np.int16), (width, height))
        path = folder / f"class_{i % 2}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(coarse + fine, 0, 255).astype(np.uint8)).save(path, quality=90)


def resized_jpeg(path: Path) -> bytes:
    """Return a photo with its shorter side at 256 pixels, as JPEG at quality 90."""
    buffer = io.BytesIO()
    image = transforms.Resize(SHORT, transforms.InterpolationMode.BICUBIC)(Image.open(path).convert("RGB"))
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def view_of(data: bytes) -> torch.Tensor:
    """Decode a resized photo and draw a view of it."""
    return TRAIN(Image.open(io.BytesIO(data)).convert("RGB"))


def count(batches: Any, n: int) -> None:
    """Run through an epoch and see that all photos came."""
    seen = 0
    for batch in batches:
        images = batch[0] if isinstance(batch, list | tuple) else batch
        assert images.shape[1:] == (3, SIZE, SIZE), images.shape
        assert images.dtype == torch.float32
        seen += len(images)
    assert seen == n, f"{seen} of {n} photos"


def torchvision_epoch(folder: Path, n: int) -> Callable[[int], None]:
    """ImageFolder and DataLoader."""
    loader = DataLoader(ImageFolder(folder, TRAIN), BATCH, shuffle=True, **WORKERS)
    return lambda epoch: count(loader, n)


def litdata_sample(data: tuple[int, bytes]) -> dict[str, Any]:
    """One record of the litdata data set."""
    return {"image": data[1], "label": data[0]}


def litdata_view(record: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """A view of one record of the litdata data set."""
    return view_of(record["image"]), record["label"]


def make_litdata(records: list[tuple[int, bytes]], work: Path, n: int) -> Callable[[int], None]:
    """StreamingDataset over optimised chunks of the resized JPEGs."""
    from litdata import StreamingDataLoader, StreamingDataset, optimize

    optimize(litdata_sample, records, str(work / "litdata"), chunk_bytes="64MB", num_workers=1, verbose=False)

    dataset = StreamingDataset(str(work / "litdata"), shuffle=True, drop_last=False, transform=litdata_view)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, **WORKERS)
    return lambda epoch: count(loader, n)


def make_webdataset(records: list[tuple[int, bytes]], work: Path, n: int) -> Callable[[int], None]:
    """WebLoader over tar files of the resized JPEGs, shuffled in a buffer."""
    import webdataset

    (work / "webdataset").mkdir()
    n_shards = 2 * THREADS
    for shard in range(n_shards):
        with webdataset.TarWriter(str(work / "webdataset" / f"{shard:04d}.tar")) as tar:
            for i in range(shard, len(records), n_shards):
                tar.write({"__key__": f"{i:06d}", "jpg": records[i][1], "cls": records[i][0]})
    urls = [str(path) for path in sorted((work / "webdataset").iterdir())]
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=False)
        .shuffle(1000)
        .to_tuple("jpg", "cls")
        .map_tuple(view_of, int)
        .batched(BATCH)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, **WORKERS)
    return lambda epoch: count(loader, n)


def make_bare(paths: list[Path], n: int) -> Callable[[int], None]:
    """Gather from an array in memory, convert to float: nothing else."""
    from dermlab.data.pixel_cache import PixelRecipe, open_pixels

    pixels = open_pixels(paths, PixelRecipe(size_px=SIZE), threads=THREADS)
    array = np.concatenate([pixels.batch(range(start, min(start + 256, n))) for start in range(0, n, 256)])

    def epoch(number: int) -> None:
        order = np.random.default_rng(number).permutation(n)

        def batches() -> Any:
            for start in range(0, n, BATCH):
                yield torch.from_numpy(array[order[start : start + BATCH]]).permute(0, 3, 1, 2).float()

        count(batches(), n)

    return epoch


def make_dermlab(paths: list[Path], n: int, *, augmented: bool) -> Callable[[int], None]:
    """``dermlab.data.loader.batches`` from a cache that is complete."""
    from dermlab.data.augment import Augmentation
    from dermlab.data.loader import batches, epoch_order
    from dermlab.data.pixel_cache import PixelRecipe, open_pixels

    recipe = PixelRecipe(size_px=SHORT, fit="short") if augmented else PixelRecipe(size_px=SIZE)
    pixels = open_pixels(paths, recipe, threads=THREADS)
    pixels.fill()
    augment = Augmentation(size_px=SIZE, crop_scale=SCALE) if augmented else None

    def epoch(number: int) -> None:
        order = epoch_order(n, seed=0, epoch=number)
        options: dict[str, Any] = {"mean": MEAN, "std": STD, "augment": augment, "epoch": number, "threads": THREADS}
        count(batches(pixels, order, BATCH, **options), n)

    return epoch


def main() -> None:
    """Make or find the photos, run every loader in turn, print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000, help="synthetic photos of 1200 × 900")
    parser.add_argument("--photos", type=Path, help="a folder of class folders of JPEGs instead")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    work = Path(tempfile.mkdtemp(prefix="dermlab-benchmark-"))
    os.environ["DERMLAB_CACHE"] = str(work / "cache")
    try:
        folder = options.photos
        if folder is None:
            folder = work / "photos"
            make_photos(folder, options.images)
        dataset = ImageFolder(folder)
        samples = [(Path(path), label) for path, label in dataset.samples]
        paths, n = [path for path, _ in samples], len(samples)
        records = [(label, resized_jpeg(path)) for path, label in samples]
        with Image.open(paths[0]) as first:
            described = f"{n} photos, the first {first.width} × {first.height}"
        epochs: dict[str, Callable[[int], None]] = {
            "dermlab, random views": make_dermlab(paths, n, augmented=True),
            "dermlab, plain": make_dermlab(paths, n, augmented=False),
            "bare gather + float": make_bare(paths, n),
            "torchvision ImageFolder + DataLoader": torchvision_epoch(folder, n),
        }
        for name, maker in (("litdata", make_litdata), ("webdataset", make_webdataset)):
            try:
                epochs[name] = maker(records, work, n)
            except ImportError:
                print(f"{name} is not installed: pip install {name}", file=sys.stderr)
        del records
        seconds: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(options.rounds + 1):
            for name, epoch in epochs.items():
                start = time.perf_counter()
                epoch(number)
                if number:
                    seconds[name].append(time.perf_counter() - start)
    finally:
        shutil.rmtree(work, ignore_errors=True)

    rates = {name: n / statistics.median(values) for name, values in seconds.items()}
    ours, plain = rates["dermlab, random views"], rates["dermlab, plain"]
    ratios = {"torchvision": ours / rates["torchvision ImageFolder + DataLoader"]}
    peers = [rates[name] for name in ("litdata", "webdataset") if name in rates]
    if peers:
        ratios["best of litdata and webdataset"] = ours / max(peers)
    ratios["bare gather + float, random views"] = ours / rates["bare gather + float"]
    ratios["bare gather + float, plain"] = plain / rates["bare gather + float"]
    result = {
        "photos": described,
        "rounds": options.rounds,
        "threads": THREADS,
        "images_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "seconds": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
        "dermlab_against": {name: round(ratio, 2) for name, ratio in ratios.items()},
    }
    print(described)
    for name, rate in rates.items():
        print(f"  {name:<40}{rate:>10,.0f} images/s")
    for name, ratio in ratios.items():
        print(f"  dermlab against {name:<38}{ratio:>8.2f} ×")
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
