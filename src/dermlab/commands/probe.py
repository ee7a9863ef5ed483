"""Measure a frozen encoder with a head: fit on train, choose on val, report on test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dermlab.adapt.config import Embedding, ProbeSettings
from dermlab.core import words

if TYPE_CHECKING:
    from dermlab.adapt.probe import ProbeResult as Probe
    from dermlab.data.dataset import Dataset


class ProbeConfig(Embedding, ProbeSettings):
    """Options of ``dermlab probe``."""

    positional: ClassVar[tuple[str, ...]] = ("data",)

    data: Path = Field(description="data set folder")
    out: Path = Field(description="run folder to write")


@dataclass(frozen=True)
class ProbeResult:
    """A finished run: its folder, metrics and warnings."""

    probe: Probe

    def lines(self) -> list[str]:
        """Return what a person reads."""
        metrics = self.probe.metrics
        lines = [f"warning: {text}" for text in self.probe.warnings]
        n = words.count(metrics["n"])
        unit = words.units_word(metrics["unit"], metrics["n"])
        groups = f"{words.count(metrics['n_groups'])} {words.groups_word(metrics['group_by'])}"
        chosen = f" {words.metric_words(self.probe.val_metric)[0]}" if self.probe.val_metric else ""
        lines.append(f"test: {n} {unit} of {groups}; val{chosen} {self.probe.val_score:.3f}")
        for name in words.headline(metrics["kind"]):
            if metrics.get(name, {}).get("value") is not None:
                title, _, kind = words.metric_words(name)
                lines.append(
                    f"  {title:<26}{words.score(metrics[name]['value'], kind)} ({words.span(metrics[name], kind)})"
                )
        return [*lines, f"run: {self.probe.path}", f"model card: {self.probe.path / 'MODEL_CARD.md'}"]

    def to_json(self) -> Any:
        """Return the run's path, val score, warnings and metrics."""
        probe = self.probe
        return {
            "run": probe.path,
            "val_score": probe.val_score,
            "val_metric": probe.val_metric,
            "converged": probe.converged,
            "warnings": probe.warnings,
            "seconds": probe.seconds,
            "metrics": probe.metrics,
        }


def run(config: ProbeConfig) -> ProbeResult:
    """Run the probe that ``config`` describes."""
    from dermlab.adapt.probe import check_encoder, run_probe
    from dermlab.core.device import resolve
    from dermlab.core.progress import note
    from dermlab.data.dataset import Dataset
    from dermlab.report.model_card import describe_run

    check_encoder(config)
    dataset = Dataset.open(config.data)
    refuse_divided_groups(dataset, split=config.split, target=config.target, seed=config.seed, waive=config.waive)
    runtime = resolve(config.device, config.precision) if config.encoder else None
    if runtime is not None:
        note(f"{runtime.device}, {runtime.precision}: {runtime.reason}")
    done = run_probe(dataset, config, config.out, runtime=runtime, batch_size=config.batch_size, record=config)
    describe_run(done.path, n_boot=config.n_boot, seed=config.seed)
    return ProbeResult(done)


def refuse_divided_groups(
    dataset: Dataset, *, split: str, target: str | None, seed: int, waive: tuple[str, ...]
) -> None:
    """Stop where the split has a patient (or what else the card groups by) in two parts, unless that is waived."""
    from dermlab.adapt.probe import read_or_make_split
    from dermlab.audit.findings import check_waivers, gate
    from dermlab.audit.leakage import overlap_findings
    from dermlab.core.progress import warn

    check_waivers(waive)
    frame = read_or_make_split(dataset, split, dataset.card.target(target).column, seed)
    where = f"{dataset.card.name}, split {split!r}"
    column = dataset.group_column()
    findings = overlap_findings(where, split, column, dataset.groups(), frame, is_grouping=True)
    for line in gate(findings, [name for name in waive if findings and name == "group-overlap"], split=split):
        warn(line)
