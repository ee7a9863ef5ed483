"""How good a model is for whom: metrics by skin type, sex, age, site, device or any other column, and the gaps.

The vocabulary is fairlearn's (Weerts et al. 2023, "Fairlearn: assessing and improving fairness of AI systems"): a
metric by group, its group minimum and maximum, their difference and ratio; demographic parity and equalized odds. What
is added is honesty about small groups. A largest gap between several levels is positive by chance alone, so its
interval is simultaneous over all pairs of levels, the gap that chance would give stands beside it, every test is
adjusted for all levels and columns looked at, and below a minimum number of cases nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dermlab.core.errors import InputError
from dermlab.core.progress import progress
from dermlab.core.randomness import generator
from dermlab.evaluate.cases import Cases, CaseSets, case_sets
from dermlab.evaluate.compare import ROUNDING, bootstrap_p, holm
from dermlab.evaluate.intervals import BLOCK, Estimate, in_threads, interval, resample, wilson_grouped
from dermlab.evaluate.levels import NOT_RECORDED, Levels, choose_levels, describing_columns
from dermlab.evaluate.metrics import Evaluation, defined, metric, top_k_credit
from dermlab.evaluate.predictions import Predictions
from dermlab.evaluate.ratios import Ratios

DEFAULT_METRICS = ("top1", "balanced_accuracy", "macro_f1", "auroc")
MIN_N = 30
MIN_CASES = 5
BETTER, WORSE, NEITHER = "better than the rest", "worse than the rest", "cannot tell apart"
COMPONENT = {"balanced_accuracy": "recall", "macro_f1": "f1", "auroc": "auroc", "auprc": "auprc"}
"""Averages over classes and what they average."""
RATES = ("selection_rate", "true_positive_rate", "false_positive_rate")


def subgroups(
    predictions: Predictions,
    *,
    columns: Sequence[str] | str | None = None,
    metrics: Sequence[str] | None = None,
    positive: str | Sequence[str] | None = None,
    split: str = "test",
    min_n: int = MIN_N,
    min_cases: int = MIN_CASES,
    n_boot: int = 2000,
    n_permutations: int = 999,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Break the figures of a predictions table down by the levels of its describing columns.

    A metric that averages over classes (balanced accuracy, macro-F1, AUROC) is averaged, in every level of a column,
    over the same classes: those of which each claimed level has ``min_cases``. Else the levels' mixes of classes would
    be compared, not the model. ``not recorded`` is shown and tested against the recorded, but is no part of gaps.

    Args:
        predictions: any table with describing columns (:func:`dermlab.evaluate.levels.with_columns` joins more).
        columns: columns and pairs (``sex*skin_type``); None: those of
            :data:`~dermlab.evaluate.levels.STANDARD` that the table has; ``"all"``: every describing column.
        metrics: names of metrics; None: top-1, balanced accuracy, macro-F1, AUROC where the table has them.
        positive: the class, or classes, for demographic parity and equalized odds: a decision is positive where the
            predicted class is among them.
        split: the split scored.
        min_n: fewest cases of a level that anything is claimed of.
        min_cases: fewest cases of a class in a level for the class to count in averages over classes.
        n_boot: bootstrap replicates.
        n_permutations: permutations of "no level differs".
        seed: of both.
        level: coverage of intervals; ``1 - level`` is the level of the verdicts.

    Returns:
        A dictionary for JSON; numbers with intervals are ``{"value", "low", "high"}``, None where undefined::

            {"n", "n_groups", "unit", "group_by", "split", "metrics": [names], "min_n", "min_cases", "n_tests",
             "overall": {metric: {value, low, high}},
             "columns": {column: {
                "estimated": false,                      # true: estimated from the photo (ita_band)
                "levels": [{"level", "recorded", "n", "n_groups", "cases": {class: n}, "claimed", "why",
                            "metrics": {metric: {value, low, high} or null},
                            "against_rest": {metric: {"difference", "low", "high", "p", "p_adjusted", "verdict"}}}],
                "gaps": {metric: {"classes": [averaged over] or null, "group_min", "group_max", "worst", "best",
                         "difference": {value, low, high}, "ratio": {value, low, high},
                         "difference_by_chance", "p", "p_adjusted", "test", "verdict"}},
                "fairness": {"positive": [classes], "levels": {level: {"selection_rate", "true_positive_rate",
                             "false_positive_rate"}}, "demographic_parity_difference", "demographic_parity_ratio",
                             "equalized_odds_difference"} or null}},
             "worse": [{"column", "level", "metric", "difference", "low", "high", "p_adjusted"}],
             "better": [...], "not_claimed": [{"column", "level", "n", "why"}], "warnings": [sentences]}

        ``group_min``, ``group_max``, ``difference`` and ``ratio`` run over the claimed recorded levels. ``verdict`` of
        a gap is "levels differ" or "cannot tell apart"; ``difference_by_chance`` is the mean of the difference where no
        level differs.

    Raises:
        InputError: a column, metric or class is not there, or the target is multi-label.
    """
    found = case_sets(predictions, split)
    if found.sets[0].multilabel:
        raise InputError(f"{predictions.source}: a multi-label target; break down one label at a time")
    names = _metrics(metrics, found.sets[0])
    positives = _positives(positive, predictions.classes)
    frame = predictions.part(split).frame
    chosen, told = choose_levels(frame, found.units, describing_columns(predictions), columns, predictions.source)
    warnings = [*found.warnings, *told]
    if not chosen:
        warnings.append("the table has no column to break the figures down by; --data joins a data set's")
    settings = _Settings(names, min_n, min_cases, n_boot, n_permutations, seed, level, positives)
    everyone = Evaluation(found.sets, names)
    result: dict[str, Any] = {
        "n": len(found.units),
        "n_groups": len(found.groups),
        "unit": predictions.meta.get("unit", "image"),
        "group_by": predictions.meta.get("group_by", "image_id"),
        "split": split,
        "metrics": names,
        "min_n": min_n,
        "min_cases": min_cases,
        "interval": {"level": level, "n_boot": n_boot, "n_permutations": n_permutations, "seed": seed},
        "overall": {},
        "columns": {},
    }
    with progress("subgroups", len(chosen) + 1, "columns") as advance:
        drawn = resample([everyone], n_boot=n_boot, seed=seed, names=names)[0]
        values = everyone.value()
        result["overall"] = {
            name: interval(values[name], drawn[name], len(found.groups), level=level).to_dict() for name in names
        }
        advance(1)
        for column in chosen:
            result["columns"][column.column] = _Column(found, column, settings).describe()
            advance(1)
    _adjust(result, level)
    _claims(result)
    result["warnings"] = list(dict.fromkeys([*predictions.warnings, *warnings]))
    return result


