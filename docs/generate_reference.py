"""Write docs/reference/commands.md from the config classes, so that the page cannot say what the code does not.

python docs/generate_reference.py
"""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

from dermlab.verbs import COMMANDS, config_class, positional_names, summary

PAGE = Path(__file__).parent / "reference" / "commands.md"

HEAD = """# Commands

Written by `docs/generate_reference.py` from the config classes. Every command also takes `--help`, `--config FILE.yaml`
(the same fields), `--print_config`, `--json` (one JSON value on standard output, progress on standard error; an
error is one line on standard error and leaves standard output empty) and `--debug`. **The command line beats YAML beats
defaults, in whatever order they are written.** Dashes and underscores in option names are the same; lists are written
`A,B` or `[A, B]`; a nested field is written by its path, as `--candidates.0.head.kind knn`. From Python the same
commands are functions: `dermlab.data_import("folder", "photos", out="clinic")`, and wrong input raises
`dermlab.core.errors.InputError`.

Exit status: 0 done · 1 the command was asked to look for problems and found some · 2 wrong usage or unusable input ·
3 the work failed · 130 interrupted (what was done is kept).
"""


def kind_of(annotation: Any) -> str:
    """Name a field's type in words a person reads."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        words = list(dict.fromkeys(kind_of(item) for item in arguments if item is not type(None)))
        return " or ".join(words)
    if origin is typing.Literal:
        return " / ".join(f"`{item}`" for item in arguments)
    if origin in (tuple, list):
        return f"list of {kind_of(arguments[0])}"
    if origin is dict:
        return "mapping"
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "yes/no", "Path": "path"}
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, name.removesuffix("Config").lower())


def section(words: tuple[str, ...], verb: str) -> str:
    """Return one command's part of the page."""
    model = config_class(verb)
    positional = positional_names(model)
    fields = model.model_fields
    usage = " ".join(["dermlab", *words, *(name.upper() for name in positional), "[options]"])
    lines = [f"## `dermlab {' '.join(words)}`", "", f"{summary(verb)}.", "", f"    {usage}", ""]
    lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        if default is None or default == () or default == "":
            default = ""
        elif hasattr(default, "model_dump"):
            default = ", ".join(f"{key}: {value}" for key, value in default.model_dump(mode="json").items())
        elif default != "required":
            default = f"`{default}`"
        label = name.upper() if name in positional else f"--{name}"
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{label}` | {kind_of(field.annotation)} | {default} | {meaning} |")
    return "\n".join(lines)


def page() -> str:
    """Return the whole page."""
    return "\n\n".join([HEAD.rstrip(), *(section(words, verb) for words, verb in COMMANDS.items())]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
