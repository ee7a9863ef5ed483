"""The candidates of a bake-off: run one after the other, each in its folder; what is there already is not run again."""

from __future__ import annotations

import contextlib
import math
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dermlab.adapt.config import HeadConfig, ProbeSettings
from dermlab.adapt.finetune.config import FinetuneSettings
from dermlab.bench.config import BakeoffConfig, folder_name, seed_folder
from dermlab.bench.outcome import COSTS, Outcome
from dermlab.bench.terms import Terms, contamination, encoder_terms
from dermlab.core.config import read_yaml, write_yaml
from dermlab.core.errors import DermlabError, first_line
from dermlab.core.files import read_json, write_json, write_text
from dermlab.core.progress import note, warn

if TYPE_CHECKING:
    import pandas as pd

    from dermlab.adapt.probe import ProbeResult
    from dermlab.core.device import Runtime
    from dermlab.data.dataset import Dataset
    from dermlab.evaluate.predictions import Predictions
    from dermlab.features.extract import Features

N_MISTAKES = 12
COST_FILE = "cost.json"
SEEDS_COMMAND = "bakeoff seeds"


@dataclass(frozen=True)
class Plan:
    """One row of the table to be: what is run under which name.

    Attributes:
        name: of the row.
        kind: candidate or floor.
        encoder: that is used or trained, None where no photo is looked at.
        head: fitted on the frozen encoder; None where a recipe is trained.
        recipe: of a fine-tuning.
        seeds: of the trainings; none: the bake-off's alone.
    """

    name: str
    kind: Literal["candidate", "floor"]
    encoder: str | None
    head: HeadConfig | None
    recipe: FinetuneSettings | None = None
    seeds: tuple[int, ...] = ()

    @property
    def folder(self) -> str:
        """Its folder below the bake-off's: of its only run, or of what its runs are together."""
        return f"runs/{folder_name(self.name)}"

    @property
    def head_words(self) -> str:
        """The head in tables."""
        return f"finetuned {self.recipe.head}" if self.recipe is not None else str(self.head.kind if self.head else "")

    def trainings(self, seed: int) -> dict[int, str]:
        """Return the run folder of each training seed, below the bake-off's.

        Args:
            seed: the bake-off's.
        """
        if self.recipe is None and not self.seeds:
            return {seed: self.folder}
        return {one: f"runs/{seed_folder(self.name, one)}" for one in self.seeds or (seed,)}


@dataclass(frozen=True)
class Setting:
    """What all candidates have in common."""

    config: BakeoffConfig
    out: Path
    dataset: Dataset
    target: str
    split: pd.DataFrame
    data_terms: Terms
    runtime: Runtime


def plan(config: BakeoffConfig, dataset: Dataset) -> list[Plan]:
    """Return what is run: the candidates as the config lists them, then the floors that are not among them."""
    plans = [
        Plan(item.label, "candidate", item.network, item.head, item.finetune, item.seeds)
        for item in config.everything()
    ]
    floors = [Plan("majority", "floor", None, HeadConfig(kind="majority"))]
    if dataset.questionnaire().shape[1]:
        floors.append(Plan("questionnaire", "floor", None, HeadConfig(kind="questionnaire")))
    floors.append(Plan("histogram-knn", "floor", "histogram", HeadConfig(kind="knn")))
    taken = {item.folder for item in plans}
    return plans + [floor for floor in floors if floor.folder not in taken]


def run_candidates(setting: Setting, plans: Sequence[Plan]) -> list[Outcome]:
    """Run every plan, those of one encoder together, and return their outcomes in the plans' order.

    A candidate that fails is an outcome that says why; the others go on.
    """
    outcomes: dict[str, Outcome] = {}
    embedded: dict[str, Features] = {}
    # Frozen encoders first, one encoder's features at a time; then what is trained.
    encoders = list(dict.fromkeys(item.encoder for item in plans if item.recipe is None))
    parts = [[item for item in plans if item.recipe is None and item.encoder == encoder] for encoder in encoders]
    parts.append([item for item in plans if item.recipe is not None])
    number = 0
    for part in parts:
        for item in part:
            number += 1
            title = f"candidate {number} of {len(plans)}: {item.name}"
            try:
                outcomes[item.name] = _run(setting, item, embedded, title)
            except Exception as error:  # whatever goes wrong in one candidate, the others still have their turn
                outcomes[item.name] = _failed(setting, item, error, title)
        embedded.clear()
    return [outcomes[item.name] for item in plans]


