"""How far half precision changes a result: features against fp32, and what a linear probe says with either.

    python benchmarks/precision.py DATA_SET --split folds5

On a device whose own precision is fp32 there is nothing to compare and the script says so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np


def main() -> int:
    """Measure, print a table, and return 1 where an agreement is below its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="main")
    parser.add_argument("--encoders", default="efficientnet_lite0,clip_vit_b16")
    options = parser.parse_args()

    from dermlab.adapt.config import HeadConfig, ProbeSettings
    from dermlab.adapt.probe import run_probe
    from dermlab.core.device import Runtime, resolve
    from dermlab.data.dataset import Dataset
    from dermlab.evaluate.predictions import read_predictions
    from dermlab.features import embed

    dataset, chosen = Dataset.open(options.data), resolve()
    if chosen.precision == "fp32":
        print(f"{chosen.device} runs in fp32 anyway: nothing to compare")
        return 0
    exact = Runtime(chosen.device, "fp32", "the measure")
    short = False
    print(f"{len(dataset)} photos, {chosen.precision} on {chosen.device} against fp32, linear probe on {options.split}")
    print(f"{'encoder':<20} {'median cosine':>14} {'1st percentile':>15} {'same class':>11} {'top-1':>7} {'fp32':>7}")
    for name in options.encoders.split(","):
        features, said, right = {}, {}, {}
        with tempfile.TemporaryDirectory() as folder:
            for runtime in (chosen, exact):
                features[runtime.precision] = embed(dataset, name, runtime=runtime)
                out = Path(folder) / runtime.precision
                settings = ProbeSettings(encoder=name, head=HeadConfig(kind="linear"), split=options.split)
                run_probe(dataset, settings, out, features=features[runtime.precision])
                test = read_predictions(out / "predictions.parquet").test()
                order = np.argsort(test.frame["image_id"].to_numpy(dtype=str), kind="stable")
                said[runtime.precision] = test.predicted()[order]
                right[runtime.precision] = float((test.predicted() == test.truth()).mean())
        one, other = features[chosen.precision].values, features["fp32"].values
        cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        middle, low = float(np.median(cosine)), float(np.quantile(cosine, 0.01))
        agree = float((said[chosen.precision] == said["fp32"]).mean())
        print(
            f"{name:<20} {middle:>14.5f} {low:>15.5f} {agree:>11.1%} "
            f"{right[chosen.precision]:>7.3f} {right['fp32']:>7.3f}",
            flush=True,
        )
        short = short or middle < 0.999 or low < 0.99 or agree < 0.98
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
