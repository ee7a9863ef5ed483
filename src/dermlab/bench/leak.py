"""How much of the accuracy was the leak: one head fitted without the columns that give the label away, and with them.

The audit says *that* a column leaks; this says what it is worth, on the same test cases, paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dermlab.adapt.config import HeadConfig
from dermlab.adapt.heads import make_head
from dermlab.adapt.probe import WITH_QUESTIONNAIRE, assemble, over_classes
from dermlab.audit.findings import Finding
from dermlab.audit.leakage import assignments
from dermlab.core.progress import progress
from dermlab.core.randomness import generator
from dermlab.data.metadata import QuestionnaireEncoder
from dermlab.evaluate.compare import compare_predictions
from dermlab.evaluate.predictions import PROBABILITY, Predictions
from dermlab.evaluate.summary import summarise

if TYPE_CHECKING:
    from dermlab.data.dataset import Dataset
    from dermlab.features.extract import Features

METRICS = ("top1", "balanced_accuracy", "macro_f1", "auroc")

CLEAN, PROXIES, BLANKS = "clean", "with proxies", "with proxies and blanks"


@dataclass(frozen=True)
class Leak:
    """The questionnaire columns that give the label away.

    Attributes:
        proxies: those whose answers do.
        blanks: those whose blanks do; the questionnaire encoder drops them.
        reasons: column -> why, a clause for a person.
        admitted: proxies that this bake-off's models get as inputs, by waiver.
    """

    proxies: tuple[str, ...]
    blanks: tuple[str, ...]
    reasons: dict[str, str]
    admitted: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.proxies or self.blanks)


def reads_questionnaire(head: HeadConfig) -> bool:
    """Tell whether a head gets the questionnaire."""
    return head.kind in WITH_QUESTIONNAIRE or bool(head.with_questionnaire)


def find_leak(findings: Sequence[Finding], dataset: Dataset) -> Leak:
    """Read off the audit's findings which questionnaire columns leak.

    Args:
        findings: what :func:`dermlab.audit.audit` found on this data set.
        dataset: whose card says which columns make up the questionnaire.
    """
    listed = [column.column for column in dataset.card.metadata]
    reasons: dict[str, str] = {}
    proxies, blanks, admitted = set(), set(), set()
    for finding in findings:
        evidence = finding.evidence
        if finding.code.startswith("proxy:") and evidence["column"] in listed:
            proxies.add(evidence["column"])
            reasons[evidence["column"]] = finding.message.partition(": ")[2]
            if evidence["role"] == "input":
                admitted.add(evidence["column"])
        elif finding.code == "missingness":
            blanks |= set(evidence["columns"]) & set(listed)
            for column in evidence["columns"]:
                reasons.setdefault(column, finding.message.partition(": ")[2])
    # What the card calls a proxy no model gets, whether the audit's test has the power to see it or not.
    proxies |= set(dataset.card.label_proxies) & set(listed)
    blanks -= proxies
    return Leak(
        tuple(name for name in listed if name in proxies),
        tuple(name for name in listed if name in blanks),
        {name: reasons.get(name, "the card calls it a label proxy") for name in listed if name in proxies | blanks},
        tuple(name for name in listed if name in admitted),
    )


def measure_leak(
    dataset: Dataset,
    target: str,
    split: pd.DataFrame,
    leak: Leak,
    *,
    name: str = "questionnaire",
    head: HeadConfig | None = None,
    features: Features | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit one head on the clean questionnaire, with the proxies, and with proxies and leaking blanks; compare on test.

    Args:
        dataset: the data set.
        target: a target of one label an image.
        split: with train, val and test parts in every fold.
        leak: what :func:`find_leak` found.
        name: what tables call the model.
        head: the head; default: the questionnaire's own.
        features: an encoder's features of this data set, put beside the questionnaire; None: no photo is looked at.
        n_boot: bootstrap replicates of the intervals.
        seed: of heads and bootstrap.

    Returns:
        A JSON-ready dictionary::

            {"name", "encoder", "head", "n", "n_groups", "unit", "group_by", "split": "test",
             "columns": [{"column", "kind": "value" | "missingness", "reason"}, ...],
             "steps": [{"inputs": "clean" | "with proxies" | "with proxies and blanks", "columns": [names used],
                        "metrics": {"top1": {"value", "low", "high"}, "balanced_accuracy", "macro_f1", "auroc"}}, ...],
             "differences": [{"a": a later step, "b": "clean", "metric", "n", "n_groups", "difference", "low", "high",
                              "p", "p_adjusted", "test", "verdict", ...}],      # as in comparison.json
             "warnings": []}

        The differences say how much of the accuracy with the leak was the leak. A step that would change nothing (no
        proxy, no leaking blank) is left out. The first step of a data set without any clean column is the majority
        class, and says so in ``warnings``.
    """
    head = head or HeadConfig(kind="questionnaire")
    every = [column.column for column in dataset.card.metadata if column.column != target]
    clean = [column for column in every if column not in leak.proxies and column not in leak.blanks]
    steps: dict[str, tuple[list[str], bool]] = {CLEAN: (clean, True)}
    if leak.proxies:
        steps[PROXIES] = ([column for column in every if column not in leak.blanks], True)
    if leak.blanks:
        steps[BLANKS if leak.proxies else "with blanks"] = (every, False)
    warnings: list[str] = []
    if not clean and features is None:
        warnings.append("no questionnaire column is clean: 'clean' answers with the shares of the classes")
    tables = {}
    with progress(f"measure the leak: {name}", len(steps), "fits") as advance:
        for inputs, (columns, drop) in steps.items():
            tables[inputs] = _predict(dataset, target, split, head, columns, drop, features, seed)
            advance(1)
    figures = {inputs: summarise(table, n_boot=n_boot, seed=seed) for inputs, table in tables.items()}
    # The leaky ones come first in a pair, so that a difference above 0 is what the leak gave.
    pairs = compare_predictions(dict(reversed(tables.items())), metrics=METRICS, n_boot=n_boot, seed=seed)
    first = figures[CLEAN]
    return {
        "name": name,
        "encoder": None if features is None else features.encoder["name"],
        "head": head.kind,
        **{key: first[key] for key in ("n", "n_groups", "unit", "group_by", "split")},
        "columns": [
            {"column": column, "kind": "value" if column in leak.proxies else "missingness", "reason": reason}
            for column, reason in leak.reasons.items()
        ],
        "steps": [
            {
                "inputs": inputs,
                "columns": steps[inputs][0],
                "metrics": {metric: figures[inputs][metric] for metric in METRICS},
            }
            for inputs in steps
        ],
        "differences": [pair for pair in pairs if pair["b"] == CLEAN],
        "warnings": warnings,
    }