def _run(setting: Setting, item: Plan, embedded: dict[str, Features], title: str) -> Outcome:
    """Run one candidate, each of its seeds, or read what an earlier run of the very same left."""
    config = setting.config
    results: dict[int, ProbeResult] = {}
    n_reused = 0
    trainings = item.trainings(config.seed)
    for seed, place in trainings.items():
        told = f"{title}, seed {seed}" if len(trainings) > 1 else title
        if item.recipe is not None:
            settings = recipe_settings(setting, item.recipe, seed)
            results[seed], reused = run_recipe(setting, settings, setting.out / place, told)
        else:
            results[seed], reused = _run_head(setting, item, seed, setting.out / place, embedded, told)
        n_reused += reused
    outcome = _outcome(setting, item, results)
    outcome.reused = n_reused == len(results)
    shown = "–" if outcome.val_score is None else f"{outcome.val_score:.3f}"
    note(f"  {config.metric} on val {shown}" + "".join(f"; {flag}" for flag in outcome.flags))
    return outcome


def _run_head(
    setting: Setting, item: Plan, seed: int, folder: Path, embedded: dict[str, Features], title: str
) -> tuple[ProbeResult, bool]:
    """Fit a head on a frozen encoder, and tell whether it was there already."""
    from dermlab.adapt.probe import inputs_of, read_probe, run_probe

    config = setting.config
    assert item.head is not None
    settings = ProbeSettings(
        encoder=item.encoder,
        head=item.head,
        split=config.split_name,
        target=setting.target,
        metric=config.metric,
        seed=seed,
        max_train_per_class=config.max_train_per_class,
        max_val_per_class=config.max_val_per_class,
        include_columns=config.include_columns,
        waive=tuple(name for name in config.waive if name.startswith("proxy:")),
        n_boot=config.n_boot,
    )
    inputs = inputs_of(setting.dataset, setting.split, item.encoder)
    inputs["encoder"] = _fingerprint(setting, item.encoder, embedded)
    if folder.exists() and not _is_of(folder, settings, inputs):
        note(f"{folder.name}: was made with other data or settings, and is made again")
        shutil.rmtree(folder)
    if (folder / "done.json").exists():
        note(f"{title} (done before)")
        return read_probe(folder), True
    note(title)
    features = _embedded(setting, item.encoder, embedded)
    result = run_probe(setting.dataset, settings, folder, features=features, runtime=setting.runtime)
    write_json(
        folder / COST_FILE,
        {
            "fit_seconds": result.seconds,
            "embed_seconds": features.seconds if features is not None else None,
            "images_per_second": features.images_per_second or None if features is not None else None,
        },
    )
    return result, False


def recipe_settings(setting: Setting, recipe: FinetuneSettings, seed: int) -> FinetuneSettings:
    """Return a recipe with what the bake-off decides for all candidates."""
    config = setting.config
    return recipe.model_copy(
        update={
            "split": config.split_name,
            "target": setting.target,
            "seed": seed,
            "waive": (),  # the bake-off's gate has looked, and its report tells what was waived
            "device": config.device,
            "precision": config.precision if recipe.precision == "auto" else recipe.precision,
            "n_boot": config.n_boot,
        }
    )


def run_recipe(
    setting: Setting, settings: FinetuneSettings, folder: Path, title: str, *, test: bool = True
) -> tuple[ProbeResult, bool]:
    """Fine-tune, going on where an earlier run stopped, and tell whether it was all there already.

    A run of other data or settings took long: it is put aside, not deleted.
    """
    from dermlab.adapt.finetune.run import run_finetune
    from dermlab.adapt.probe import inputs_of, read_probe
    from dermlab.models.encoders import identify_encoder

    identity = identify_encoder(settings.encoder, seed=settings.seed, size_px=settings.size_px, fit=settings.fit)
    inputs = {**inputs_of(setting.dataset, setting.split, settings.encoder), "encoder": identity.fingerprint}
    if folder.exists() and not _is_of(folder, settings, inputs):
        aside = _free_name(folder)
        note(f"{folder.name}: was made with other data or settings; kept as {aside.name}, and trained again")
        folder.rename(aside)
    if (folder / "done.json").exists():
        note(f"{title} (done before)")
        return read_probe(folder), True
    note(title)
    lent = _borrow(setting.out, settings, inputs, folder) if test else 0.0
    result = run_finetune(setting.dataset, settings, folder, test=test)
    seconds = result.seconds + lent
    write_json(folder / COST_FILE, {"fit_seconds": seconds, "embed_seconds": None, "images_per_second": None})
    return result, False


