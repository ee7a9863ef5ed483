"""Run folders: config.yaml, environment.json and log.jsonl, written the same way by every command."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dermlab.core.config import read_yaml, write_yaml
from dermlab.core.device import environment
from dermlab.core.errors import InputError
from dermlab.core.files import cannot_write, json_ready, write_json, write_text
from dermlab.core.fingerprint import hash_json

CONFIG_FILE = "config.yaml"
ENVIRONMENT_FILE = "environment.json"
DONE_FILE = "done.json"


class RunFolder:
    """A folder that holds one run. ``finish`` marks it done; a done run with the same config is not run again."""

    def __init__(self, path: Path) -> None:
        """Wrap an existing run folder; use :meth:`create` to make one."""
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, config: BaseModel, command: str) -> RunFolder:
        """Make (or take up) the run folder ``path`` and write its config and environment.

        Args:
            path: the folder; it may exist if it is empty, holds a run of the same config, or the config alone of a
                run that never began.
            config: the resolved config.
            command: the command's name, for the record.

        Raises:
            InputError: the folder holds something else, or a run of another config.
        """
        path = Path(path)
        record = {"command": command, "config": config.model_dump(mode="json")}
        if path.exists():
            if not path.is_dir():
                raise InputError(f"{path}: is a file; --out must be a folder")
            if {entry.name for entry in path.iterdir()} <= {CONFIG_FILE, ENVIRONMENT_FILE}:
                (path / CONFIG_FILE).unlink(missing_ok=True)
            elif (path / CONFIG_FILE).exists():
                stored = read_yaml(path / CONFIG_FILE)
                if hash_json(stored) != hash_json(record):
                    differing = _differences(stored.get("config", {}), config.model_dump(mode="json"))
                    raise InputError(
                        f"{path}: holds a run of another config (differs in {', '.join(differing) or 'command'}); "
                        "choose another --out or delete that folder"
                    )
            else:
                raise InputError(f"{path}: is not empty and holds no dermlab run; choose another --out")
        folder = cls(path)
        if not (path / CONFIG_FILE).exists():
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise cannot_write(path, error) from error
            write_text(path / CONFIG_FILE, write_yaml(record))
        write_json(path / ENVIRONMENT_FILE, environment())
        return folder

    @property
    def done(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / DONE_FILE).exists()

    @property
    def config(self) -> dict[str, Any]:
        """The stored config."""
        return read_yaml(self.path / CONFIG_FILE).get("config", {})

    def log(self, event: str, **fields: Any) -> None:
        """Append one line to ``log.jsonl``: the time, the event's name and its fields."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **json_ready(fields)}, ensure_ascii=False)
        try:
            with open(self.path / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise cannot_write(self.path / "log.jsonl", error) from error

    def finish(self, **fields: Any) -> None:
        """Mark the run done, with a summary."""
        self.log("done", **fields)
        write_json(self.path / DONE_FILE, fields)


def _differences(a: dict[str, Any], b: dict[str, Any]) -> Sequence[str]:
    return [key for key in {**a, **b} if a.get(key) != b.get(key)]
