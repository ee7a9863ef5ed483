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
from dermlab.evaluate.estimates import estimate, estimate_metric
from dermlab.evaluate.fitting import share
from dermlab.evaluate.intervals import BLOCK, Estimate, expanded, in_threads, interval, resample
from dermlab.evaluate.levels import NOT_RECORDED, Levels, choose_levels, describing_columns
from dermlab.evaluate.metrics import Evaluation, defined, metric
from dermlab.evaluate.predictions import Predictions
from dermlab.evaluate.ratios import Ratios

DEFAULT_METRICS = ("top1", "balanced_accuracy", "macro_f1", "auroc")
MIN_N = 30
MIN_CASES = 5
BETTER, WORSE, NEITHER = "better than the rest", "worse than the rest", "cannot tell apart"
DIFFER = "levels differ"
FEW_BEYOND = 10  # replicates beyond 0 below which their share is too coarse a p to be adjusted for many tests
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

    A metric that averages over classes (balanced accuracy, macro-F1, AUROC) is averaged over those of which a level
    has ``min_cases``; against the rest, over those of which both sides have; in a gap, over those of which every level
    in it has. Else the mixes of classes would be compared, not the model. ``not recorded`` is shown and tested against
    the recorded, but is no part of gaps.

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
                            "classes": [averaged over],
                            "metrics": {metric: {value, low, high} or null},
                            "against_rest": {metric: {"classes": [averaged over] or null, "value", "rest",
                                             "difference", "low", "high", "p", "p_adjusted", "verdict"}}}],
                "gaps": {metric: {"classes": [averaged over] or null, "levels": [compared],
                         "group_min", "group_max", "worst", "best",
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
        overall = estimate([everyone], n_boot=n_boot, seed=seed, level=level, names=names)[0]
        result["overall"] = {name: one.to_dict() for name, one in overall.items()}
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
        self.rest = {code: (levels.codes >= 0) & (levels.codes != code) for code in codes}
        self.cases = {code: _cases_of_classes(found, mask) for code, mask in self.members.items()}
        self.n_groups = {code: len(np.unique(found.group_of_unit[mask])) for code, mask in self.members.items()}
        self.groups_of_classes: dict[Any, np.ndarray] = {
            key: _groups_of_classes(found, mask)
            for code in codes
            for key, mask in ((code, self.members[code]), (("rest", code), self.rest[code]))
        }
        self.claimed = [code for code in range(len(levels.names)) if self._too_few(code) is None]
        self.own = {code: self._enough(mask) for code, mask in self.members.items()}
        self.both = {code: [name for name in self.own[code] if name in self._enough(self.rest[code])] for code in codes}

    def describe(self) -> dict[str, Any]:
        """Return the column's part of the result, p values not yet adjusted."""
        scored = [code for code in self.members if self._too_few(code) is None]
        mirrored = len(self.levels.names) == 2 and len(self.claimed) == 2  # the rest of each is the other
        evaluations: dict[Any, Evaluation] = {}
        for code in scored:
            evaluations[code] = self._evaluation(self.members[code])
            if self.rest[code].any() and not (mirrored and code >= 0):
                evaluations["rest", code] = self._evaluation(self.rest[code])
        draws: dict[Any, dict[str, np.ndarray]] = {}
        if evaluations:
            drawn = resample(list(evaluations.values()), n_boot=self.settings.n_boot, seed=self.settings.seed)
            draws = dict(zip(evaluations, drawn, strict=True))
        values = {
            key: {name: np.array([value]) for name, value in one.value().items()} for key, one in evaluations.items()
        }
        if mirrored:
            for code, other in ((0, 1), (1, 0)):
                draws["rest", code], values["rest", code] = draws[other], values[other]
        return {
            "estimated": self.levels.estimated,
            "levels": [self._level(code, values, draws) for code in self.members],
            "gaps": self._gaps(values, draws),
            "fairness": self._fairness() if self.settings.positive else None,
        }

    def _holders(self, name: str, key: Any, classes: Sequence[str]) -> int:
        """Return the number of groups that a metric's spread in a level, or in ``("rest", level)``, is known from.

        A mean over classes is as uncertain as its rarest classes make it: a class of four patients adds the variance of
        four, which the bootstrap understates by a quarter. Their harmonic mean stands for the classes together.
        """
        part = name.partition(":")[2]
        rested = [part] if part else list(classes) if name in COMPONENT else []
        own = self.groups_of_classes[key]
        if not rested:
            return int(own[-1])
        counts = [int(own[self.classes.index(one)]) for one in rested]
        return max(2, int(len(counts) / sum(1 / max(n, 1) for n in counts)))

    def _enough(self, mask: np.ndarray) -> list[str]:
        """Return the classes of which the units have enough cases."""
        counts = _cases_of_classes(self.found, mask)
        return [name for name, n in zip(self.classes, counts, strict=True) if n >= self.settings.min_cases]

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

    def _evaluation(self, units: np.ndarray) -> Evaluation:
        return Evaluation(_restricted(self.found, units), self.settings.metrics)

    def _lacking(self, name: str, classes: Sequence[str]) -> str | None:
        """Say why a metric cannot be given where only ``classes`` have enough cases, None where it can."""
        part = name.partition(":")[2]
        if part and part not in classes:
            return f"fewer than {self.settings.min_cases} cases of {part}"
        if name in COMPONENT and len(classes) < 2:
            return f"fewer than two classes of {self.settings.min_cases} cases"
        return None

    def _level(self, code: int, values: Mapping[Any, Any], draws: Mapping[Any, Any]) -> dict[str, Any]:
        mask, why = self.members[code], self._too_few(code)
        result: dict[str, Any] = {
            "level": self._name(code),
            "recorded": code >= 0,
            "n": int(mask.sum()),
            "n_groups": self.n_groups[code],
            "cases": {name: int(n) for name, n in zip(self.classes, self.cases[code], strict=True)},
            "classes": self.own[code],
            "claimed": why is None,
            "why": why,
            "metrics": dict.fromkeys(self.settings.metrics),
            "against_rest": {},
        }
        if why is not None:
            return result
        missing: dict[str, list[str]] = {}
        for name in self.settings.metrics:
            lacking = self._lacking(name, self.own[code])
            if lacking:
                missing.setdefault(lacking, []).append(name)
                continue
            result["metrics"][name] = self._estimate(name, code, values[code], draws[code]).to_dict()
            if ("rest", code) in draws and not self._lacking(name, self.both[code]):
                result["against_rest"][name] = self._against_rest(name, code, values, draws)
        if missing:
            result["why"] = "; ".join(f"{', '.join(names)}: {lacking}" for lacking, names in missing.items())
        return result

    def _against_rest(
        self, name: str, code: int, values: Mapping[Any, Any], draws: Mapping[Any, Any]
    ) -> dict[str, Any]:
        """Return the difference of a level from the units of all other recorded levels."""
        classes, rest = self.both[code], ("rest", code)
        value, other = (float(_of(values[key], name, classes)[0]) for key in (code, rest))
        apart = _of(draws[code], name, classes) - _of(draws[rest], name, classes)
        holders = min(self._holders(name, key, classes) for key in (code, rest))
        estimate = interval(value - other, apart, holders, level=self.settings.level).to_dict()
        sides = frozenset(mask.tobytes() for mask in (self.members[code], self.rest[code]))
        return {
            "classes": classes if name in COMPONENT else None,
            "value": _number(value),
            "rest": _number(other),
            "difference": estimate["value"],
            "low": estimate["low"],
            "high": estimate["high"],
            "p": _number(_p_of_difference(value - other, apart, holders)),
            "test": (sides, tuple(classes) if name in COMPONENT else None),  # which test it is, for the adjustment
        }

    def _estimate(self, name: str, code: int, values: Mapping[str, Any], draws: Mapping[str, Any]) -> Estimate:
        """Return a level's metric with its interval."""
        value, replicates = (_of(side, name, self.own[code]) for side in (values, draws))
        holders = self._holders(name, code, self.own[code])
        sets = _restricted(self.found, self.members[code])
        return estimate_metric(
            name, sets, float(value[0]), replicates, holders, level=self.settings.level, classes=self.own[code]
        )

    def _compared(self, name: str) -> tuple[list[int], list[str]]:
        """Return the levels that a gap runs over and the classes that it is averaged over.

        Levels with the fewest classes are left out until the others share two: children have naevi and little else.
        """
        codes = [code for code in self.claimed if not self._lacking(name, self.own[code])]
        while True:
            shared = [one for one in self.classes if all(one in self.own[code] for code in codes)]
            if name not in COMPONENT or len(shared) > 1 or len(codes) < 2:
                return codes, shared
            poorest = min(codes, key=lambda code: (len(self.own[code]), self.members[code].sum()))
            codes = [code for code in codes if code != poorest]

    def _gaps(self, values: Mapping[Any, Any], draws: Mapping[Any, Any]) -> dict[str, Any]:
        """Return fairlearn's aggregates of each metric over the claimed levels, with intervals and tests."""
        compared = {name: self._compared(name) for name in self.settings.metrics}
        compared = {name: found for name, found in compared.items() if len(found[0]) > 1}
        permuted = self._permutation_tests(compared)
        result: dict[str, Any] = {}
        for name, (codes, shared) in compared.items():
            value = np.array([_of(values[code], name, shared)[0] for code in codes])
            replicates = np.stack([_of(draws[code], name, shared) for code in codes])
            holders = min(self._holders(name, code, shared) for code in codes)
            low, high = int(value.argmin()), int(value.argmax())
            worst, best = (low, high) if metric(name).higher_is_better else (high, low)
            if name in permuted:
                p, by_chance, test = permuted[name]
            else:
                noise = replicates - value[:, None]
                p, by_chance = wald(value, replicates, holders), float(np.nanmean(np.ptp(noise, axis=0)))
                test = "bootstrap Wald"
            result[name] = {
                "classes": shared if name in COMPONENT else None,
                "levels": [self._name(code) for code in codes],
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

    def _permutation_tests(
        self, compared: Mapping[str, tuple[list[int], list[str]]]
    ) -> dict[str, tuple[float, float, str]]:
        """Return by metric p of "no level differs", the gap expected by chance, and the test's name.

        Levels are dealt anew to the groups that are of one level; groups of several (a patient with lesions on arm and
        back) keep theirs. Where averages over classes are compared, only groups of the same classes exchange levels.
        Where most units belong to groups of several levels there is little to deal: the metric is left out, and Wald's
        test stands in. Metrics of the same levels and strata share their deals.
        """
        together: dict[tuple[tuple[int, ...], bool], list[str]] = {}
        for name, (levels, _) in compared.items():
            together.setdefault((tuple(levels), name in COMPONENT), []).append(name)
        result = {}
        for (codes, stratified), names in together.items():
            held = np.isin(self.levels.codes, codes)
            level_of_group = _level_of_groups(self.found, np.where(held, self.levels.codes, -1), held)
            if (level_of_group[self.found.group_of_unit[held]] >= 0).mean() <= 0.5:
                continue
            strata = _class_signature(self.found) if stratified else np.zeros(len(level_of_group), np.int64)
            within = " of the same classes" if stratified else ""
            words = f"permutation of levels among groups{within} ({self.settings.n_permutations:,} draws)"
            shared = {name: compared[name][1] for name in names}
            for name, (p, by_chance) in self._permute(shared, codes, held, level_of_group, strata).items():
                result[name] = p, by_chance, words
        return result

    def _permute(
        self,
        shared: Mapping[str, list[str]],
        codes: Sequence[int],
        held: np.ndarray,
        level_of_group: np.ndarray,
        strata: np.ndarray,
    ) -> dict[str, tuple[float, float]]:
        """Hand the levels to other groups at random and see how far apart they lie then, by metric.

        Args:
            shared: the metrics, and the classes that each is averaged over.
            codes: the levels compared.
            held: bool (units,), those of these levels.
            level_of_group: see :func:`_level_of_groups`.
            strata: int64 (groups,); levels are exchanged within.
        """
        # A group of several levels is taken apart into a block for each, which stays where it is.
        blocks = self.found.group_of_unit * (len(self.levels.names) + 1) + np.where(held, self.levels.codes, -1) + 1
        names, block_of_unit = np.unique(blocks, return_inverse=True)
        sets = [
            replace(cases, group=block_of_unit[place].astype(np.int64), n_groups=len(names))
            for cases, place in zip(self.found.sets, self.found.unit, strict=True)
        ]
        evaluation = Evaluation(sets, list(shared))
        level_of_block = names % (len(self.levels.names) + 1) - 1
        movable = np.flatnonzero((level_of_block >= 0) & (level_of_group[names // (len(self.levels.names) + 1)] >= 0))
        labels, stratum = level_of_block[movable], strata[names[movable] // (len(self.levels.names) + 1)]
        weights = np.array([self.members[code].sum() for code in codes], np.float64)
        weights /= weights.sum()
        order = np.argsort(stratum, kind="stable")
        everyone = evaluation.totals((level_of_block >= 0).astype(np.float32)[:, None])

        def statistics(assigned: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
            """Return spread and range (B,) of the levels when the movable blocks have ``assigned``, (B, movable)."""
            left = np.repeat(everyone, len(assigned), axis=1)
            per_level = []
            for code in codes[:-1]:
                counts = np.repeat((level_of_block == code).astype(np.float32)[:, None], len(assigned), axis=1)
                counts[movable] = (assigned == code).T
                totals = evaluation.totals(counts)
                left -= totals
                per_level.append(evaluation.from_totals(totals))
            per_level.append(evaluation.from_totals(left))  # the last level has what the others leave
            found = {}
            for name, classes in shared.items():
                levels = np.stack([_of(values, name, classes) for values in per_level])
                found[name] = weights @ (levels - weights @ levels) ** 2, np.ptp(levels, axis=0)
            return found

        observed = {name: float(spread[0]) for name, (spread, _) in statistics(labels[None]).items()}

        def block(number: int) -> dict[str, tuple[int, float, int]]:
            size = min(BLOCK, self.settings.n_permutations - number * BLOCK)
            random = generator(self.settings.seed, "subgroups", self.levels.column, number)
            shuffled = np.argsort(stratum + random.random((size, len(movable))), axis=1)
            assigned = np.empty((size, len(movable)), np.int64)
            assigned[:, order] = labels[shuffled]
            # NaN (a class is lost in this arrangement) counts as extreme, which errs on the side of doubt.
            return {
                name: (
                    int((~(spread < observed[name] - ROUNDING)).sum()),
                    float(np.nansum(gap)),
                    int((~np.isnan(gap)).sum()),
                )
                for name, (spread, gap) in statistics(assigned).items()
            }

        work = float(evaluation.rows.nnz) * self.settings.n_permutations * len(codes)
        parts = list(in_threads(block, -(-self.settings.n_permutations // BLOCK), "permutations", work))
        result = {}
        for name in shared:
            extreme, total, known = (sum(part[name][place] for part in parts) for place in range(3))
            result[name] = (1 + extreme) / (self.settings.n_permutations + 1), total / known if known else np.nan
        return result

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
        none = {"value": None, "low": None, "high": None}
        result: dict[str, Any] = {
            "positive": list(self.settings.positive),
            "levels": {},
            "demographic_parity_difference": none,
            "demographic_parity_ratio": none,
            "equalized_odds_difference": none,
        }
        if not self.claimed:
            return result
        ratios = Ratios(terms, groups, len(self.found.groups))
        draws = resample([ratios], n_boot=self.settings.n_boot, seed=self.settings.seed)[0]
        values = ratios.value()
        for code in self.claimed:
            result["levels"][self._name(code)] = {
                rate: share(self.found, [one[f"{rate}:{code}"] for one in terms], self.settings.level).to_dict()
                if self._base(terms, rate, code) >= self.settings.min_cases
                else None
                for rate in RATES
            }
        gaps = {}
        for rate in RATES:
            codes = [code for code in self.claimed if self._base(terms, rate, code) >= self.settings.min_cases]
            if len(codes) < 2:
                continue
            holders = min(self.n_groups[code] for code in codes)
            value = np.array([values[f"{rate}:{code}"] for code in codes])
            replicates = np.stack([draws[f"{rate}:{code}"] for code in codes])
            gap = range_interval(value, replicates, holders, self.settings.level)
            gaps[rate] = replace(gap, high=float(np.minimum(1.0, gap.high)))  # a rate cannot differ by more
            if rate == "selection_rate":
                result["demographic_parity_difference"] = gaps[rate].to_dict()
                result["demographic_parity_ratio"] = _ratio_interval(value, replicates, holders, self.settings.level)
        odds = [gaps[rate] for rate in RATES[1:] if rate in gaps]
        if odds:
            # The larger of two ranges lies between the larger of their lower and the larger of their upper ends.
            largest, low, high = (
                float(np.max([getattr(one, end) for one in odds])) for end in ("value", "low", "high")
            )
            result["equalized_odds_difference"] = Estimate(largest, low, high, "range").to_dict()
        return result

    def _base(self, terms: Sequence[Mapping[str, Any]], rate: str, code: int) -> float:
        """Return how many cases a rate of a level rests on."""
        return float(np.mean([one[f"{rate}:{code}"][1].sum() for one in terms]))


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
    if not moving.any():  # all right or none in every level: the bootstrap knows no spread, which is not certainty
        return Estimate(value, np.nan, np.nan, "range")
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


def _of(values: Mapping[str, np.ndarray], name: str, classes: Sequence[str]) -> np.ndarray:
    """Return a metric (B,), averaged over ``classes`` where it averages over classes."""
    if name not in COMPONENT:
        return values[name]
    return np.mean([values[f"{COMPONENT[name]}:{one}"] for one in classes], axis=0)


def _p_of_difference(difference: float, draws: np.ndarray, n_groups: int) -> float:
    """Return the two-sided p of a difference from its bootstrap replicates.

    As :func:`~dermlab.evaluate.compare.bootstrap_p`; where next to none of the replicates lie beyond 0, Student's t of
    the bootstrap's standard error, since a p no finer than 1 in 1,000 would not survive the adjustment for 60 tests.
    """
    from scipy.special import stdtr

    known = draws[~np.isnan(draws)]
    p = np.nan if np.isnan(difference) else bootstrap_p(draws, n_groups)
    if np.isnan(p) or min((known <= 0).sum(), (known >= 0).sum()) >= FEW_BEYOND or known.std() == 0:
        return p
    return min(p, float(2 * stdtr(n_groups - 1, -abs(difference) / known.std(ddof=1))))


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


def _groups_of_classes(found: CaseSets, units: np.ndarray) -> np.ndarray:
    """Return of how many groups the units (bool, all units) of each class are, and last all of them, int64 (C + 1,)."""
    truth, n_classes = _class_of_units(found)[units], len(found.sets[0].classes)
    group = found.group_of_unit[units]
    pairs = np.unique(group[truth >= 0] * n_classes + truth[truth >= 0])
    return np.append(np.bincount(pairs % n_classes, minlength=n_classes), len(np.unique(group)))


def _class_of_units(found: CaseSets) -> np.ndarray:
    truth = np.full(len(found.units), -1, np.int64)
    for cases, place in zip(found.sets, found.unit, strict=True):
        truth[place] = cases.truth
    return truth


def _level_of_groups(found: CaseSets, codes: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the level of each group's held units, -1 where none is held and -2 where they are of several."""
    low = np.full(len(found.groups), np.iinfo(np.int64).max)
    high = np.full(len(found.groups), -1)
    np.minimum.at(low, found.group_of_unit[held], codes[held])
    np.maximum.at(high, found.group_of_unit[held], codes[held])
    return np.where(high < 0, -1, np.where(low == high, high, -2))


def _class_signature(found: CaseSets) -> np.ndarray:
    """Return a code per group for the set of classes that its units are of, int64 (groups,)."""
    truth = _class_of_units(found)
    holds = np.zeros((len(found.groups), len(found.sets[0].classes)), bool)
    holds[found.group_of_unit[truth >= 0], truth[truth >= 0]] = True
    return np.unique(holds, axis=0, return_inverse=True)[1].ravel()


def _adjust(result: dict[str, Any], level: float) -> None:
    """Adjust the p values of each metric over all levels and columns, and those of the gaps over the columns.

    The same units against the same others are one test, in however many columns they meet.
    """
    n_tests = 0
    for name in result["metrics"]:
        tests: dict[Any, list[dict[str, Any]]] = {}
        gaps = []
        for column in result["columns"].values():
            for one in column["levels"]:
                if name in one["against_rest"]:
                    entry = one["against_rest"][name]
                    tests.setdefault(entry.pop("test"), []).append(entry)
            gaps += [column["gaps"][name]] if name in column["gaps"] else []
        n_tests += len(tests)
        better = metric(name).higher_is_better
        ps = [np.nan if members[0]["p"] is None else members[0]["p"] for members in tests.values()]
        for members, adjusted in zip(tests.values(), holm(ps), strict=True):
            for one in members:
                one["p_adjusted"] = _number(adjusted)
                significant = adjusted < 1 - level and one["difference"] != 0
                one["verdict"] = (BETTER if (one["difference"] > 0) == better else WORSE) if significant else NEITHER
        ps = [np.nan if gap["p"] is None else gap["p"] for gap in gaps]
        for gap, adjusted in zip(gaps, holm(ps), strict=True):
            gap["p_adjusted"] = _number(adjusted)
            gap["verdict"] = DIFFER if adjusted < 1 - level else NEITHER
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
