"""Do time per photo and memory stay flat as a data set grows? Each size runs in a process of its own.

    python benchmarks/scaling.py --sizes 1000,10000

A run makes ``n`` different JPEGs, then passes over them as users do: "cold" (hash, decode, write through, embed),
"views" (decode for training crops, two epochs of random views) and "warm" (features and pixels known). For each pass:
seconds per photo, and the peak of anonymous memory (RssAnon: what the process cannot give back; memory-mapped shards
are not in it). The targets: seconds per photo within 15 %, anonymous memory within 100 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_photos(folder: Path, numbers: range, width: int, height: int) -> list[Path]:
    """Write a photo for each number, no two alike."""
    folder.mkdir(parents=True)
    paths = []
    for i in numbers:
        rng = np.random.default_rng(i)
        small = rng.integers(60, 240, (height // 20, width // 20, 3), dtype=np.uint8)
        path = folder / f"{i:06d}.jpg"
        cv2.imwrite(str(path), cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
        paths.append(path)
    return paths


def anonymous_mb() -> float:
    """Return the anonymous memory of this process in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell RssAnon; the benchmark needs Linux")


class Peak:
    """Watches the anonymous memory while a block runs."""

    def __enter__(self) -> Peak:
        self.mb = anonymous_mb()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.mb = max(self.mb, anonymous_mb())

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()


def measure(n: int, encoder: str, width: int, height: int) -> dict[str, Any]:
    """Run the passes over ``n`` photos in this process."""
    from dermlab.data.augment import Augmentation
    from dermlab.data.loader import batches, epoch_order
    from dermlab.data.pixel_cache import PixelRecipe, open_pixels
    from dermlab.features.extract import embed_paths

    work = Path(os.environ["DERMLAB_CACHE"])
    embed_paths(
        make_photos(work / "first", range(10**6, 10**6 + 8), width, height), encoder
    )  # imports, weights, threads
    paths = make_photos(work / "photos", range(n), width, height)

    def views() -> None:
        pixels = open_pixels(paths, PixelRecipe(size_px=256, fit="short"))
        options: dict[str, Any] = {"mean": MEAN, "std": STD, "augment": Augmentation(size_px=224)}
        for epoch in range(2):
            for _batch, _kept in batches(pixels, epoch_order(n, seed=0, epoch=epoch), 32, epoch=epoch, **options):
                pass
        pixels.flush()

    passes: dict[str, Callable[[], object]] = {
        "cold": lambda: embed_paths(paths, encoder),
        "views": views,
        "warm": lambda: embed_paths(paths, encoder),
    }
    result: dict[str, Any] = {"n": n}
    for name, run in passes.items():
        start, start_cpu = time.perf_counter(), time.process_time()
        with Peak() as peak:
            run()
        result[name] = {
            "seconds_per_photo": (time.perf_counter() - start) / n,
            "cpu_seconds_per_photo": (time.process_time() - start_cpu) / n,  # tells a busy machine from a slow pass
            "anonymous_mb": round(peak.mb, 1),
        }
    return result


def main() -> None:
    """Measure every size in its own process and compare the largest with the smallest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,10000", help="numbers of photos, the smallest first")
    parser.add_argument("--encoder", default="efficientnet_lite0+random")
    parser.add_argument("--width", type=int, default=600)
    parser.add_argument("--height", type=int, default=450)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.encoder, options.width, options.height)))
        return
    runs = []
    for n in [int(size) for size in options.sizes.split(",")]:
        work = tempfile.mkdtemp(prefix="dermlab-benchmark-")
        try:
            command = [sys.executable, __file__, "--child", str(n), "--encoder", options.encoder]
            command += ["--width", str(options.width), "--height", str(options.height)]
            done = subprocess.run(
                command, env=os.environ | {"DERMLAB_CACHE": work}, stdout=subprocess.PIPE, text=True, check=True
            )
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        finally:
            shutil.rmtree(work, ignore_errors=True)
    print(f"{'photos':>8}  {'pass':<6}{'ms/photo':>10}{'CPU ms':>10}{'anonymous MB':>14}")
    for run in runs:
        for name in ("cold", "views", "warm"):
            found = run[name]
            wall, cpu = 1000 * found["seconds_per_photo"], 1000 * found["cpu_seconds_per_photo"]
            print(f"{run['n']:>8,}  {name:<6}{wall:>10.3f}{cpu:>10.3f}{found['anonymous_mb']:>14,.0f}")
    small, large = runs[0], runs[-1]
    change = {
        name: {
            "seconds_per_photo": round(large[name]["seconds_per_photo"] / small[name]["seconds_per_photo"], 3),
            "cpu_seconds_per_photo": round(
                large[name]["cpu_seconds_per_photo"] / small[name]["cpu_seconds_per_photo"], 3
            ),
            "anonymous_mb": round(large[name]["anonymous_mb"] - small[name]["anonymous_mb"], 1),
        }
        for name in ("cold", "views", "warm")
    }
    for name, found in change.items():
        times = (
            f"{found['seconds_per_photo']:.2f} × the time a photo ({found['cpu_seconds_per_photo']:.2f} × the CPU time)"
        )
        print(f"{name:<6} {times}, {found['anonymous_mb']:+.0f} MB")
    result = {"encoder": options.encoder, "runs": runs, "largest_against_smallest": change}
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
