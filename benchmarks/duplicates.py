"""How long the audit's own searching takes on 100,000 photos, without decoding, and how many planted copies it finds.

Two nets: the encoder's (100,000 x 384 features, contaminated with near copies, as a pretraining set is held against a
test set) and the perceptual one (100,000 luminances of 64 x 64, copies turned, brightened and encoded again).

    python benchmarks/duplicates.py [--n 100000] [--only features|photos]
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

from dermlab.audit.duplicates import find_duplicates
from dermlab.audit.lookalikes import close_pairs, unit
from dermlab.audit.thumbnails import SIZE_PX, Thumbnails
from dermlab.core.randomness import generator

DIM = 384
N_PLANTED = 1000
COPY_COSINE = 0.9


def features(n: int) -> dict[str, float]:
    """Search clustered features for planted copies, and compare with every similarity on a sample."""
    rng = generator(0, "features")
    centres = rng.standard_normal((200, DIM)).astype(np.float32)
    # Real features lie near a low-dimensional surface: 24 directions within a cluster, and a little noise.
    axes = rng.standard_normal((24, DIM)).astype(np.float32) / np.sqrt(DIM) * 6
    vectors = centres[rng.integers(200, size=n)] + rng.standard_normal((n, 24)).astype(np.float32) @ axes
    vectors += 0.3 * rng.standard_normal((n, DIM)).astype(np.float32)
    vectors = unit(vectors - vectors.mean(axis=0))
    chosen = rng.permutation(n)[: 2 * N_PLANTED]
    originals, copies = chosen[:N_PLANTED], chosen[N_PLANTED:]
    noise = unit(rng.standard_normal((N_PLANTED, DIM)))
    noise -= (noise * vectors[originals]).sum(axis=1, keepdims=True) * vectors[originals]
    vectors[copies] = unit(COPY_COSINE * vectors[originals] + np.sqrt(1 - COPY_COSINE**2) * unit(noise))
    started = time.monotonic()
    pairs, _ = close_pairs(vectors, COPY_COSINE - 0.02)
    seconds = time.monotonic() - started
    found = set(map(tuple, pairs.tolist()))
    planted = [tuple(sorted(pair)) for pair in zip(originals.tolist(), copies.tolist(), strict=True)]
    sample = np.sort(rng.permutation(n)[:1000])
    exact = vectors[sample] @ vectors.T
    exact[np.arange(len(sample)), sample] = -1
    row, other = np.nonzero(exact >= COPY_COSINE - 0.02)
    wanted = {tuple(sorted(pair)) for pair in zip(sample[row].tolist(), other.tolist(), strict=True)}
    return {
        "seconds": round(seconds, 1),
        "pairs": len(pairs),
        "planted_found": round(float(np.mean([pair in found for pair in planted])), 4),
        "of_exact_found": round(len(wanted & found) / max(len(wanted), 1), 4),
    }


def photos(n: int) -> dict[str, float]:
    """Search made-up luminances for planted copies, through candidates, orientation, verification and alignment."""
    import cv2

    rng = generator(0, "photos")
    luminance = np.empty((n, SIZE_PX, SIZE_PX), dtype=np.uint8)
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX] / SIZE_PX - 0.5
    for i in range(n):
        middle, size = rng.uniform(-0.12, 0.12, 2), rng.uniform(0.08, 0.3, 2)
        spot = np.exp(-(((rows - middle[0]) / size[0]) ** 2) - ((columns - middle[1]) / size[1]) ** 2)
        coarse = cv2.resize(rng.standard_normal((6, 6)).astype(np.float32), (SIZE_PX, SIZE_PX)) * 12
        fine = rng.standard_normal((SIZE_PX, SIZE_PX)).astype(np.float32) * 5
        luminance[i] = np.clip(170 - rng.uniform(30, 110) * spot + coarse + fine, 1, 255)
    chosen = rng.permutation(n)[: 2 * N_PLANTED]
    originals, copies = chosen[:N_PLANTED], chosen[N_PLANTED:]
    for number, (one, other) in enumerate(zip(originals.tolist(), copies.tolist(), strict=True)):
        photo = np.rot90(luminance[one], number % 4)[:, :: 1 if number % 3 else -1].astype(np.float32)
        noisy = 1.05 * photo + rng.standard_normal(photo.shape) * 1.5
        luminance[other] = np.clip(noisy, 1, 255)
    nothing = np.zeros(n, dtype=np.float32)
    thumbnails = Thumbnails(
        luminance=luminance,
        contrast=luminance.std(axis=(1, 2)).astype(np.float32),
        sharpness=nothing,
        edge=nothing,
        even=nothing,
        colours=np.zeros((n, 1), dtype=np.float32),
        digest=np.array([str(i) for i in range(n)], dtype=object),
        content_hash=np.array([str(i) for i in range(n)], dtype=object),
        failures={},
    )
    started = time.monotonic()
    pairs = find_duplicates(thumbnails, [Path(str(i)) for i in range(n)])
    seconds = time.monotonic() - started
    found = set(zip(pairs["a"].tolist(), pairs["b"].tolist(), strict=True))
    planted = {tuple(sorted(pair)) for pair in zip(originals.tolist(), copies.tolist(), strict=True)}
    return {
        "seconds": round(seconds, 1),
        "pairs": len(pairs),
        "planted_found": round(len(found & planted) / len(planted), 4),
        "false_pairs": len(found - planted),
    }


def main() -> None:
    """Run both and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--only", choices=("features", "photos"))
    arguments = parser.parse_args()
    result: dict[str, object] = {"n": arguments.n}
    for run in (features, photos):
        if arguments.only in (None, run.__name__):
            result[run.__name__] = run(arguments.n)
    result["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
