"""Views for pretraining: dermlab's against lightly's DINOTransform, from the same decoded photos; CPU time, one thread.

    pip install 'dermlab[pretrain]'
    python benchmarks/views.py --images 64 --rounds 5

Both make 2 global views of 224 px and 8 local ones of 96 px as normalised float32 tensors. Once with lightly's own
distributions (no rotation, everyday colour jitter), and once with what dermlab draws for skin. lightly resizes by
bicubic interpolation with antialiasing and dermlab by bilinear, so means and spreads are compared, not pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHORT, BATCH = 256, 32
GLOBAL_SCALE, LOCAL_SCALE = (0.4, 1.0), (0.05, 0.4)
# What DINOTransform() draws: colour jitter at half strength, and neither vertical flips nor rotation.
LIGHTLYS: dict[str, Any] = {
    "jitter": 0.8,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.2,
    "hue": 0.1,
    "greyscale": 0.2,
    "vertical_flip": 0.0,
    "rotation_degrees": 0.0,
}


def make_photos(folder: Path, n: int) -> list[Path]:
    """Write ``n`` photos of 400 × 300 with a dark blot on skin, as PNG."""
    rows, columns = np.mgrid[:300, :400]
    paths = []
    for i in range(n):
        rng = np.random.default_rng(i)
        skin = np.array([215, 170, 145]) + rng.normal(0, 12, 3)
        grain = cv2.resize(
            rng.normal(0, 14, (75, 100, 3)).astype(np.float32), (400, 300), interpolation=cv2.INTER_CUBIC
        )
        radius, y, x = rng.uniform(30, 110), rng.uniform(110, 190), rng.uniform(150, 250)
        blot = 1 / (1 + np.exp((np.hypot(rows - y, columns - x) - radius) / 6))[..., None]
        photo = (skin + grain) * (1 - blot) + (skin * (0.45, 0.35, 0.35) + 1.5 * grain) * blot
        paths.append(folder / f"{i:04d}.png")
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def statistics_of(views: list[torch.Tensor]) -> dict[str, float]:
    """Return what a kind of view looks like, in grey levels: mean, spread within a view, between, and of neighbours."""
    pixels = torch.cat(views) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    pixels = 255 * pixels
    means = pixels.mean(dim=(2, 3))
    return {
        "mean": float(means.mean()),
        "spread within a view": float(pixels.std(dim=(2, 3)).mean()),
        "spread of the views' means": float(means.std(dim=0).mean()),
        "difference of neighbours": float((pixels[..., 1:] - pixels[..., :-1]).abs().mean()),
    }


def crop_areas(sizes: np.ndarray) -> dict[str, list[float]]:
    """Return deciles of the crops' share of their photo: ours and torchvision's, which lightly uses; global, local."""
    from dermlab.data.augment import Augmentation, draw

    found = {}
    for name, scale in (("global", GLOBAL_SCALE), ("local", LOCAL_SCALE)):
        tiled = np.tile(sizes, (max(1, 4000 // len(sizes)), 1))
        drawn = draw(Augmentation(size_px=96, crop_scale=scale), tiled, np.arange(len(tiled)), seed=0, epoch=0)
        ours = drawn.boxes[:, 2] * drawn.boxes[:, 3] / tiled.prod(1)
        theirs = []
        for height, width in tiled.tolist():
            blank = torch.empty(1, height, width)
            _, _, h, w = transforms.RandomResizedCrop.get_params(blank, list(scale), [3 / 4, 4 / 3])
            theirs.append(h * w / (height * width))
        shares = (0.1, 0.5, 0.9)
        found[f"{name}, dermlab"] = np.quantile(ours, shares).round(3).tolist()
        found[f"{name}, lightly"] = np.quantile(theirs, shares).round(3).tolist()
    return found


def main() -> None:
    """Make both kinds of views in turn, several rounds, and print rates, ratios and statistics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64, help="synthetic photos of 400 × 300")
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs instead")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()
    try:
        from lightly.transforms import DINOTransform
    except ImportError:
        sys.exit("lightly is not installed: pip install 'dermlab[pretrain]'")
    from dermlab.data.augment import Augmentation
    from dermlab.data.pixel_cache import PixelRecipe, open_pixels
    from dermlab.data.view_batches import view_batches
    from dermlab.pretrain.views import default_views

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # lightly draws from numpy's global generator
    work = Path(tempfile.mkdtemp(prefix="dermlab-benchmark-"))
    os.environ["DERMLAB_CACHE"] = str(work / "cache")
    try:
        if options.photos is None:
            paths = make_photos(work, options.images)
        else:
            paths = sorted(options.photos.glob("*.jp*g"))[: options.images]
        pixels = open_pixels(paths, PixelRecipe(size_px=SHORT, fit="short"))
        pixels.fill()
        n = len(paths)
        arrays = [np.array(image) for image in pixels.images(range(n))]
        first, second = ({"size_px": 224, "crop_scale": GLOBAL_SCALE, **LIGHTLYS, "blur": blur} for blur in (1.0, 0.1))
        local = Augmentation(size_px=96, crop_scale=LOCAL_SCALE, **LIGHTLYS, blur=0.5)
        as_lightly = [Augmentation(**first), Augmentation(**second, solarise=0.2), *8 * [local]]
        scales: dict[str, Any] = {"global_scale": GLOBAL_SCALE, "local_scale": LOCAL_SCALE}
        for_skin = [
            group.augmentation
            for group in default_views("dino", 224, local_views=8, local_size_px=96, changes={}, **scales)
            for _ in range(group.count)
        ]
        theirs = DINOTransform(n_local_views=8)

        def lightly(epoch: int) -> list[list[torch.Tensor]]:
            made = [theirs(Image.fromarray(array)) for array in arrays]
            batches = [made[start : start + BATCH] for start in range(0, n, BATCH)]
            return [[torch.stack(views) for views in zip(*batch, strict=True)] for batch in batches]

        def dermlab(kinds: list[Augmentation], epoch: int) -> list[list[torch.Tensor]]:
            made = view_batches(pixels, range(n), BATCH, kinds, mean=MEAN, std=STD, epoch=epoch, threads=1, prefetch=0)
            return [views for views, _ in made]

        ways = {
            "lightly": lightly,
            "dermlab, lightly's distributions": lambda epoch: dermlab(as_lightly, epoch),
            "dermlab, views for skin": lambda epoch: dermlab(for_skin, epoch),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        views: dict[str, list[list[torch.Tensor]]] = {name: [] for name in ways}
        for number in range(options.rounds + 1):
            for name, way in ways.items():
                start = time.process_time()
                made = way(number)
                if number:
                    seconds[name].append(time.process_time() - start)
                if 0 < number <= 3:
                    views[name] += made
        looks = {
            name: {
                "global": statistics_of([view for batch in made for view in batch[:2]]),
                "local": statistics_of([view for batch in made for view in batch[2:]]),
            }
            for name, made in views.items()
        }
        areas = crop_areas(np.array([array.shape[:2] for array in arrays]))
    finally:
        shutil.rmtree(work, ignore_errors=True)

    rates = {name: n / statistics.median(values) for name, values in seconds.items()}
    ratios = {name: rate / rates["lightly"] for name, rate in rates.items() if name != "lightly"}
    print(f"{n} photos, shorter side {SHORT} px; {options.rounds} rounds")
    for name, rate in rates.items():
        print(f"  {name:<36}{rate:>8.1f} sets of views a second of CPU time")
    for name, ratio in ratios.items():
        print(f"  {name:<36}{ratio:>8.1f} × lightly")
    for kind in ("global", "local"):
        for what in looks["lightly"][kind]:
            print(f"  {kind + ': ' + what:<36}" + "".join(f"{looks[name][kind][what]:>8.1f}" for name in ways))
    for name, deciles in areas.items():
        print(f"  crops' share, 10, 50, 90 %: {name:<20}{deciles}")
    result = {"photos": n, "rounds": options.rounds, "rates": rates, "ratios": ratios, "looks": looks, "areas": areas}
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
