"""Typed configs: one pydantic class is the command line, the YAML file and the Python call alike."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from dermlab.core.errors import InputError


class Config(BaseModel):
    """Base of every config: unknown fields are refused, values are checked, instances are read-only."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping (an empty file is an empty mapping).

    Raises :class:`InputError` naming file and line where the file is missing, not YAML or not a mapping.
    """
    path = Path(path)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a YAML text file ({type(error).__name__})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or 'syntax error'}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{path}: the top level must be a mapping (key: value), not a {type(value).__name__}")
    return value


def write_yaml(value: BaseModel | dict[str, Any]) -> str:
    """Return ``value`` as YAML text in field order."""
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` laid on top, mapping by mapping; lists and scalars are replaced."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result


def validate(model: type[ConfigT], data: Any, *, source: str = "") -> ConfigT:
    """Validate ``data`` against ``model``; a fault is one :class:`InputError` line per wrong field.

    ``source`` (a file's name) opens the line; a field is named by its path, ``candidates.0.head.kind``.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(describe(error, model, source=source)) from None


def describe(error: ValidationError, model: type[BaseModel] | None = None, *, source: str = "") -> str:
    """Put a pydantic error into one line: ``file: field.path: what is wrong (got X)``, faults joined by ``; ``."""
    faults: list[str] = []
    for fault in error.errors(include_url=False):
        path = ".".join(str(part) for part in fault["loc"] if not _is_union_tag(part))
        message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        kind = fault["type"]
        if kind == "extra_forbidden":
            message = "no such field"
            if model is not None and len(fault["loc"]) == 1:
                near = difflib.get_close_matches(path, model.model_fields, n=1)
                fields = f"the fields are {', '.join(model.model_fields)}"
                message += f"; did you mean {near[0]!r}?" if near else f"; {fields}"
        elif kind == "missing":
            message = "is required"
        else:
            got = repr(fault.get("input"))
            if not isinstance(fault.get("input"), dict):  # fields that do not go together: the message names them
                message += f" (got {got if len(got) <= 80 else got[:77] + '...'})"
        line = f"{path}: {message}" if path else message
        if line not in faults:
            faults.append(line)
    return (f"{source}: " if source else "") + "; ".join(faults)


def _is_union_tag(part: object) -> bool:
    """Tell pydantic's union branch names ('function-before[...]', 'list[str]') from real field names."""
    return isinstance(part, str) and ("[" in part or part in {"str", "int", "float", "bool"})
