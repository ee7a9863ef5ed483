"""How many labels each encoder needs: curves over labels per class and shares of the labels, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dermlab.adapt.config import Embedding
from dermlab.bench.curve_settings import Curves
from dermlab.core import words
from dermlab.core.errors import InputError


class LabelEfficiencyConfig(Embedding, Curves):
    """Options of ``dermlab label-efficiency``."""

    positional: ClassVar[tuple[str, ...]] = ("data",)

    data: Path = Field(description="data set folder")
    encoder: tuple[str, ...] = Field(min_length=1, description="one or several encoders, A,B,… (see dermlab encoders)")
    out: Path = Field(description="folder to write; begun work in it is taken up")


@dataclass(frozen=True)
class LabelEfficiencyResult:
    """The content of ``label_efficiency.json`` and the files written."""

    found: dict[str, Any]
    written: tuple[Path, ...]

    def lines(self) -> list[str]:
        """Return what a person reads: who needs fewer labels first, then the curves."""
        found = self.found
        name, _, kind = words.metric_words(found["metric"])
        lines = [
            f"{words.count(found['n'])} test {words.units_word(found['unit'], found['n'])} of "
            f"{words.count(found['n_groups'])} {words.groups_word(found['group_by'])}; "
            f"{found['repeats']} draws of each size from {words.count(found['n_pool'])} labelled training photos"
        ]
        headlines = [entry for entry in found["ratios"] if entry["headline"]]
        if headlines:
            lines += ["", *(self._ratio(entry, kind) for entry in headlines)]
        for curve in found["curves"]:
            lines += ["", f"{curve['encoder']}, {curve['head']}: {name} [95% interval] (one draw)"]
            for point in curve["points"]:
                one, mean = point["one_draw"], point[found["metric"]]
                lines.append(
                    f"  {point['size']:>14}  {words.count(round(point['labels'])):>6} labels  "
                    f"{words.score(mean['value'], kind)} [{words.span(mean, kind)}]  "
                    f"({words.score(one['low'], kind)} to {words.score(one['high'], kind)})"
                )
        lines += [""] * bool(found["warnings"]) + [f"warning: {text}" for text in found["warnings"]]
        return lines + [f"wrote {path}" for path in self.written]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``label_efficiency.json``."""
        return self.found

    def _ratio(self, entry: dict[str, Any], kind: str) -> str:
        """Say in one line who needs fewer labels for a score that both reach."""
        ratio, design = entry["ratio"], {"per_class": "evenly drawn", "percent": "in the data's own mix"}
        said = {
            "a needs fewer": f"{entry['a']} needs fewer",
            "b needs fewer": f"{entry['b']} needs fewer",
        }.get(entry["verdict"], entry["verdict"])
        ends = [
            ("below any" if end == "low" else "above any") if ratio[end] is None else f"{ratio[end]:.2g}"
            for end in ("low", "high")
        ]
        return (
            f"{entry['head']}, {words.metric_words(self.found['metric'])[0]} {words.score(entry['score'], kind)}, "
            f"labels {design[entry['design']]}: {entry['a']} needs {ratio['value']:.2g} × the labels of {entry['b']} "
            f"[{ends[0]} to {ends[1]}]: {said}"
        )


def run(config: LabelEfficiencyConfig) -> LabelEfficiencyResult:
    """Embed once, draw, fit, score, and write JSON, CSV and pictures."""
    import pandas as pd

    from dermlab.adapt.probe import read_or_make_split
    from dermlab.bench.label_efficiency import label_efficiency
    from dermlab.core.device import resolve
    from dermlab.core.files import atomic_path, write_json
    from dermlab.data.dataset import Dataset
    from dermlab.features.extract import embed
    from dermlab.models.known import require_known

    if len(set(config.encoder)) < len(config.encoder):
        raise InputError("encoder: names the same encoder twice")
    require_known({f"encoder.{k}": name for k, name in enumerate(config.encoder)})
    dataset = Dataset.open(config.data)
    target = dataset.card.target(config.target)
    split = read_or_make_split(dataset, config.split, target.column, config.seed)
    runtime = resolve(config.device, config.precision)
    features = {name: embed(dataset, name, runtime=runtime, batch_size=config.batch_size) for name in config.encoder}
    settings = Curves.model_validate(config.model_dump(include=set(Curves.model_fields)))
    found = label_efficiency(dataset, features, settings, config.out, split)
    failed = sorted({index for one in features.values() for index in one.failures})
    if failed:
        found["warnings"].append(f"{words.plural(len(failed), 'photo')} cannot be read and are left out")
    rows = pd.DataFrame(found.pop("rows"))
    written = [write_json(config.out / "label_efficiency.json", found)]
    with atomic_path(config.out / "label_efficiency.csv") as temporary:
        rows.to_csv(temporary, index=False)
    written += [config.out / "label_efficiency.csv", *draw(found, config.out)]
    return LabelEfficiencyResult(found, tuple(written))


def draw(found: dict[str, Any], out: Path) -> list[Path]:
    """Draw the curves: a panel for each head and way of drawing, a line for each encoder."""
    from dermlab.bench.curves import Line, Panel, draw_curves

    titles = {False: "the same number of each class", True: "a share of every class"}
    heads = list(dict.fromkeys(curve["head"] for curve in found["curves"]))
    panels = []
    for head in heads:
        for share, title in titles.items():
            lines = []
            for curve in found["curves"]:
                points = [p for p in curve["points"] if p["size"] == "all" or p["size"].endswith("%") == share]
                if curve["head"] == head and len(points) > 1:
                    points.sort(key=lambda point: point["labels"])
                    values = [point[found["metric"]] for point in points]
                    lines.append(Line(curve["encoder"], [point["labels"] for point in points], values))
            if lines:
                panels.append(Panel(f"{head}, {title}", lines))
    if not panels:
        return []
    groups = words.groups_word(found["group_by"])
    return draw_curves(
        out / "label_efficiency",
        panels,
        x_label="labelled training photos",
        y_label=words.metric_words(found["metric"])[0],
        caption=(
            f"Mean over {found['repeats']} draws on {found['n']:,} test "
            f"{words.units_word(found['unit'], found['n'])} of {found['n_groups']:,} {groups}; bands: 95% intervals "
            f"over draws and {groups}. k and C chosen on val ({found['n_val']:,.0f} photos, not counted)."
        ),
        log_x=True,
    )