def _free_name(folder: Path) -> Path:
    number = 1
    while folder.with_name(f"{folder.name}.old{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}.old{number}")


def _borrow(out: Path, settings: FinetuneSettings, inputs: dict[str, Any], folder: Path) -> float:
    """Take the trained weights of a run that differs in its views at test time alone, and return what it took.

    Those views have no part in training: the network would come out the same.
    """
    from dermlab.adapt.finetune.run import KIND
    from dermlab.core.runs import RunFolder

    if folder.exists():
        return 0.0
    for done in sorted((out / "runs").glob("*/done.json")):
        other = done.parent
        stored = read_yaml(other / "config.yaml") if (other / "config.yaml").exists() else {}
        if stored.get("command") != KIND or not (other / COST_FILE).exists():
            continue
        like = settings.model_copy(update={"tta": stored["config"].get("tta")})
        if _is_of(other, like, inputs):
            note(f"  trained before, as {other.name}: only its views at test time differ")
            RunFolder.create(folder, settings, KIND)
            for file in sorted(other.glob("checkpoints/*/*.safetensors")):
                place = folder / file.relative_to(other)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)
            return float(read_json(other / COST_FILE)["fit_seconds"])
    return 0.0


def _fingerprint(setting: Setting, encoder: str | None, embedded: dict[str, Features]) -> str | None:
    """Return the fingerprint of an encoder's weights; they are looked at only where nobody remembers it."""
    if encoder is None:
        return None
    if encoder in embedded:
        return str(embedded[encoder].encoder["fingerprint"])
    if encoder == "histogram":
        from dermlab.features.histogram import describe

        return str(describe()["fingerprint"])
    from dermlab.models.encoders import identify_encoder

    return identify_encoder(encoder, seed=setting.config.seed).fingerprint


def _embedded(setting: Setting, encoder: str | None, embedded: dict[str, Features]) -> Features | None:
    if encoder is None:
        return None
    if encoder not in embedded:
        from dermlab.features.extract import embed

        embedded[encoder] = embed(setting.dataset, encoder, runtime=setting.runtime, seed=setting.config.seed)
    return embedded[encoder]


def _is_of(folder: Path, settings: ProbeSettings | FinetuneSettings, inputs: dict[str, Any]) -> bool:
    """Tell whether a run folder was made, or begun, with these settings on these inputs."""
    if not (folder / "config.yaml").exists() or not (folder / "inputs.json").exists():
        return False
    same = read_yaml(folder / "config.yaml").get("config") == settings.model_dump(mode="json")
    made_with = read_json(folder / "inputs.json")
    return same and all(made_with.get(key) == value for key, value in inputs.items())


def _outcome(setting: Setting, item: Plan, results: dict[int, ProbeResult]) -> Outcome:
    """Read a candidate's runs into an outcome; what decides who may win is taken from train and val only."""
    metric = setting.config.metric
    trainings = item.trainings(setting.config.seed)
    tables = {seed: result.predictions() for seed, result in results.items()}
    on_val = {seed: val_score(table, metric) for seed, table in tables.items()}
    best = max(tables, key=lambda seed: on_val[seed] if math.isfinite(on_val[seed]) else -math.inf)
    outcome = _base(setting, item)
    outcome.run, outcome.trainings = trainings[best], trainings
    outcome.table, outcome.metrics = tables[best], results[best].metrics
    if len(tables) > 1:
        outcome.shipped = tables[best]
        outcome.table, outcome.metrics = _stack_seeds(setting, item, tables)
    mean = sum(on_val.values()) / len(on_val)
    outcome.val_score = mean if math.isfinite(mean) else None
    outcome.cost = _costs([read_cost(result.path, setting) for result in results.values()])
    warnings: dict[str, None] = {}
    for seed, result in results.items():
        which = f"seed {seed}: " if len(results) > 1 else ""
        # An alarm is of one training; what is said of the data is the same for every seed.
        own = [alarm["says"] for alarm in alarms_of(result)]
        warnings |= {f"{which}{text}" if any(said in text for said in own) else text: None for text in result.warnings}
        outcome.flags += [f"{which}{text}" for text in why_not(result, finetuned=item.recipe is not None)]
        said = collapsed(tables[seed])
        if said is not None and (item.head is None or item.head.kind != "majority"):
            outcome.flags.append(f"{which}{said}")
    outcome.warnings = list(warnings)
    outcome.mistakes = confident_mistakes(tables[best])
    return outcome


