"""Everything that one predictions table can say: one call for all analyses, each switched off by a word.

A part that the table does not allow (no ``val`` rows, hard labels, no column that describes the patients) says so in
one line and stops nothing. The analyses are those of this room; what they mean is told where they are.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from dermlab.core.config import Config
from dermlab.core.errors import InputError
from dermlab.core.progress import progress

if TYPE_CHECKING:
    import pandas as pd

    from dermlab.evaluate.predictions import Predictions

PARTS = (
    *("calibration", "selective", "referral", "conformal", "subgroups", "frequency"),
    *("costs", "hierarchy", "prior_shift", "seeds"),
)
DEFAULT_ERROR = 0.1
DEFAULT_SENSITIVITY = 0.95
ERROR = "error"
_PROMISE = re.compile(r"^(?P<who>.+?)\s*(?P<sign>>=|<=|=)\s*(?P<aim>[0-9.]+)$")


class Assessment(Config):
    """What is asked of a predictions table beyond its metrics; each part can be left out."""

    skip: tuple[Literal[PARTS], ...] = Field(  # type: ignore[valid-type]
        (), description="parts to leave out: " + ", ".join(PARTS)
    )
    subgroups: tuple[str, ...] = Field(
        (),
        description="columns, and pairs such as sex*age, to break results down by; default: the usual ones there are",
    )
    min_n: int = Field(30, ge=2, description="fewest cases of a subgroup that anything is claimed of")
    positive: tuple[str, ...] = Field(
        (), description="classes that count as positive in fairness measures; default: the hierarchy's malignant ones"
    )
    coverage: float = Field(0.9, gt=0, lt=1, description="share of cases whose differential diagnosis holds the truth")
    class_conditional: bool = Field(False, description="promise that coverage for each class, with larger sets")
    refer: tuple[str, ...] = Field(
        (),
        description="rules of referral to a person, chosen on val: error<=0.1, MEL>=0.95, BCC+MEL+SCC>=0.9, "
        "or two of them joined by 'and'; default: error<=0.1, and malignant>=0.95 where there is that branch",
    )
    prevalence: dict[str, float] | None = Field(
        None, description="share of every class where the model will be used; of two classes: {MEL: 0.02, NEV: 0.98}"
    )
    train_counts: dict[str, int] | None = Field(None, description="training images of each class, {MEL: 40, NEV: 900}")

    @field_validator("refer")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for rule in value:
            promises(rule)
        return value


@dataclass(frozen=True)
class Known:
    """What the data set's card, or the run, knows beyond the table.

    Attributes:
        hierarchy: branch -> classes.
        cost_matrix: (C, C) in the order of the table's classes, row = the true class, column = the decision.
        train_counts: class -> training images (of one fold).
    """

    hierarchy: Mapping[str, Sequence[str]] | None = None
    cost_matrix: Sequence[Sequence[float]] | None = None
    train_counts: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Assessed:
    """What was found.

    Attributes:
        parts: by name of :data:`PARTS` its JSON-able result; of one that could not be computed ``{"skipped": reason}``.
        differential: the conformal sets, a row for each case, as :func:`dermlab.evaluate.conformal.conformal_sets`
            returns them; None where there are none.
        seconds: how long each part took.
    """

    parts: dict[str, dict[str, Any]]
    differential: pd.DataFrame | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def assess(
    predictions: Predictions,
    settings: Assessment | None = None,
    known: Known | None = None,
    *,
    split: str = "test",
    n_boot: int = 2000,
    seed: int = 0,
    strict: bool = False,
) -> Assessed:
    """Return all that a predictions table can say beyond ``metrics.json``.

    Args:
        predictions: any table; folds, repeats and seeds are handled by each part.
        settings: what is asked; None: everything, at its defaults.
        known: the card's hierarchy and costs, and training counts.
        split: the split reported; thresholds, temperatures and quantiles come from ``val``.
        n_boot: bootstrap replicates.
        seed: of bootstraps and permutations.
        strict: raise where a part for which ``settings`` name columns, rules, shares or counts cannot be computed.

    Returns:
        The parts. Their schemas stand with :func:`~dermlab.evaluate.calibration.calibration_report`,
        :func:`~dermlab.evaluate.selective.risk_coverage` (``selective``),
        :func:`~dermlab.evaluate.selective.referral` (``referral``: ``{"rules": [{"rule", …}]}``),
        :func:`~dermlab.evaluate.conformal.conformal_sets`, :func:`~dermlab.evaluate.subgroups.subgroups` (and
        ``not_looked_at``: usual columns that the table has and ``settings.subgroups`` leaves out),
        :func:`~dermlab.evaluate.frequency.by_frequency`, :func:`~dermlab.evaluate.costs.expected_cost` (``costs``),
        :func:`~dermlab.evaluate.costs.hierarchy_metrics`, :func:`~dermlab.evaluate.shift.prior_shift` and
        :func:`~dermlab.evaluate.seeds.compare_recipes` (``seeds``). Parts that nothing asks for (no cost matrix, one
        seed, no stated prevalence) are absent.

    Raises:
        InputError: only where ``strict``.
    """
    settings, known = settings or Assessment(), known or Known()
    work = _Work(predictions, settings, known, {"split": split, "n_boot": n_boot, "seed": seed})
    wanted = [name for name in work.wanted() if name not in settings.skip]
    named = work.named() if strict else frozenset()
    parts: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    with progress("assessing", len(wanted), "parts") as advance:
        for name in wanted:
            started = time.monotonic()
            try:
                parts[name] = getattr(work, name)()
            except InputError as error:
                if name in named:
                    raise
                parts[name] = {"skipped": str(error).removeprefix(f"{predictions.source}: ")}
            seconds[name] = time.monotonic() - started
            advance(1)
    return Assessed(parts, work.differential, seconds)


def write_parts(folder: str | Path, assessed: Assessed) -> list[Path]:
    """Write each part as ``<part>.json`` and the differential diagnoses as CSV; what an earlier run left is removed."""
    from dermlab.core.files import atomic_path, write_json

    folder = Path(folder)
    written = []
    for name in PARTS:
        path = folder / f"{name}.json"
        if name in assessed.parts:
            written.append(write_json(path, assessed.parts[name]))
        else:
            path.unlink(missing_ok=True)
    path = folder / "differential.csv"
    path.unlink(missing_ok=True)
    if assessed.differential is not None:
        sets = assessed.differential.copy()
        sets["set"] = [" ".join(names) for names in sets["set"]]
        with atomic_path(path) as temporary:
            sets.to_csv(temporary, index=False)
        written.append(path)
    return written


def promises(rule: str) -> tuple[float | None, dict[str, float]]:
    """Read a rule of referral: ``error<=0.1``, ``MEL>=0.95`` or several joined by ``and``.

    Returns:
        The largest error among the cases kept (None: no such promise), and the least sensitivity by class or classes.

    Raises:
        ValueError: it is no rule.
    """
    max_error: float | None = None
    sensitivity: dict[str, float] = {}
    for part in re.split(r"\s+and\s+", rule.strip()):
        found = _PROMISE.match(part.strip())
        if found is None:
            raise ValueError(f"{part!r} is no rule of referral; write error<=0.1 or MEL>=0.95")
        who, sign, aim = found["who"].strip(), found["sign"], float(found["aim"])
        if who == ERROR:
            if sign == ">=" or max_error is not None:
                raise ValueError(f"{part!r}: an error is kept below a number, once: error<=0.1")
            max_error = aim
        elif sign == "<=":
            raise ValueError(f"{part!r}: a sensitivity is kept above a number: {who}>={found['aim']}")
        else:
            sensitivity[who] = aim
        if not 0 < aim < 1:
            raise ValueError(f"{part!r}: {aim:g} is not between 0 and 1")
    return max_error, sensitivity


class _Work:
    """The parts, one method each, by the names of :data:`PARTS`."""

    def __init__(self, predictions: Predictions, settings: Assessment, known: Known, how: Mapping[str, Any]) -> None:
        self.predictions, self.settings, self.known, self.how = predictions, settings, known, how
        self.differential: pd.DataFrame | None = None

    def wanted(self) -> list[str]:
        """Return the parts that are asked for, or always made."""
        there: dict[str, Callable[[], bool]] = {
            "frequency": lambda: bool(self.train_counts()),
            "costs": lambda: self.known.cost_matrix is not None,
            "hierarchy": lambda: self.known.hierarchy is not None,
            "prior_shift": lambda: self.settings.prevalence is not None,
            "seeds": lambda: self.predictions.frame["seed"].nunique() > 1,
        }
        return [name for name in PARTS if name not in there or there[name]()]

    def named(self) -> frozenset[str]:
        """Return the parts for which the settings name something that has to exist."""
        settings = self.settings
        asked = {
            "subgroups": settings.subgroups or settings.positive,
            "referral": settings.refer,
            "prior_shift": settings.prevalence,
            "frequency": settings.train_counts,
        }
        return frozenset(name for name, value in asked.items() if value)

    def train_counts(self) -> Mapping[str, int] | None:
        return self.settings.train_counts or self.known.train_counts

    def branches(self) -> dict[str, tuple[str, ...]]:
        """Return the hierarchy's branches, as far as the table's classes are in them."""
        found = {
            branch: tuple(name for name in members if name in self.predictions.classes)
            for branch, members in (self.known.hierarchy or {}).items()
        }
        return {branch: members for branch, members in found.items() if members}

    def calibration(self) -> dict[str, Any]:
        from dermlab.evaluate.calibration import calibration_report

        return calibration_report(self.predictions, **self.how)

    def selective(self) -> dict[str, Any]:
        from dermlab.evaluate.selective import risk_coverage

        return risk_coverage(self.predictions, **self.how)

    def referral(self) -> dict[str, Any]:
        from dermlab.evaluate.selective import referral

        rules = self.settings.refer
        if not rules:
            malignant = "malignant" in self.branches()
            rules = (f"{ERROR}<={DEFAULT_ERROR:g}", *[f"malignant>={DEFAULT_SENSITIVITY:g}"] * malignant)
        found = []
        for rule in rules:
            max_error, sensitivity = promises(rule)
            named: dict[Any, float] = {self.branches().get(name, name): aim for name, aim in sensitivity.items()}
            result = referral(self.predictions, max_error=max_error, sensitivity=named or None, **self.how)
            found.append({"rule": rule, **result})
        heading = {key: found[0][key] for key in ("n", "n_groups", "unit", "group_by", "split")}
        told = list(dict.fromkeys(text for result in found for text in result["warnings"]))
        return {**heading, "rules": found, "warnings": told}

    def conformal(self) -> dict[str, Any]:
        from dermlab.evaluate.conformal import conformal_sets

        self.differential, result = conformal_sets(
            self.predictions,
            coverage=self.settings.coverage,
            class_conditional=self.settings.class_conditional,
            subgroups=self.settings.subgroups or None,
            **self.how,
        )
        return result

    def subgroups(self) -> dict[str, Any]:
        from dermlab.evaluate.levels import PAIR, STANDARD, describing_columns
        from dermlab.evaluate.subgroups import subgroups

        asked = {part for name in self.settings.subgroups for part in name.split(PAIR)}
        result = subgroups(
            self.predictions,
            columns=self.settings.subgroups or None,
            positive=self.settings.positive or self.branches().get("malignant"),
            min_n=self.settings.min_n,
            **self.how,
        )
        usual = [name for name in describing_columns(self.predictions) if name.lower() in STANDARD]
        # A page that says "no subgroup is worse" must say of which columns that was never asked.
        passed = [name for name in usual if name not in asked] if asked else []
        return {**result, "not_looked_at": passed} if passed else result

    def frequency(self) -> dict[str, Any]:
        from dermlab.evaluate.frequency import by_frequency

        return by_frequency(self.predictions, self.train_counts() or {}, **self.how)

    def costs(self) -> dict[str, Any]:
        from dermlab.evaluate.costs import expected_cost

        return expected_cost(self.predictions, self.known.cost_matrix or (), **self.how)

    def hierarchy(self) -> dict[str, Any]:
        from dermlab.evaluate.costs import hierarchy_metrics

        return hierarchy_metrics(self.predictions, self.branches(), **self.how)

    def prior_shift(self) -> dict[str, Any]:
        from dermlab.evaluate.shift import class_shares, prior_shift

        shares = class_shares(self.predictions, "val")
        return prior_shift(self.predictions, train_priors=shares, prevalence=self.settings.prevalence, **self.how)[1]

    def seeds(self) -> dict[str, Any]:
        from dermlab.evaluate.seeds import compare_recipes

        return compare_recipes({str(self.predictions.meta.get("model")): [self.predictions]}, **self.how)
