"""Score what each photo shows (ulcer, ink, ruler, …) by sentences, as columns for checks and subgroups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from dermlab.commands.zeroshot import Photos
from dermlab.core import words

COLUMN = "concept:"
N_TOLD = 5


class ConceptsConfig(Photos):
    """Options of ``dermlab concepts``."""

    out: Path = Field(description="table to write (.parquet or .csv): image_id, and a column concept:NAME each")
    concepts: tuple[str, ...] = Field(
        (), description="which: the groups clinical, dermoscopic, artefact, or single ones; default all"
    )
    file: Path | None = Field(None, description="YAML file of your own concepts (groups, templates)")
    target: str | None = Field(None, description="target that concepts may betray; default the card's default one")


@dataclass(frozen=True)
class ConceptsResult:
    """The table that was written, and which concepts go with a class."""

    folder: Path
    out: Path
    n_images: int
    n_left_out: int
    concepts: tuple[str, ...]
    n_pairs: int
    associations: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return what a person reads."""
        lines = [f"{self.out}: {words.plural(self.n_images, 'photo')} × {words.plural(len(self.concepts), 'concept')}"]
        if self.n_left_out:
            lines.append(f"{words.plural(self.n_left_out, 'photo')} cannot be read and have no row")
        if self.associations:
            lines.append(f"those that go with a class most, of {self.n_pairs:,} pairs looked at (the largest of many):")
        for one in self.associations:
            value = words.score(one["auroc"], "number")
            span = f"{words.score(one['low'], 'number')}–{words.score(one['high'], 'number')}"
            way = "higher" if one["auroc"] > 0.5 else "lower"
            lines.append(
                f"  {one['concept']}: {way} in {one['class']} than in the rest, AUROC {value} ({span}), "
                f"{words.plural(one['n'], 'photo')}"
            )
        lines += [f"warning: {text}" for text in self.warnings]
        return [
            *lines,
            f"next: dermlab data check {self.folder} --join {self.out}; dermlab evaluate TABLE --join {self.out} "
            f"--subgroups {COLUMN}{self.concepts[0].replace(' ', '_')}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the same for ``--json``."""
        return dict(vars(self))


def run(config: ConceptsConfig) -> ConceptsResult:
    """Take the photos' vectors from the feature store, score the concepts, and write the table."""
    import numpy as np
    import pandas as pd

    from dermlab.adapt.probe import contaminations
    from dermlab.commands.zeroshot import embed_photos, lineage
    from dermlab.core.errors import InputError
    from dermlab.core.files import atomic_path, write_json
    from dermlab.data.dataset import Dataset
    from dermlab.models.prompt_sets import read_concepts
    from dermlab.models.two_tower import concept_scores, open_two_tower

    if config.out.suffix not in (".parquet", ".csv"):
        raise InputError(f"{config.out}: must end in .parquet or .csv")
    dataset = Dataset.open(config.folder)
    concepts = read_concepts(config.file)
    chosen = concepts.chosen(config.concepts, source=str(config.file or "dermlab's concepts"))
    target = dataset.card.target(config.target) if dataset.card.targets else None
    model = open_two_tower(config.encoder)
    images, valid, encoder = embed_photos(config, dataset, model)
    scores = concept_scores(model, images[valid], chosen, concepts.templates)
    table = pd.DataFrame(scores, columns=[COLUMN + name.replace(" ", "_") for name in chosen])
    table.insert(0, "image_id", dataset.image_ids[valid])
    with atomic_path(config.out) as temporary:
        if config.out.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    told = tuple(contaminations(encoder, dataset))
    sidecar = {
        "concepts": {name: list(phrases) for name, phrases in chosen.items()},
        "templates": list(concepts.templates),
        "lineage": lineage(encoder, dataset),
        "warnings": told,
    }
    write_json(config.out.with_name(config.out.name + ".json"), sidecar)
    n_pairs, found = 0, list[dict[str, Any]]()
    if target is not None and target.kind != "multilabel":
        labels = dataset.labels(target.column)[valid]
        n_pairs, found = _associations(list(chosen), scores, labels, dataset.groups()[valid])
    left_out = int(np.sum(~valid))
    return ConceptsResult(config.folder, config.out, len(table), left_out, tuple(chosen), n_pairs, tuple(found), told)


def _associations(names: list[str], scores: Any, labels: Any, groups: Any) -> tuple[int, list[dict[str, Any]]]:
    """Return how many pairs of concept and class there are, and those whose AUROC is farthest from chance."""
    import numpy as np
    import pandas as pd

    from dermlab.evaluate import bootstrap
    from dermlab.evaluate.metrics import score

    known = ~pd.isna(labels)
    labels, scores, groups = labels[known].astype(str), scores[known], groups[known]
    classes = sorted(set(labels))
    if len(classes) < 2:
        return 0, []
    pairs = []
    for name in classes[1:] if len(classes) == 2 else classes:
        is_it = (labels == name).astype(int)
        for code, concept in enumerate(names):
            pairs.append((abs(score(is_it, scores[:, code], "auroc") - 0.5), concept, name, is_it, scores[:, code]))
    pairs.sort(key=lambda pair: -pair[0])
    found = []
    for _, concept, name, is_it, column in pairs[:N_TOLD]:
        estimate = bootstrap("auroc", is_it, np.asarray(column), groups, n_boot=1000)
        found.append(
            {
                "concept": concept,
                "class": name,
                "auroc": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "n": len(labels),
            }
        )
    return len(pairs), found