def val_score(table: Predictions, metric: str) -> float:
    """Return a metric on val, the mean over folds, repeats and seeds."""
    from dermlab.evaluate.cases import case_sets
    from dermlab.evaluate.metrics import Evaluation

    return float(Evaluation(case_sets(table, "val").sets, [metric]).value()[metric])


def alarms_of(result: ProbeResult) -> list[dict[str, Any]]:
    """Return the alarms of a fine-tuning run, over its folds; a frozen encoder's run has none."""
    found: list[dict[str, Any]] = read_json(result.path / "done.json").get("alarms", [])
    return found


def why_not(result: ProbeResult, *, finetuned: bool) -> list[str]:
    """Return why a run's training may not be ranked, in words; nothing where it may."""
    if result.converged:
        return []
    if not finetuned:
        return ["the head did not converge"]
    told = dict.fromkeys(f"{alarm['name']}: {alarm['says']}" for alarm in alarms_of(result) if alarm["disqualifies"])
    return list(told) or ["the training did not converge"]


def _stack_seeds(setting: Setting, item: Plan, tables: dict[int, Predictions]) -> tuple[Predictions, dict[str, Any]]:
    """Put the trainings of a candidate into one table, and score it: every figure is the mean over the seeds.

    The mean of figures, not the figures of a mean: this is what one training is worth, where an ensemble of the
    trainings would be another and dearer model.
    """
    import pandas as pd

    from dermlab.evaluate.predictions import read_predictions, write_predictions
    from dermlab.evaluate.summary import summarise

    folder, config = setting.out / item.folder, setting.config
    record = {
        "command": SEEDS_COMMAND,
        "config": {
            "trainings": {str(seed): str(table.meta.get("fingerprint")) for seed, table in tables.items()},
            "n_boot": config.n_boot,
            "seed": config.seed,
        },
    }
    if not (folder / "metrics.json").exists() or read_yaml(folder / "config.yaml") != record:
        shutil.rmtree(folder, ignore_errors=True)
        frames = [table.frame.assign(seed=seed) for seed, table in tables.items()]
        first = next(iter(tables.values()))
        meta = {**first.meta, "recipe": item.name, "warnings": [], "fingerprint": None}
        write_text(folder / "config.yaml", write_yaml(record))
        together = write_predictions(folder / "predictions.parquet", pd.concat(frames, ignore_index=True), meta)
        write_json(folder / "metrics.json", summarise(together, n_boot=config.n_boot, seed=config.seed))
    return read_predictions(folder / "predictions.parquet"), read_json(folder / "metrics.json")


