"""Hold classes out of training and measure whether photos of them are flagged as unusual."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dermlab.adapt.config import Embedding
from dermlab.bench.unseen import UnseenSettings
from dermlab.core import words

SHORT = {"max_softmax": "max softmax", "relative_mahalanobis": "rel. Mahalanobis", "mahalanobis": "Mahalanobis"}


class UnseenConfig(Embedding, UnseenSettings):
    """Options of ``dermlab unseen``."""

    positional: ClassVar[tuple[str, ...]] = ("data",)

    data: Path = Field(description="data set folder")
    out: Path = Field(description="folder to write unseen.json into")


@dataclass(frozen=True)
class UnseenResult:
    """What was found, and where it was written."""

    path: Path
    found: dict[str, Any]

    def lines(self) -> list[str]:
        """Return what a person reads."""
        found = self.found
        groups = f"{words.count(found['n_groups'])} {words.groups_word(found['group_by'])}"
        lines = [f"warning: {text}" for text in found["warnings"]]
        lines.append(f"{words.plural(found['n'], 'test photo')} of {groups}; AUROC of held-out against known classes")
        scores = list(found["scores"])
        width = max(len(name) for name in (*found["classes"], "held out")) + 2
        rows: list[tuple[str, str, list[str]]] = [("held out", "photos", [SHORT.get(name, name) for name in scores])]
        for name, one in found["classes"].items():
            cells = [self._cell(one["scores"][score]["auroc"]) for score in scores]
            rows.append((name, str(one["n_unseen"]), cells))
        rows.append(("mean", "", [self._cell(found["mean_auroc"][score]) for score in scores]))
        lines += [f"{name:<{width}}{n:>6}  " + "".join(f"{cell:<18}" for cell in cells) for name, n, cells in rows]
        for name, one in found["classes"].items():
            flagged = {score: one["scores"][score]["flagged_unseen"]["value"] for score in scores}
            told = ", ".join(f"{score} {words.score(value)}" for score, value in flagged.items())
            called = next(iter(one["called"].items()))
            lines.append(f"{name}: mostly called {called[0]} ({words.score(called[1])}); flagged: {told}")
        return [*lines, f"thresholds let {words.score(found['accept'])} of known val photos pass: {self.path}"]

    @staticmethod
    def _cell(area: dict[str, Any]) -> str:
        if area["low"] is None:
            return words.score(area["value"], "number")
        return f"{area['value']:.2f} ({area['low']:.2f}–{area['high']:.2f})"

    def to_json(self) -> Any:
        """Return the content of ``unseen.json`` and its path."""
        return {"path": self.path, **self.found}


def run(config: UnseenConfig) -> UnseenResult:
    """Run the trial that ``config`` describes."""
    from dermlab.bench.unseen import RESULT, run_unseen
    from dermlab.core.device import resolve
    from dermlab.core.progress import note
    from dermlab.data.dataset import Dataset
    from dermlab.models.known import require_known

    require_known({"encoder": config.encoder})
    dataset = Dataset.open(config.data)
    runtime = resolve(config.device, config.precision)
    note(f"{runtime.device}, {runtime.precision}: {runtime.reason}")
    found = run_unseen(dataset, config, config.out, runtime=runtime, batch_size=config.batch_size, record=config)
    return UnseenResult(config.out / RESULT, found)
