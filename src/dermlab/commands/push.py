"""Send a run with its model card to the Hugging Face Hub, if its terms allow it; --dry_run shows what would go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dermlab.core.config import Config

if TYPE_CHECKING:
    from dermlab.report.push import Package


class PushConfig(Config):
    """Options of ``dermlab push``."""

    positional: ClassVar[tuple[str, ...]] = ("run", "repository")

    run: Path = Field(description="folder of a probe, a fine-tuning, a pretraining run or an encoder")
    repository: str = Field(description="OWNER/NAME on the hub; made where it is not there")
    dry_run: bool = Field(False, description="show the files, their sizes and the terms, and send nothing")
    private: bool = Field(True, description="make a new repository private")
    waive: tuple[str, ...] = Field(
        (), description="licence, redistribution or vectors: what a person has cleared; told in the model card"
    )


@dataclass(frozen=True)
class PushResult:
    """What went, or would go."""

    contents: Package
    address: str | None

    @property
    def exit_status(self) -> int:
        """1 where a dry run found something that stands against the sending."""
        return int(bool(self.contents.refusals))

    def lines(self) -> list[str]:
        """Return the files and their sizes, the verdict and its conditions, and where it went."""
        from dermlab.report.push import USE, refused

        sizes = self.contents.sizes()
        lines = [f"{size:>14,} bytes  {name}" for name, size in sorted(sizes.items())]
        lines += [f"{sum(sizes.values()):>14,} bytes  in all", "", f"for {USE} use: {self.contents.verdict}"]
        lines += [f"  condition: {line}" for line in self.contents.conditions]
        lines += [f"  {line}" for line in self.contents.waived]
        if self.address is not None:
            return [*lines, "", f"pushed: {self.address}"]
        return [*lines, "", refused(self.contents.refusals) if self.contents.refusals else "nothing was sent (dry run)"]

    def to_json(self) -> dict[str, Any]:
        """Return the same for ``--json``."""
        contents = self.contents
        return {
            "address": self.address,
            "files": contents.sizes(),
            "verdict": contents.verdict,
            "conditions": list(contents.conditions),
            "refusals": dict(contents.refusals),
            "waived": list(contents.waived),
        }


def run(config: PushConfig) -> PushResult:
    """Pack the run, and send it unless something stands against it or it is a dry run."""
    from dermlab.core.progress import note
    from dermlab.report.push import check_name, package, send

    check_name(config.repository)
    contents = package(config.run, config.waive)
    if config.dry_run:
        return PushResult(contents, None)
    note(f"{len(contents.files)} files, {sum(contents.sizes().values()):,} bytes, to {config.repository}")
    return PushResult(contents, send(contents, config.repository, private=config.private))