def _costs(each: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Return what several trainings took together; on all of the user's photos one of them would do."""
    first = each[0]
    seconds = [cost["seconds"] for cost in each if cost["seconds"] is not None]
    return {**first, "seconds": sum(seconds) if seconds else None}


def _base(setting: Setting, item: Plan) -> Outcome:
    """Return a candidate's outcome before anything has run: what it is, and the terms it stands under."""
    from dermlab.models.encoders import identify_encoder

    identity = None
    if item.encoder is not None and item.encoder != "histogram":
        with contextlib.suppress(DermlabError):
            identity = identify_encoder(item.encoder, seed=setting.config.seed)
    terms = encoder_terms(item.encoder, identity, setting.config.use)
    outcome = Outcome(item.name, item.kind, item.encoder, item.head_words, run=item.folder)
    outcome.finetuned = item.recipe is not None
    outcome.under(terms, setting.data_terms)
    seen = contamination(identity, setting.dataset.card.licence_card)
    if seen is not None:
        outcome.flags.append(seen)
    return outcome


def _failed(setting: Setting, item: Plan, error: Exception, title: str) -> Outcome:
    """Return the outcome of a candidate that failed; the traceback of the unexpected stays in its folder."""
    told = first_line(error)
    if not isinstance(error, DermlabError):
        path = setting.out / f"{item.folder}-error.txt"
        write_text(path, "".join(traceback.format_exception(error)))
        told = f"{type(error).__name__}: {told} (unexpected; the traceback is in {path})"
    warn(f"{title} failed and is left out: {told}")
    outcome = _base(setting, item)
    outcome.status, outcome.error = "failed", told
    return outcome


def read_cost(folder: Path, setting: Setting) -> dict[str, float | None]:
    """Return what a candidate took, and what it would take on all of the user's photos."""
    if not (folder / COST_FILE).exists():
        return dict.fromkeys(COSTS)
    kept = read_json(folder / COST_FILE)
    fit, embed, rate = kept["fit_seconds"], kept["embed_seconds"], kept["images_per_second"]
    full = None
    n_full = setting.config.full_data_images
    if n_full is not None and (embed is None or rate):
        full = fit * n_full / len(setting.dataset) + (n_full / rate if rate else 0.0)
    return {"seconds": fit + (embed or 0.0), "embed_seconds": embed, "images_per_second": rate, "full_seconds": full}


def collapsed(predictions: Predictions) -> str | None:
    """Say that a model tells no case of val from another, or return None where it does.

    It names one class only; or, of several labels, it gives every case the same probabilities.
    """
    from dermlab.evaluate.predictions import pool_units

    val = pool_units(predictions.part("val"))
    if predictions.kind == "multilabel":
        alike = (np.ptp(val.probabilities(), axis=0) == 0).all()
        return "on validation it gives every case the same probabilities" if alike else None
    codes = np.unique(val.predicted())
    return f"on validation it names one class only ({predictions.classes[int(codes[0])]})" if len(codes) == 1 else None


def confident_mistakes(predictions: Predictions, n: int = N_MISTAKES) -> list[dict[str, Any]]:
    """Return the test units that a model got wrong with the highest probability, most confident first.

    Of several labels it is the label that a unit was given, or denied, most confidently and wrongly: ``crust`` against
    ``no crust``.
    """
    from dermlab.evaluate.predictions import pool_units

    test = predictions.test()
    first_photo = test.frame.drop_duplicates("unit").set_index("unit")["image_id"]
    pooled = pool_units(test)
    units = pooled.frame["unit"].to_numpy(dtype=object)
    result: list[dict[str, Any]] = []
    seen: set[str] = set()
    wrong = _wrong_labels(pooled) if predictions.kind == "multilabel" else _wrong_classes(pooled)
    for row, label, predicted, confidence in sorted(wrong, key=lambda one: -one[3]):
        unit = str(units[row])
        if unit in seen:
            continue
        seen.add(unit)
        found = {"label": label, "predicted": predicted, "confidence": confidence}
        result.append({"image_id": str(first_photo[unit]), "unit": unit, **found})
        if len(result) == n:
            break
    return result


def _wrong_classes(pooled: Predictions) -> list[tuple[int, str, str, float]]:
    """Return row, true class, predicted class and highest probability of each case that is wrong."""
    truth, predicted, classes = pooled.truth(), pooled.predicted(), pooled.classes
    confidence = pooled.probabilities().max(axis=1)
    rows = np.flatnonzero((truth >= 0) & (truth != predicted)).tolist()
    return [(row, classes[truth[row]], classes[predicted[row]], float(confidence[row])) for row in rows]


def _wrong_labels(pooled: Predictions) -> list[tuple[int, str, str, float]]:
    """Return row, truth, what was said and its probability of each label that is wrong."""
    from dermlab.evaluate.multilabel import thresholds_of

    truth, scores = pooled.truth(), pooled.probabilities()
    called = scores >= thresholds_of(pooled)
    found = []
    for row, code in np.argwhere(~np.isnan(truth) & (called != (truth == 1))).tolist():
        name, yes, p = pooled.classes[code], bool(called[row, code]), float(scores[row, code])
        said = (f"no {name}", name) if yes else (name, f"no {name}")
        found.append((row, *said, p if yes else 1 - p))
    return found
