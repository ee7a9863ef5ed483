"""Ratios of sums over groups: rates and costs that are no metric by name, drawn from as metrics are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dermlab.evaluate.intervals import Estimate, interval, resample
from dermlab.evaluate.metrics import Evaluation, mean_defined, ratio, sum_rows

Terms = Mapping[str, tuple[np.ndarray, np.ndarray]]


class Ratios(Evaluation):
    """Named ratios as a function of how often each group is counted, averaged over case sets.

    Args:
        sets: for each case set the ratios by name: numerators and denominators, float64 (N,) each, one per case.
        groups: for each case set int64 (N,) codes of the groups.
        n_groups: number of groups.
    """

    def __init__(self, sets: Sequence[Terms], groups: Sequence[np.ndarray], n_groups: int) -> None:
        from scipy.sparse import vstack

        self.names = tuple(sets[0])
        self.n_groups = n_groups
        rows = []
        for terms, group in zip(sets, groups, strict=True):
            values = [terms[name][side] for side in (0, 1) for name in self.names]
            places = np.repeat(np.arange(len(values)), len(group))
            shape = (len(values), n_groups)
            rows.append(sum_rows(places, np.tile(group, len(values)), np.concatenate(values), shape))
        self.rows = vstack(rows, format="csr")

    def from_totals(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return (B,) values of each ratio from totals (totals, B), NaN where its denominator is 0."""
        parts = totals.reshape(-1, 2, len(self.names), totals.shape[1])
        values = mean_defined(ratio(parts[:, 0], parts[:, 1]))
        return {name: values[place] for place, name in enumerate(self.names)}


def estimate_ratios(
    ratios: Ratios, *, n_boot: int, seed: int, level: float, n_groups: int | None = None
) -> dict[str, Estimate]:
    """Return each ratio with its bootstrap interval over groups.

    Args:
        ratios: what is drawn.
        n_boot: number of replicates.
        seed: of the draws.
        level: coverage aimed at.
        n_groups: groups that the ratios rest on where that is not all of them; few widen the interval.
    """
    draws = resample([ratios], n_boot=n_boot, seed=seed)[0]
    values = ratios.value()
    holders = ratios.n_groups if n_groups is None else n_groups
    return {name: interval(values[name], draws[name], holders, level=level) for name in ratios.names}
