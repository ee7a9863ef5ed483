"""How fast `nearest` is: against one bare matrix product and top-k, in one run, and how much memory it takes.

    python benchmarks/neighbours.py
    python benchmarks/neighbours.py --queries 500 --bank 100000 --rounds 3

The bare search multiplies all queries with the whole bank at once and takes torch's top-k: 8 GB of similarities for
2,000 against 1,000,000. Both get unit vectors, in turn; medians over the rounds. The memory is the peak of a process of
its own that holds the bank and searches it once.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch


def unit_vectors(n: int, dim: int, seed: int) -> np.ndarray:
    """Return n random unit vectors, float32."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def bare(queries: np.ndarray, bank: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """One product, one top-k."""
    found = (torch.from_numpy(queries) @ torch.from_numpy(bank).T).topk(k, dim=1)
    return found.values.numpy(), found.indices.numpy()


def main() -> None:
    """Measure and print; with ``--json`` also write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--bank", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory_only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    from dermlab.features import nearest

    queries = unit_vectors(options.queries, options.dim, 1)
    bank = unit_vectors(options.bank, options.dim, 2)
    if options.memory_only:
        nearest(queries, bank, options.k)
        print(json.dumps({"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}))
        return
    sizes = ["--queries", options.queries, "--bank", options.bank, "--dim", options.dim, "--k", options.k]
    command = [sys.executable, __file__, "--memory_only", *map(str, sizes), "--threads", str(options.threads)]
    peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["peak_gb"]
    times: dict[str, list[float]] = {"nearest": [], "bare": []}
    for _ in range(options.rounds):
        for label, search in (("nearest", nearest), ("bare", bare)):
            start = time.perf_counter()
            _, index = search(queries, bank, options.k)
            times[label].append(time.perf_counter() - start)
            if label == "nearest":
                ours = index
    agree = float((ours == index).mean())
    ratio = statistics.median(a / b for a, b in zip(times["nearest"], times["bare"], strict=True))
    medians = {label: statistics.median(values) for label, values in times.items()}
    print(f"{options.queries:,} queries × {options.bank:,} × {options.dim}, k = {options.k}, {options.threads} threads")
    print(f"nearest {medians['nearest']:.2f} s, bare product and top-k {medians['bare']:.2f} s: {ratio:.2f} times")
    print(f"peak memory {peak:.2f} GB; the same neighbours in {100 * agree:.3f} % of places")
    if options.json is not None:
        from dermlab.core.device import environment
        from dermlab.core.files import write_json

        found = {"seconds": times, "ratio": ratio, "peak_gb": peak, "agreement": agree}
        write_json(options.json, {"environment": environment(), **found})


if __name__ == "__main__":
    sys.exit(main())
