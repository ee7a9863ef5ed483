"""How fast `embed` is: against the bare network on tensors in memory, and against timm's plain loop, in one run.

    python benchmarks/embed.py --images 1000 --rounds 5
    python benchmarks/embed.py --photos FOLDER --encoders clip_vit_b16 --json embed.json

For each encoder, in turn, so that a busy machine slows all of them alike; medians over the rounds:

bare    `encoder(batch)` over tensors in memory: channels last, this device's own precision, the fastest of three batch
        sizes. Nothing is read, decoded, normalised or kept: the most that anybody could reach.
warm    `embed` with the pixels cached: gather, normalise, encode, keep the features.
cold    `embed` on files never seen: hash, decode, resize, cache the pixels, encode, keep the features.
known   `embed` where every photo is in the store already.
timm    a plain loop: open the JPEG, timm's transform, batches of 32, fp32, no autocast.

Then how well the features in the device's precision agree with fp32.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

BATCH_SIZES = (16, 32, 64)


def bare(name: str, runtime: Any, n: int, batch_size: int) -> Callable[[], None]:
    """The network alone on one batch in memory, over and over until it has seen n images."""
    from dermlab.models import create_encoder

    encoder, preprocess = create_encoder(name)
    encoder.to(memory_format=torch.channels_last)
    side = preprocess.size_px
    images = torch.randn(batch_size, 3, side, side).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode(), runtime.autocast():
            for _ in range(n // batch_size):
                encoder(images)
            if n % batch_size:
                encoder(images[: n % batch_size])

    return run


def timm_loop(name: str, paths: list[Path]) -> Callable[[], None]:
    """What a notebook does: open, transform, stack, run."""
    from timm.data import create_transform, resolve_model_data_config

    from dermlab.models import create_encoder

    network = create_encoder(name)[0].network
    transform = create_transform(**resolve_model_data_config(network))

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, len(paths), 32):
                batch = torch.stack([transform(Image.open(p).convert("RGB")) for p in paths[start : start + 32]])
                network(batch)

    return run


def seconds(run: Callable[[], None]) -> float:
    """Time one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(name: str, paths: list[Path], rounds: int, n_timm: int) -> dict[str, Any]:
    """Measure one encoder and return images per second, ratios and agreement."""
    from dermlab.core.device import Runtime, resolve
    from dermlab.core.folders import cache_root
    from dermlab.features import embed_paths

    runtime, n = resolve("cpu"), len(paths)
    features = cache_root() / "features"

    def embed(forget: tuple[Path, ...]) -> Callable[[], None]:
        def run() -> None:
            embed_paths(paths, name, runtime=runtime)

        def forgetting() -> None:
            for folder in forget:
                shutil.rmtree(folder, ignore_errors=True)

        run.before = forgetting  # type: ignore[attr-defined]
        return run

    tried = {size: seconds(bare(name, runtime, 2 * size, size)) / (2 * size) for size in BATCH_SIZES}
    best = min(tried, key=lambda size: tried[size])
    contenders: dict[str, tuple[Callable[[], None], int]] = {
        "cold": (embed((features, cache_root() / "pixels")), n),
        "warm": (embed((features,)), n),
        "bare": (bare(name, runtime, n, best), n),
        "known": (embed(()), n),
        "timm": (timm_loop(name, paths[:n_timm]), min(n, n_timm)),
    }
    rates: dict[str, list[float]] = {label: [] for label in contenders}
    for _ in range(rounds):
        for label, (run, count) in contenders.items():
            getattr(run, "before", lambda: None)()
            rates[label].append(count / seconds(run))
    median = {label: statistics.median(values) for label, values in rates.items()}
    chosen = embed_paths(paths, name, runtime=runtime).values
    exact = embed_paths(paths, name, runtime=Runtime("cpu", "fp32", "the measure")).values
    cosine = (chosen * exact).sum(1) / np.linalg.norm(chosen, axis=1) / np.linalg.norm(exact, axis=1)
    return {
        "encoder": name,
        "precision": runtime.precision,
        "n": n,
        "batch_size_bare": best,
        "images_per_second": median,
        "rounds": rates,
        "warm_over_bare": statistics.median(w / b for w, b in zip(rates["warm"], rates["bare"], strict=True)),
        "cold_over_bare": statistics.median(c / b for c, b in zip(rates["cold"], rates["bare"], strict=True)),
        "cold_over_timm": statistics.median(c / t for c, t in zip(rates["cold"], rates["timm"], strict=True)),
        "warm_over_timm": statistics.median(w / t for w, t in zip(rates["warm"], rates["timm"], strict=True)),
        "cosine_to_fp32_median": float(np.median(cosine)),
        "cosine_to_fp32_p01": float(np.quantile(cosine, 0.01)),
    }


def main() -> None:
    """Measure and print a table; with ``--json`` also write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEGs (default: synthetic ones, 1200 × 900)")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--encoders", default="efficientnet_lite0,clip_vit_b16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timm_images", type=int, default=128, help="photos of timm's loop, whose rate is flat")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as work:
        os.environ["DERMLAB_CACHE"] = str(Path(work) / "cache")
        folder = options.photos
        if folder is None:
            from training_batches import make_photos

            folder = Path(work) / "photos"
            make_photos(folder, options.images)
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        paths = paths[: options.images]
        results = []
        print(f"{len(paths)} photos of {options.photos or 'synthetic 1200 × 900'}, {options.threads} threads")
        head = (
            "encoder",
            "bare",
            "warm",
            "cold",
            "known",
            "timm",
            "warm/bare",
            "cold/bare",
            "cold/timm",
            "cosine",
            "p01",
        )
        print(" ".join(f"{column:>10}" for column in head).replace("   encoder", "encoder   ", 1))
        for name in options.encoders.split(","):
            found = compare(name, paths, options.rounds, options.timm_images)
            results.append(found)
            rate = found["images_per_second"]
            numbers = [f"{rate[label]:,.1f}" for label in ("bare", "warm", "cold", "known", "timm")]
            numbers += [f"{found[key]:.2f}" for key in ("warm_over_bare", "cold_over_bare", "cold_over_timm")]
            numbers += [f"{found[key]:.5f}" for key in ("cosine_to_fp32_median", "cosine_to_fp32_p01")]
            print(f"{name:<10} " + " ".join(f"{number:>10}" for number in numbers), flush=True)
    if options.json is not None:
        from dermlab.core.device import environment
        from dermlab.core.files import write_json

        write_json(options.json, {"environment": environment(), "results": results})


if __name__ == "__main__":
    sys.exit(main())
