"""The bake-off, top to bottom: gate, split, candidates, ensemble, winner, comparison, decision, record.

``val`` chooses, ``test`` reports: what a test label could change is computed after the winner is known.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dermlab.bench.assessment import assess_winner
from dermlab.bench.baseline import Baseline, read_baseline
from dermlab.bench.candidates import Setting, plan, run_candidates
from dermlab.bench.config import BakeoffConfig
from dermlab.bench.decision import Decision, Rival, Scope, decide
from dermlab.bench.decomposition import decompose_outcomes
from dermlab.bench.ensemble import run_ensemble
from dermlab.bench.leak import find_leak, measure_leak, reads_questionnaire
from dermlab.bench.outcome import Outcome, choose_winner, order
from dermlab.bench.record import make_record, told, write_leaderboard
from dermlab.bench.screening import screen
from dermlab.bench.terms import data_terms
from dermlab.bench.training import compare_seeds, read_trainings
from dermlab.core.config import write_yaml
from dermlab.core.device import resolve
from dermlab.core.errors import DermlabError, InputError
from dermlab.core.files import write_json, write_text
from dermlab.core.progress import note, warn

if TYPE_CHECKING:
    import pandas as pd

    from dermlab.audit.findings import Finding
    from dermlab.data.card import Target
    from dermlab.data.dataset import Dataset
    from dermlab.evaluate.predictions import Predictions

SEEN_IN_TRAINING = ("group-overlap", "duplicates", "near-duplicates")
"""Findings that mean that a tested photo, or another of its patient, was trained on."""


@dataclass(frozen=True)
class BakeoffResult:
    """What a bake-off found.

    Attributes:
        folder: where everything is written.
        outcomes: the candidates in the leaderboard's order.
        decision: what follows.
        metric: what chose and compared.
        seconds: how long it took.
    """

    folder: Path
    outcomes: tuple[Outcome, ...]
    decision: Decision
    metric: str
    seconds: float

    @property
    def winner(self) -> Outcome | None:
        """The winner, if there is one."""
        return next((outcome for outcome in self.outcomes if outcome.winner), None)


def run_bakeoff(config: BakeoffConfig, out: str | Path) -> BakeoffResult:
    """Run the candidates that are missing, choose a winner, compare all of them and write the record.

    Args:
        config: what is asked.
        out: the bake-off's folder. What an earlier run left there is used again where it was made with the same data,
            split, weights and settings.

    Returns:
        The outcomes in the leaderboard's order, and the decision.

    Raises:
        InputError: the data, the split, the baseline or a finding that is not waived will not do; one line says why.
        DermlabError: no candidate has a result.
    """
    started = time.monotonic()
    setting = open_setting(config, Path(out))
    config, out, dataset, target, split = setting.config, setting.out, setting.dataset, setting.target, setting.split
    _take_up(out, config)
    baseline = read_baseline(config, dataset, target, split)
    findings, waivers = _gate(dataset, config, target)
    plans, screening = screen(setting, plan(config, dataset))
    outcomes = run_candidates(setting, plans)
    if config.ensemble:
        outcomes += run_ensemble(setting, outcomes)
    winner = choose_winner(outcomes)
    if winner is not None:
        winner.winner = True
    outcomes = order(outcomes)
    # From here on the choice stands, and the test part may speak.
    note("comparing on test")
    tables = {item.name: item.table for item in outcomes if item.scored and item.table is not None}
    comparison = _compare(setting, outcomes, tables)
    rival = _rival(setting, winner, outcomes, tables, baseline) if winner is not None else None
    decision = decide(
        outcomes,
        comparison,
        metric=config.metric,
        use=config.use,
        tested=_tested(setting, winner, findings),
        rival=rival,
        baseline=baseline.name if baseline is not None else None,
        margin=config.margin,
    )
    seconds = time.monotonic() - started
    write_json(out / "comparison.json", comparison)
    write_leaderboard(out / "leaderboard.csv", outcomes)
    record = make_record(setting, outcomes, comparison, decision, findings, waivers, baseline, seconds)
    subject = winner or next((item for item in outcomes if item.scored), None)
    _write_further(setting, outcomes, screening)
    if subject is not None and subject.own_table is not None:
        note(f"assessing {subject.name}")
        assess_winner(subject.own_table, dataset, split, out, config.assessment, n_boot=config.n_boot, seed=config.seed)
    try:
        record["leak"] = _leak(setting, winner, findings)
    except DermlabError as error:  # the candidates have their results, whatever becomes of this
        warn(f"what the leaking columns are worth could not be measured: {error}")
        record["leak"] = None
    write_json(out / "bakeoff.json", record)
    if not tables:
        raise DermlabError(f"{out}: no candidate has a result; the first error: {outcomes[0].error}")
    return BakeoffResult(out, tuple(outcomes), decision, config.metric, seconds)


def open_setting(config: BakeoffConfig, out: Path) -> Setting:
    """Open data and split and resolve what all candidates have in common; a split that is missing is made.

    Args:
        config: what is asked.
        out: the bake-off's folder; nothing is written there.

    Raises:
        InputError: data, target, encoders' names or split will not do.
    """
    from dermlab.data.dataset import Dataset
    from dermlab.models.known import require_known

    dataset = Dataset.open(config.data)
    target = dataset.card.target(config.target)
    config = _for_target(config, target)
    require_known(config.encoder_names())
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out must be a folder")
    config = _with_its_folds(config, dataset, target.column)
    split = _split(dataset, config, target.column)
    runtime = resolve(config.device, config.precision)
    note(f"device: {runtime.device} in {runtime.precision} ({runtime.reason})")
    return Setting(config, out, dataset, target.column, split, data_terms(dataset.folder, config.use), runtime)


def _for_target(config: BakeoffConfig, target: Target) -> BakeoffConfig:
    """Return the config as a target can use it; what it cannot use is refused in one line."""
    if config.metric == "quadratic_kappa" and target.kind != "ordinal":
        raise InputError(f"metric: quadratic_kappa needs a target of kind ordinal; {target.column!r} is {target.kind}")
    if target.kind != "multilabel":
        return config
    for name in ("max_train_per_class", "max_val_per_class"):
        if getattr(config, name) is not None:
            raise InputError(f"{name}: counts photos of one class; {target.column!r} has several labels a photo")
    if config.ensemble and len(config.everything()) > 1:
        note(f"ensemble: mixes models of one answer a case; {target.column!r} has several labels, so there is none")
    metric = "auroc" if config.metric == "top1" else config.metric
    return config.model_copy(update={"metric": metric, "ensemble": False})


def _write_further(setting: Setting, outcomes: Sequence[Outcome], screening: dict[str, Any] | None) -> None:
    """Write what a bake-off of recipes has beyond the leaderboard: screening, curves, seeds, what each change gave."""
    found = {
        "screening": screening,
        "training": read_trainings(setting, outcomes, screening),
        "recipes": compare_seeds(setting, outcomes),
        "decomposition": decompose_outcomes(setting, outcomes),
    }
    for name, part in found.items():
        path = setting.out / f"{name}.json"
        if part is not None:
            write_json(path, part)
        else:
            path.unlink(missing_ok=True)  # of an earlier run with another config


def _take_up(out: Path, config: BakeoffConfig) -> None:
    """Make the folder, or go on in one that holds a bake-off; anything else in it is not ours to mix with."""
    if out.is_dir() and any(out.iterdir()) and not (out / "config.yaml").exists():
        raise InputError(f"{out}: is not empty and holds no bake-off; choose another --out")
    write_text(out / "config.yaml", write_yaml(told(config)))


def _with_its_folds(config: BakeoffConfig, dataset: Dataset, target: str) -> BakeoffConfig:
    """Name the folds that ``dermlab data split`` made, where they are the very ones that would be made here."""
    from dermlab.data.splits import split_by_folds

    if config.split is not None or config.folds is None or config.split_name in dataset.split_names():
        return config
    name = config.split_name.removesuffix(f"-seed{config.seed}")
    if name not in dataset.split_names():
        return config
    made = split_by_folds(dataset, config.folds, n_repeats=config.repeats, target=target, seed=config.seed)
    try:
        there = dataset.read_split(name)
    except InputError:  # of photos that are no longer there
        return config
    is_the_same = there["split"].astype(object).equals(made["split"].astype(object))
    return config.model_copy(update={"split": name}) if is_the_same else config


def _split(dataset: Dataset, config: BakeoffConfig, target: str) -> pd.DataFrame:
    """Read the split, or make and keep it: grouped, stratified, seeded."""
    from dermlab.data.splits import split_by_folds, split_by_fraction

    name = config.split_name
    if name in dataset.split_names():
        split = dataset.read_split(name)
        n_folds = split["fold"].nunique()
        if config.folds is not None and n_folds != config.folds:
            raise InputError(f"folds: {config.folds} asked for, but split {name!r} has {n_folds}; name another split:")
    else:
        by = dataset.group_column()
        if config.folds is None:
            note(f"split {name!r}: made here, 60/20/20 by {by}, seed {config.seed}")
            made = split_by_fraction(dataset, target=target, seed=config.seed)
        else:
            note(f"split {name!r}: made here, {config.folds} folds by {by}, seed {config.seed}")
            made = split_by_folds(dataset, config.folds, n_repeats=config.repeats, target=target, seed=config.seed)
        dataset.write_split(name, made)
        split = dataset.read_split(name)
    for (repeat, fold), rows in split.groupby(["repeat", "fold"], sort=True):
        absent = [part for part in ("train", "val", "test") if part not in set(rows["split"])]
        if absent:
            raise InputError(
                f"split {name!r}, repeat {repeat}, fold {fold}: has no {absent[0]} part; a bake-off fits on train, "
                "chooses on val and reports test"
            )
    return split


def _gate(dataset: Dataset, config: BakeoffConfig, target: str) -> tuple[list[Finding], list[str]]:
    from dermlab.audit import audit, gate
    from dermlab.audit.findings import check_waivers

    check_waivers(config.waive)
    note("checking the data")
    findings = audit(dataset, split=config.split_name, target=target, inputs=config.include_columns)
    waivers = gate(findings, config.waive, split=config.split_name)
    for line in waivers:
        warn(line)
    return findings, waivers


def _leak(setting: Setting, winner: Outcome | None, findings: Sequence[Finding]) -> dict[str, Any] | None:
    """Measure what the columns that give the label away are worth, to the questionnaire and to a winner that has them.

    Returns:
        None where no questionnaire column leaks, else ``{"admitted": [columns], "models": [...]}``, each model as
        :func:`dermlab.bench.leak.measure_leak` describes it; ``{"skipped": reason}`` of a multi-label target.
    """
    leak = find_leak(findings, setting.dataset)
    if not leak:
        return None
    if setting.dataset.card.target(setting.target).kind == "multilabel":
        return {"skipped": "what leaking columns are worth is measured for one answer a case, not for several labels"}
    config = setting.config
    how: dict[str, Any] = {"n_boot": config.n_boot, "seed": config.seed}
    models = [measure_leak(setting.dataset, setting.target, setting.split, leak, **how)]
    planned = {item.name: item for item in plan(config, setting.dataset)}
    item = planned.get(winner.name) if winner is not None else None
    if leak.admitted and item and item.encoder and item.head and reads_questionnaire(item.head):
        from dermlab.features.extract import embed

        features = embed(setting.dataset, item.encoder, runtime=setting.runtime, seed=config.seed)
        models.append(
            measure_leak(
                setting.dataset,
                setting.target,
                setting.split,
                leak,
                name=item.name,
                head=item.head,
                features=features,
                **how,
            )
        )
    return {"admitted": list(leak.admitted), "models": models}


def _compare(setting: Setting, outcomes: Sequence[Outcome], tables: dict[str, Predictions]) -> list[dict[str, Any]]:
    """Compare all pairs on the photos that every candidate could read, and write the ranks into the outcomes."""
    from dermlab.evaluate.compare import compare_predictions, ranks

    comparison: list[dict[str, Any]] = []
    if len(tables) > 1:
        readable = set.intersection(*(set(table.frame["image_id"]) for table in tables.values()))
        comparison = compare_predictions(
            {
                name: table.with_frame(table.frame[table.frame["image_id"].isin(readable)].reset_index(drop=True))
                for name, table in tables.items()
            },
            metrics=(setting.config.metric,),
            n_boot=setting.config.n_boot,
            seed=setting.config.seed,
        )
    placed = ranks(comparison, list(tables), setting.config.metric)
    for outcome in outcomes:
        outcome.rank = placed.get(outcome.name)
    return comparison


def _tested(setting: Setting, winner: Outcome | None, findings: Sequence[Finding]) -> Scope:
    """Return what there is to say of the photos that the winner was tested on."""
    dataset, column = setting.dataset, setting.dataset.group_column()
    met = {finding.code for finding in findings if finding.severity == "error"} & set(setting.config.waive)
    hierarchy = dataset.card.target(setting.target).hierarchy or {}
    n_without = 0
    if winner is not None and winner.table is not None and column in dataset.manifest:
        named = dataset.manifest[column].notna().to_numpy()
        rows = np.isin(dataset.image_ids, winner.table.test().frame["image_id"].to_numpy(dtype=object))
        n_without = len(np.unique(dataset.groups()[rows & ~named]))
    return Scope(
        group_by=column,
        n_without=n_without,
        waived=tuple(code for code in SEEN_IN_TRAINING if code in met),
        malignant=tuple(name for branch, names in hierarchy.items() if "malig" in branch.casefold() for name in names),
    )


def _rival(
    setting: Setting,
    winner: Outcome,
    outcomes: Sequence[Outcome],
    tables: dict[str, Predictions],
    baseline: Baseline | None,
) -> Rival | None:
    """Compare the winner with the baseline, else with the best floor; a floor that won, with the best candidate."""
    from dermlab.evaluate.compare import compare_predictions

    ours = tables[winner.name].test()
    kind: Literal["baseline", "floor", "candidate"] = "floor" if winner.kind != "floor" else "candidate"
    rivals = [
        item for item in outcomes if (item.kind == "floor") == (kind == "floor") and item.scored and not item.flags
    ]
    if baseline is not None:
        kind, name, theirs = "baseline", baseline.name, baseline.predictions
    elif rivals:
        name, theirs = rivals[0].name, tables[rivals[0].name].test()
    else:
        return None
    both = set(ours.frame["image_id"]) & set(theirs.frame["image_id"])
    cut = [table.with_frame(table.frame[table.frame["image_id"].isin(both)]) for table in (ours, theirs)]
    (pair,) = compare_predictions(
        {"winner": cut[0], "rival": cut[1]},
        metrics=(setting.config.metric,),
        n_boot=setting.config.n_boot,
        seed=setting.config.seed,
    )
    return Rival(name, kind, {**pair, "a": winner.name, "b": name})