@dataclass(frozen=True)
class _Settings:
    metrics: list[str]
    min_n: int
    min_cases: int
    n_boot: int
    n_permutations: int
    seed: int
    level: float
    positive: tuple[str, ...]


def _metrics(metrics: Sequence[str] | None, cases: Cases) -> list[str]:
    if metrics is None:
        return [name for name in DEFAULT_METRICS if defined(name, cases)]
    for name in metrics:
        if metric(name).inflated:
            raise InputError(f"metric {name!r}: is larger in smaller groups by chance alone, so levels say nothing")
    return list(dict.fromkeys(metrics))


def _positives(positive: str | Sequence[str] | None, classes: Sequence[str]) -> tuple[str, ...]:
    names = () if positive is None else (positive,) if isinstance(positive, str) else tuple(positive)
    for name in names:
        if name not in classes:
            raise InputError(f"positive: {name!r} is not one of the classes {', '.join(classes)}")
    if names and set(names) == set(classes):
        raise InputError("positive: all classes are named, so every decision would be positive")
    return names


class _Column:
    """One column: its levels scored, compared with the rest and with each other."""

    def __init__(self, found: CaseSets, levels: Levels, settings: _Settings) -> None:
        self.found, self.levels, self.settings = found, levels, settings
        self.classes = found.sets[0].classes
        codes = [*range(len(levels.names)), *([-1] if (levels.codes < 0).any() else [])]
        self.members = {code: levels.codes == code for code in codes}
        self.cases = {code: _cases_of_classes(found, mask) for code, mask in self.members.items()}
        self.n_groups = {code: len(np.unique(found.group_of_unit[mask])) for code, mask in self.members.items()}
        self.claimed = [code for code in range(len(levels.names)) if self._too_few(code) is None]
        counts = np.array([self.cases[code] for code in self.claimed]).reshape(len(self.claimed), -1)
        enough = (counts >= settings.min_cases).all(axis=0) if len(counts) else np.zeros(len(self.classes), bool)
        self.shared = [name for name, kept in zip(self.classes, enough, strict=True) if kept]

    def describe(self) -> dict[str, Any]:
        """Return the column's part of the result, p values not yet adjusted."""
        scored = [code for code in self.members if self._too_few(code) is None]
        evaluations: dict[Any, Evaluation] = {}
        for code in scored:
            evaluations[code] = self._evaluation(self.members[code])
            rest = self._rest(code)
            if rest.any() and not self._mirrored(code):
                evaluations["rest", code] = self._evaluation(rest)
        keys = list(evaluations)
        drawn = resample(list(evaluations.values()), n_boot=self.settings.n_boot, seed=self.settings.seed)
        draws: dict[Any, dict[str, np.ndarray]] = dict(zip(keys, drawn, strict=True))
        values: dict[Any, dict[str, np.ndarray]] = {
            key: {name: np.array([value]) for name, value in one.value().items()} for key, one in evaluations.items()
        }
        if self._mirrored(1):
            for code, other in ((0, 1), (1, 0)):
                if other in scored:
                    draws["rest", code], values["rest", code] = draws[other], values[other]
        return {
            "estimated": self.levels.estimated,
            "levels": [self._level(code, values, draws) for code in self.members],
            "gaps": self._gaps(values, draws),
            "fairness": self._fairness() if self.settings.positive else None,
        }

    def _too_few(self, code: int) -> str | None:
        """Say why nothing is claimed of a level, None where something is."""
        n = int(self.members[code].sum())
        if n < self.settings.min_n:
            return f"{n} of the {self.settings.min_n} cases that a claim needs"
        if self.n_groups[code] < 2:
            return "all of one group: there is nothing to draw intervals from"
        return None

    def _name(self, code: int) -> str:
        return self.levels.names[code] if code >= 0 else NOT_RECORDED

    def _rest(self, code: int) -> np.ndarray:
        """Return the recorded units of other levels, bool (units,)."""
        return (self.levels.codes >= 0) & (self.levels.codes != code)

    def _mirrored(self, code: int) -> bool:
        """Tell whether a level's rest is the one other level, which makes the two comparisons one."""
        return len(self.levels.names) == 2 and code >= 0 and self._too_few(0) is None and self._too_few(1) is None

    def _evaluation(self, units: np.ndarray) -> Evaluation:
        return Evaluation(_restricted(self.found, units), self.settings.metrics)

    def _averaged(self, name: str) -> list[str] | None:
        """Return the classes that a metric is averaged over, None where it averages over none."""
        return self.shared if name in COMPONENT else None

    def _undefined(self, name: str, code: int) -> str | None:
        """Say why a metric is not given for a level, None where it is."""
        part = name.partition(":")[2]
        needed = [part] if part else self._averaged(name)
        if needed is None:
            return None
        if not part and len(needed) < 2:
            return "levels share fewer than two classes"
        lacking = [one for one in needed if self.cases[code][self.classes.index(one)] < self.settings.min_cases]
        return f"fewer than {self.settings.min_cases} cases of {', '.join(lacking)}" if lacking else None

    def _of(self, values: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        """Return a metric (B,), averaged over the shared classes where it averages over classes."""
        if name not in COMPONENT:
            return values[name]
        return np.mean([values[f"{COMPONENT[name]}:{one}"] for one in self.shared], axis=0)

    def _level(self, code: int, values: Mapping[Any, Any], draws: Mapping[Any, Any]) -> dict[str, Any]:
        mask, why = self.members[code], self._too_few(code)
        result: dict[str, Any] = {
            "level": self._name(code),
            "recorded": code >= 0,
            "n": int(mask.sum()),
            "n_groups": self.n_groups[code],
            "cases": {name: int(n) for name, n in zip(self.classes, self.cases[code], strict=True)},
            "claimed": why is None,
            "why": why,
            "metrics": dict.fromkeys(self.settings.metrics),
            "against_rest": {},
        }
        if why is not None:
            return result
        missing = []
        for name in self.settings.metrics:
            lacking = self._undefined(name, code)
            if lacking:
                missing.append(f"{name}: {lacking}")
                continue
            result["metrics"][name] = self._estimate(name, code, values[code], draws[code]).to_dict()
            rest = ("rest", code)
            if rest not in draws or (name.partition(":")[2] and not self._rest_has(name, code)):
                continue
            difference = float((self._of(values[code], name) - self._of(values[rest], name))[0])
            apart = self._of(draws[code], name) - self._of(draws[rest], name)
            holders = min(self.n_groups[code], len(np.unique(self.found.group_of_unit[self._rest(code)])))
            estimate = interval(difference, apart, holders, level=self.settings.level).to_dict()
            result["against_rest"][name] = {
                "difference": estimate["value"],
                "low": estimate["low"],
                "high": estimate["high"],
                "p": _number(bootstrap_p(apart, holders) if not np.isnan(difference) else np.nan),
            }
        if missing:
            result["why"] = "; ".join(missing)
        return result

    def _rest_has(self, name: str, code: int) -> bool:
        place = self.classes.index(name.partition(":")[2])
        return _cases_of_classes(self.found, self._rest(code))[place] >= self.settings.min_cases

    def _estimate(self, name: str, code: int, values: Mapping[str, Any], draws: Mapping[str, Any]) -> Estimate:
        """Return a level's metric with its interval: Wilson's for a single proportion, else the bootstrap's."""
        part = name.partition(":")[2]
        if len(self.found.sets) == 1 and (name in ("top1", "top3") or name.startswith("recall:")):
            cases = _restricted(self.found, self.members[code])[0]
            hits = top_k_credit(cases, 3) if name == "top3" else cases.correct()
            own = cases.truth == self.classes.index(part) if part else np.ones(len(cases), bool)
            return wilson_grouped(hits[own], cases.group[own], self.settings.level)
        value, replicates = float(self._of(values, name)[0]), self._of(draws, name)
        return interval(value, replicates, self.n_groups[code], level=self.settings.level)

    def _gaps(self, values: Mapping[Any, Any], draws: Mapping[Any, Any]) -> dict[str, Any]:
        """Return fairlearn's aggregates of each metric over the claimed levels, with intervals and tests."""
        result: dict[str, Any] = {}
        compared = {
            name: [code for code in self.claimed if self._undefined(name, code) is None]
            for name in self.settings.metrics
        }
        compared = {name: codes for name, codes in compared.items() if len(codes) > 1}
        tests = self._tests(compared, values, draws)
        for name, codes in compared.items():
            value = np.array([self._of(values[code], name)[0] for code in codes])
            replicates = np.stack([self._of(draws[code], name) for code in codes])
            holders = min(self.n_groups[code] for code in codes)
            better = metric(name).higher_is_better
            low, high = int(value.argmin()), int(value.argmax())
            worst, best = (low, high) if better else (high, low)
            p, by_chance, test = tests[name]
            result[name] = {
                "classes": self._averaged(name),
                "group_min": _number(value.min()),
                "group_max": _number(value.max()),
                "worst": self._name(codes[worst]),
                "best": self._name(codes[best]),
                "difference": range_interval(value, replicates, holders, self.settings.level).to_dict(),
                "ratio": _ratio_interval(value, replicates, holders, self.settings.level),
                "difference_by_chance": _number(by_chance),
                "p": _number(p),
                "test": test,
            }
        return result

    def _tests(
        self, compared: Mapping[str, list[int]], values: Mapping[Any, Any], draws: Mapping[Any, Any]
    ) -> dict[str, tuple[float, float, str]]:
        """Return for each metric p of "no level differs", the gap expected by chance, and the test's name."""
        result: dict[str, tuple[float, float, str]] = {}
        level_of_group = _level_of_groups(self.found, self.levels.codes)
        kinds: dict[tuple[bool, tuple[int, ...]], list[str]] = {}
        for name, codes in compared.items():
            kinds.setdefault((self._averaged(name) is not None, tuple(codes)), []).append(name)
        for (stratified, codes), names in kinds.items():
            inside = np.isin(level_of_group, codes)
            spread = np.isin(level_of_group, (-2,))
            held = np.isin(self.levels.codes, codes)
            if not spread[self.found.group_of_unit[held]].any():
                strata = _class_signature(self.found) if stratified else np.zeros(len(level_of_group), np.int64)
                found = self._permute(names, list(codes), np.where(inside, level_of_group, -1), strata)
                within = " within classes" if stratified else ""
                words = f"permutation of whole groups{within} ({self.settings.n_permutations:,} draws)"
                result |= {name: (*pair, words) for name, pair in found.items()}
                continue
            for name in names:
                value = np.array([self._of(values[code], name)[0] for code in codes])
                replicates = np.stack([self._of(draws[code], name) for code in codes])
                noise = replicates - value[:, None]
                holders = min(self.n_groups[code] for code in codes)
                result[name] = (
                    wald(value, replicates, holders),
                    float(np.nanmean(np.ptp(noise, axis=0))),
                    "bootstrap Wald",
                )
        return result

    def _permute(
        self, names: list[str], codes: list[int], level_of_group: np.ndarray, strata: np.ndarray
    ) -> dict[str, tuple[float, float]]:
        """Hand the levels to other groups at random and see how far apart they lie then."""
        evaluation = Evaluation(self.found.sets, names)
        holders = np.flatnonzero(level_of_group >= 0)
        labels, stratum = level_of_group[holders], strata[holders]
        weights = np.array([self.members[code].sum() for code in codes], np.float64)
        weights /= weights.sum()
        order = np.argsort(stratum, kind="stable")

        def statistics(assigned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Return spread and range (metrics, B) for levels assigned to the holders, int (B, holders)."""
            per_level = []
            for code in codes:
                counts = np.zeros((evaluation.n_groups, len(assigned)))
                counts[holders] = (assigned == code).T
                at = evaluation.at(counts)
                per_level.append(np.stack([self._of(at, name) for name in names]))
            levels = np.stack(per_level)
            middle = np.einsum("l,lmb->mb", weights, levels)
            return np.einsum("l,lmb->mb", weights, (levels - middle) ** 2), np.ptp(levels, axis=0)

        observed = statistics(labels[None])[0][:, 0]

        def block(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            size = min(BLOCK, self.settings.n_permutations - number * BLOCK)
            random = generator(self.settings.seed, "subgroups", self.levels.column, number)
            shuffled = np.argsort(stratum + random.random((size, len(holders))), axis=1)
            assigned = np.empty((size, len(holders)), np.int64)
            assigned[:, order] = labels[shuffled]
            spread, gap = statistics(assigned)
            # NaN (a class is lost in this arrangement) counts as extreme, which errs on the side of doubt.
            extreme = (~(spread < observed[:, None] - ROUNDING)).sum(axis=1)
            return extreme, np.nansum(gap, axis=1), (~np.isnan(gap)).sum(axis=1)

        work = float(evaluation.rows.nnz) * self.settings.n_permutations * len(codes)
        parts = list(in_threads(block, -(-self.settings.n_permutations // BLOCK), "permutations", work))
        extreme, total, known = (np.sum([part[place] for part in parts], axis=0) for place in range(3))
        ps = (1 + extreme) / (self.settings.n_permutations + 1)
        by_chance = total / np.maximum(known, 1)
        return {name: (float(ps[place]), float(by_chance[place])) for place, name in enumerate(names)}

    def _fairness(self) -> dict[str, Any]:
        """Return fairlearn's rates of the chosen positive class by level, and the disparities between levels."""
        wanted = [self.classes.index(name) for name in self.settings.positive]
        terms, groups = [], []
        for cases, place in zip(self.found.sets, self.found.unit, strict=True):
            level, truth = self.levels.codes[place], np.isin(cases.truth, wanted)
            chosen = np.isin(cases.predicted, wanted)
            one: dict[str, tuple[np.ndarray, np.ndarray]] = {}
            for code in self.claimed:
                own = level == code
                for rate, base in zip(RATES, (own, own & truth, own & ~truth), strict=True):
                    one[f"{rate}:{code}"] = (base & chosen).astype(float), base.astype(float)
            terms.append(one)
            groups.append(cases.group)
        result: dict[str, Any] = {"positive": list(self.settings.positive), "levels": {}}
        if not self.claimed:
            return result
        ratios = Ratios(terms, groups, len(self.found.groups))
        draws = resample([ratios], n_boot=self.settings.n_boot, seed=self.settings.seed)[0]
        values = ratios.value()
        for code in self.claimed:
            result["levels"][self._name(code)] = {
                rate: self._rate(values, draws, terms, groups, rate, code).to_dict() for rate in RATES
            }
        if len(self.claimed) < 2:
            return result
        holders = min(self.n_groups[code] for code in self.claimed)
        gaps = {}
        for rate in RATES:
            value = np.array([values[f"{rate}:{code}"] for code in self.claimed])
            replicates = np.stack([draws[f"{rate}:{code}"] for code in self.claimed])
            gaps[rate] = range_interval(value, replicates, holders, self.settings.level)
            if rate == "selection_rate":
                result["demographic_parity_ratio"] = _ratio_interval(value, replicates, holders, self.settings.level)
        result["demographic_parity_difference"] = gaps["selection_rate"].to_dict()
        odds = [gaps["true_positive_rate"], gaps["false_positive_rate"]]
        known = [one for one in odds if not np.isnan(one.value)]
        # The larger of two ranges lies between the larger of their lower and the larger of their upper ends.
        result["equalized_odds_difference"] = (
            Estimate(
                max(one.value for one in known), max(one.low for one in known), max(one.high for one in known), "range"
            ).to_dict()
            if known
            else {"value": None, "low": None, "high": None}
        )
        return result

    def _rate(
        self, values: Any, draws: Any, terms: list[dict[str, Any]], groups: list[np.ndarray], rate: str, code: int
    ) -> Estimate:
        name = f"{rate}:{code}"
        if len(terms) == 1:
            hits, base = terms[0][name]
            return wilson_grouped(hits[base > 0], groups[0][base > 0], self.settings.level)
        return interval(values[name], draws[name], self.n_groups[code], level=self.settings.level)


def range_interval(values: np.ndarray, replicates: np.ndarray, n_groups: int, level: float) -> Estimate:
    """Return the largest difference between levels with an interval that allows for its having been chosen.

    The plain bootstrap of a maximum minus a minimum lies too high: noise can only widen a range. Here all pairs of
    levels get simultaneous intervals (the largest studentised error over the pairs, Tukey's idea with the bootstrap's
    distribution: Romano & Wolf 2005, "Exact and approximate stepdown methods"); the true range is within the largest of
    their lower and the largest of their upper ends whenever all of them hold.

    Args:
        values: (L,) metric of each level.
        replicates: (L, n_boot) bootstrap values; all levels of one column come from the same draw.
        n_groups: number of groups of the smallest level; few widen the interval.
        level: coverage aimed at.
    """
    from dermlab.evaluate.intervals import expanded

    if np.isnan(values).any() or len(values) < 2:
        return Estimate(np.nan, np.nan, np.nan, "range")
    first, second = np.triu_indices(len(values), 1)
    difference = values[first] - values[second]
    value = float(np.ptp(values))
    known = ~np.isnan(replicates).any(axis=0)
    if known.sum() < 2 or n_groups < 2:
        return Estimate(value, np.nan, np.nan, "range")
    error = (replicates[first] - replicates[second])[:, known] - difference[:, None]
    spread = np.sqrt((error**2).mean(axis=1))
    moving = spread > 0
    if not moving.any():
        return Estimate(value, value, value, "range")
    largest = (np.abs(error[moving]) / spread[moving, None]).max(axis=0)
    reach = float(np.quantile(largest, 1 - 2 * expanded((1 - level) / 2, n_groups)))
    distance = np.abs(difference)
    low, high = distance - reach * spread, distance + reach * spread
    return Estimate(value, max(0.0, float(low.max())), float(high.max()), "range")


def _ratio_interval(values: np.ndarray, replicates: np.ndarray, n_groups: int, level: float) -> dict[str, float | None]:
    """Return minimum over maximum with the interval of :func:`range_interval` on the logarithms."""
    none: dict[str, float | None] = {"value": None, "low": None, "high": None}
    if np.isnan(values).any() or values.max() <= 0:
        return none
    value = float(values.min() / values.max())
    if values.min() <= 0:
        return none | {"value": value}
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(replicates)
    gap = range_interval(np.log(values), np.where(np.isfinite(logs), logs, np.nan), n_groups, level)
    if np.isnan(gap.low):
        return none | {"value": value}
    return {"value": value, "low": float(np.exp(-gap.high)), "high": float(np.exp(-gap.low))}


def wald(values: np.ndarray, replicates: np.ndarray, n_groups: int) -> float:
    """Return p of "all levels are equal" from the bootstrap covariance of the levels (Wald's test, F distribution).

    Args:
        values: (L,) metric of each level.
        replicates: (L, n_boot).
        n_groups: number of groups of the smallest level, for the degrees of freedom.
    """
    from scipy.stats import f

    known = ~np.isnan(replicates).any(axis=0)
    if np.isnan(values).any() or known.sum() < 10 * len(values):
        return np.nan
    difference = values[1:] - values[0]
    drawn = replicates[1:, known] - replicates[0, known]
    covariance = np.atleast_2d(np.cov(drawn))
    try:
        statistic = float(difference @ np.linalg.solve(covariance, difference)) / len(difference)
    except np.linalg.LinAlgError:
        return np.nan
    return float(f.sf(statistic, len(difference), max(1, n_groups - 1)))


def _restricted(found: CaseSets, units: np.ndarray) -> list[Cases]:
    """Return the case sets with some of the units (bool, all units) and the same coding of groups."""
    result = []
    for cases, place in zip(found.sets, found.unit, strict=True):
        rows = np.flatnonzero(units[place])
        if len(rows):
            probabilities = None if cases.probabilities is None else cases.probabilities[rows]
            result.append(
                replace(
                    cases,
                    truth=cases.truth[rows],
                    predicted=cases.predicted[rows],
                    probabilities=probabilities,
                    group=cases.group[rows],
                )
            )
    return result


def _cases_of_classes(found: CaseSets, units: np.ndarray) -> np.ndarray:
    """Return how many of the units (bool, all units) are of each class, int64 (C,)."""
    truth = _class_of_units(found)
    return np.bincount(truth[units & (truth >= 0)], minlength=len(found.sets[0].classes))


def _class_of_units(found: CaseSets) -> np.ndarray:
    truth = np.full(len(found.units), -1, np.int64)
    for cases, place in zip(found.sets, found.unit, strict=True):
        truth[place] = cases.truth
    return truth


def _level_of_groups(found: CaseSets, codes: np.ndarray) -> np.ndarray:
    """Return the level of each group, -1 where not recorded and -2 where its units are of several."""
    low = np.full(len(found.groups), np.iinfo(np.int64).max)
    high = np.full(len(found.groups), -1)
    np.minimum.at(low, found.group_of_unit, codes)
    np.maximum.at(high, found.group_of_unit, codes)
    return np.where(low == high, high, -2)


def _class_signature(found: CaseSets) -> np.ndarray:
    """Return a code per group for the set of classes that its units are of, int64 (groups,)."""
    truth = _class_of_units(found)
    holds = np.zeros((len(found.groups), len(found.sets[0].classes)), bool)
    holds[found.group_of_unit[truth >= 0], truth[truth >= 0]] = True
    return np.unique(holds, axis=0, return_inverse=True)[1].ravel()


def _adjust(result: dict[str, Any], level: float) -> None:
    """Adjust the p values of each metric over all levels and columns, and those of the gaps over the columns."""
    n_tests = 0
    for name in result["metrics"]:
        entries: list[list[dict[str, Any]]] = []  # the two sides of a two-level column are one test
        gaps = []
        for column in result["columns"].values():
            recorded = [one for one in column["levels"] if one["recorded"] and name in one["against_rest"]]
            tested = [one["against_rest"][name] for one in recorded]
            n_levels = sum(one["recorded"] for one in column["levels"])
            entries += [tested] if n_levels == 2 and len(tested) == 2 else [[one] for one in tested]
            entries += [
                [one["against_rest"][name]]
                for one in column["levels"]
                if not one["recorded"] and name in one["against_rest"]
            ]
            gaps += [column["gaps"][name]] if name in column["gaps"] else []
        n_tests += len(entries)
        better = metric(name).higher_is_better
        ps = [np.nan if members[0]["p"] is None else members[0]["p"] for members in entries]
        for members, adjusted in zip(entries, holm(ps), strict=True):
            for one in members:
                one["p_adjusted"] = _number(adjusted)
                significant = adjusted < 1 - level and one["difference"] != 0
                one["verdict"] = (BETTER if (one["difference"] > 0) == better else WORSE) if significant else NEITHER
        ps = [np.nan if gap["p"] is None else gap["p"] for gap in gaps]
        for gap, adjusted in zip(gaps, holm(ps), strict=True):
            gap["p_adjusted"] = _number(adjusted)
            gap["verdict"] = "levels differ" if adjusted < 1 - level else NEITHER
    result["n_tests"] = n_tests


def _claims(result: dict[str, Any]) -> None:
    """List what is significant, and what nothing is claimed of."""
    found: dict[str, list[dict[str, Any]]] = {WORSE: [], BETTER: []}
    silent = []
    for column, part in result["columns"].items():
        for one in part["levels"]:
            if not one["claimed"]:
                silent.append({"column": column, "level": one["level"], "n": one["n"], "why": one["why"]})
            for name, entry in one["against_rest"].items():
                if entry["verdict"] in found:
                    keys = ("difference", "low", "high", "p_adjusted")
                    told = {"column": column, "level": one["level"], "metric": name}
                    found[entry["verdict"]].append(told | {key: entry[key] for key in keys})
    result["worse"], result["better"], result["not_claimed"] = found[WORSE], found[BETTER], silent


def _number(value: float) -> float | None:
    return None if value is None or np.isnan(value) else float(value)
