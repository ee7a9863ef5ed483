"""The commands as Python functions: ``dermlab.probe("clinic", encoder="resnet50", head="linear", out="run")``.

One module of ``dermlab.commands`` is one verb: its config class says what it takes, its ``run`` does it. The command
line and this module are two doors to the same room.
"""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dermlab.core.errors import InputError

if TYPE_CHECKING:
    from dermlab.core.config import Config

# What a person types after ``dermlab`` → the module in dermlab.commands, in the order of the help page.
COMMANDS: dict[tuple[str, ...], str] = {
    ("demo",): "demo",
    ("data", "import"): "data_import",
    ("data", "synth"): "data_synth",
    ("data", "check"): "data_check",
    ("data", "split"): "data_split",
    ("data", "cache"): "data_cache",
    ("cache",): "cache",
    ("triage",): "triage",
    ("encoders",): "encoders",
    ("embed",): "embed",
    ("probe",): "probe",
    ("zeroshot",): "zeroshot",
    ("concepts",): "concepts",
    ("retrieval",): "retrieval",
    ("pretrain",): "pretrain",
    ("finetune",): "finetune",
    ("predict",): "predict",
    ("evaluate",): "evaluate",
    ("compare",): "compare",
    ("redraw",): "redraw",
    ("across",): "across",
    ("label-efficiency",): "label_efficiency",
    ("robustness",): "robustness",
    ("unseen",): "unseen",
    ("bakeoff",): "bakeoff",
    ("suite",): "suite",
    ("decompose",): "decompose",
    ("report",): "report",
    ("push",): "push",
}
VERBS = frozenset(COMMANDS.values())


def summary(verb: str) -> str:
    """Return a command's help line: the first line of its module's docstring, read without importing it."""
    source = importlib.resources.files("dermlab.commands").joinpath(f"{verb}.py")
    with source.open("r", encoding="utf-8") as file:
        return file.readline().strip().strip('"').rstrip(".")


def config_class(verb: str) -> type[Config]:
    """Return the config class of a verb: the annotation of ``run``'s only argument."""
    module = importlib.import_module(f"dermlab.commands.{verb}")
    return typing.get_type_hints(module.run)["config"]


def positional_names(model: type[Config]) -> tuple[str, ...]:
    """Return the fields that are written without their name, in order."""
    return getattr(model, "positional", ())


@functools.cache
def function(verb: str) -> Callable[..., Any]:
    """Return the Python function of a verb: keyword arguments are the config's fields.

    A positional argument stands for the fields that the command line takes without a name. ``config=`` names a YAML
    file of the same fields, over which the other arguments win.
    """
    from dermlab.core.config import merge, read_yaml, validate

    model = config_class(verb)
    module = importlib.import_module(f"dermlab.commands.{verb}")

    def call(*args: Any, config: Any = None, **fields: Any) -> Any:
        names = positional_names(model)
        if len(args) > len(names):
            raise InputError(f"dermlab.{verb}: takes {len(names)} unnamed arguments ({', '.join(names)})")
        for name, value in zip(names, args, strict=False):
            if name == "config" and "config" not in model.model_fields:
                config = value
            else:
                fields[name] = value
        base = config if isinstance(config, dict) else read_yaml(config) if config is not None else {}
        return module.run(validate(model, merge(base, fields), source=f"dermlab.{verb}"))

    call.__name__ = call.__qualname__ = verb
    described = "\n".join(f"    {name}: {field.description}" for name, field in model.model_fields.items())
    call.__doc__ = f"{summary(verb)}.\n\nArgs:\n{described}\n"
    return call
