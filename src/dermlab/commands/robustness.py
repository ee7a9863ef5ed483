"""How much a saved model loses on blurred, noisy, dark, hairy, turned or covered test photos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dermlab.adapt.config import Embedding
from dermlab.bench.curve_settings import Corrupting
from dermlab.core import words

if TYPE_CHECKING:
    from dermlab.data.dataset import Dataset


class RobustnessConfig(Embedding, Corrupting):
    """Options of ``dermlab robustness``."""

    positional: ClassVar[tuple[str, ...]] = ("run", "data")

    run: Path = Field(description="run folder of a probe or a fine-tuning, or of a candidate of a bake-off (runs/NAME)")
    data: Path = Field(description="the data set folder that it was fitted on")
    out: Path = Field(description="folder to write; begun work in it is taken up")
    photo: str | None = Field(None, description="image_id of the photo shown under every corruption; none: the first")
    threads: int | None = Field(None, ge=1, description="that decode and corrupt; default one for each CPU")


@dataclass(frozen=True)
class RobustnessResult:
    """The content of ``robustness.json`` and the files written."""

    found: dict[str, Any]
    written: tuple[Path, ...]

    def lines(self) -> list[str]:
        """Return what a person reads: the worst corruption first."""
        from dermlab.commands.evaluate import aligned

        found = self.found
        name, _, kind = words.metric_words(found["metric"])
        worst, clean = found["corruptions"][0], found["clean"][found["metric"]]
        most = words.points(_negative(worst["mean"]["drop"]["value"]), kind)
        lines = [
            f"worst: {worst['title']}, {most} {name} on average",
            f"{found['model']} on {words.count(found['n'])} test {words.units_word(found['unit'], found['n'])} of "
            f"{words.count(found['n_groups'])} {words.groups_word(found['group_by'])}; clean {name}: "
            f"{words.score(clean['value'], kind)} [{words.span(clean, kind)}]",
            "",
        ]
        strengths = [entry["severity"] for entry in worst["severities"]]
        rows = [["", *(f"severity {number}" for number in strengths), "mean change", "95% interval", "p (Holm)", ""]]
        for entry in found["corruptions"]:
            drop = entry["mean"]["drop"]
            rows.append(
                [
                    entry["title"],
                    *(words.score(item[found["metric"]]["value"], kind) for item in entry["severities"]),
                    words.points(_negative(drop["value"]), kind),
                    words.gap_span({"low": _negative(drop["high"]), "high": _negative(drop["low"])}, kind),
                    words.p_value(entry["p_adjusted"]),
                    entry["verdict"],
                ]
            )
        lines += aligned(rows)
        lines += [""] * bool(found["warnings"]) + [f"warning: {text}" for text in found["warnings"]]
        return lines + [f"wrote {path}" for path in self.written]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``robustness.json``."""
        return self.found


def run(config: RobustnessConfig) -> RobustnessResult:
    """Corrupt, embed, predict, score, and write JSON and pictures."""
    from dermlab.adapt.finetune.run import FittedFinetune, open_fitted
    from dermlab.bench.robustness import robustness
    from dermlab.core.device import resolve
    from dermlab.core.errors import InputError
    from dermlab.core.files import write_json
    from dermlab.data.dataset import Dataset

    dataset = Dataset.open(config.data)
    if config.photo is not None and config.photo not in set(dataset.image_ids.tolist()):
        raise InputError(f"photo: {config.photo!r} is not an image_id of {config.data}")
    fitted, precision = open_fitted(config.run), config.precision
    if isinstance(fitted, FittedFinetune) and precision == "auto":
        precision = fitted.model["settings"]["precision"]
    found = robustness(
        config.run,
        dataset,
        Corrupting.model_validate(config.model_dump(include=set(Corrupting.model_fields))),
        config.out,
        runtime=resolve(config.device, precision),
        batch_size=config.batch_size,
        threads=config.threads,
    )
    written = [write_json(config.out / "robustness.json", found), *draw(found, config.out)]
    written.append(_show(config, dataset))
    return RobustnessResult(found, tuple(written))


def draw(found: dict[str, Any], out: Path) -> list[Path]:
    """Draw a panel for each corruption, the worst first."""
    from dermlab.bench.curves import Line, Panel, draw_curves

    name = found["metric"]
    panels = [
        Panel(
            entry["title"],
            [
                Line(
                    found["model"],
                    [0, *(item["severity"] for item in entry["severities"])],
                    [found["clean"][name], *(item[name] for item in entry["severities"])],
                )
            ],
        )
        for entry in found["corruptions"]
    ]
    return draw_curves(
        out / "robustness",
        panels,
        x_label="severity (0: as it is)",
        y_label=words.metric_words(name)[0],
        caption=(
            f"{found['model']}, {found['n']:,} test {words.units_word(found['unit'], found['n'])} of "
            f"{found['n_groups']:,} {words.groups_word(found['group_by'])}; bands: 95% intervals over "
            f"{words.groups_word(found['group_by'])}; the worst corruption first."
        ),
        x_ticks=[0, *(item["severity"] for item in found["corruptions"][0]["severities"])],
        n_columns=4,
    )


def _show(config: RobustnessConfig, dataset: Dataset) -> Path:
    """Show one photo under every corruption and severity that was run."""
    from dermlab.bench.curves import draw_sheet
    from dermlab.data.corruptions import CORRUPTIONS, corrupt
    from dermlab.data.decode import decode_file

    ids = dataset.image_ids.tolist()
    name = config.photo or ids[0]
    image = decode_file(dataset.paths[ids.index(name)])
    rows = [
        (
            f"{CORRUPTIONS[item].title}\n({CORRUPTIONS[item].parameter})",
            [corrupt(image, item, severity, seed=config.seed, image_id=name) for severity in (0, *config.severities)],
            ["", *(f"{CORRUPTIONS[item].levels[severity - 1]:g}" for severity in config.severities)],
        )
        for item in config.corruptions
    ]
    titles = ["as it is", *(f"severity {severity}" for severity in config.severities)]
    return draw_sheet(config.out / "corruptions.png", rows, titles)


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