def _predict(
    dataset: Dataset,
    target: str,
    split: pd.DataFrame,
    head: HeadConfig,
    columns: Sequence[str],
    drop_leaking: bool,
    features: Features | None,
    seed: int,
) -> Predictions:
    """Fit one head on every fold with these columns and predict the test part."""
    wanted = dataset.card.target(target)
    labels, groups = dataset.labels(target), dataset.groups()
    labelled = np.array([label is not None for label in labels], dtype=bool)
    usable = labelled if features is None else labelled & features.valid
    embedding = None if features is None else features.values
    described = [column for column in dataset.card.metadata if column.column in columns]
    questionnaire = dataset.manifest[[column.column for column in described]]
    frames = []
    for repeat, fold, part in assignments(split):
        train, val, test = (np.flatnonzero((part == name) & usable) for name in ("train", "val", "test"))
        encoder = QuestionnaireEncoder(drop_leaking=drop_leaking)
        encoder.fit(questionnaire.iloc[train], labels[train], described, groups=groups[train])
        X = assemble(embedding, questionnaire, encoder if encoder.feature_names_ else None, len(part))
        model = make_head(
            head if encoder.feature_names_ or embedding is not None else HeadConfig(kind="majority"),
            seed=int(generator(seed, "leak", repeat, fold).integers(2**31)),
            n_embedding=None if embedding is None else embedding.shape[1],
            blocks=encoder.blocks_,
        )
        model.fit(
            X[train],
            labels[train].astype(str),
            validation=(X[val], labels[val].astype(str)) if len(val) else None,
            groups=groups[train],
        )
        probabilities = over_classes(model.predict_proba(X[test]), model.classes_, wanted.classes)
        frame = pd.DataFrame(
            {
                "image_id": dataset.image_ids[test],
                "unit": dataset.units()[test],
                "group": groups[test],
                "target": target,
                "split": "test",
                "fold": fold,
                "repeat": repeat,
                "seed": seed,
                "label": pd.Series(labels[test], dtype="string"),
            }
        )
        for code, name in enumerate(wanted.classes):
            frame[PROBABILITY + name] = probabilities[:, code]
        frames.append(frame)
    meta = {
        "target": target,
        "kind": wanted.kind,
        "classes": list(wanted.classes),
        "unit": dataset.card.unit,
        "group_by": dataset.group_column(),
        "pooling": dataset.card.pooling,
    }
    return Predictions(pd.concat(frames, ignore_index=True), tuple(wanted.classes), meta)
