"""The command line: parses, calls one command, prints its result. No logic lives here.

Why argparse and not jsonargparse: of the latter three behaviours had to be undone (a later YAML beats the command
line, pages of usage on an error, exit status 1 from validators), and its import alone took a third of the half second
that ``dermlab --help`` may last. The config classes hold all types, defaults and texts; this file turns them into
options, and pydantic validates.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import json
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from dermlab.core.errors import DermlabError, InputError, first_line

EVERYWHERE = """\
every command also takes:
  --config FILE.yaml   the same fields from a file; the command line wins
  --print_config       print the resolved config as YAML and stop
  --json               one JSON value on standard output, progress on standard error
  --debug              show the traceback of an error
"""


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line and no usage page."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 problems found, 2 bad input, 3 failed, 130 stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        return _main([word for word in words if word != "--debug"])
    except KeyboardInterrupt:
        print("interrupted; what was done is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except DermlabError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except MemoryError:
        print("error: out of memory; a smaller --batch_size or --size needs less", file=sys.stderr)
        return 3
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        print(f"error: {kind}: {first_line(error)} (unexpected; --debug shows the traceback)", file=sys.stderr)
        return 3


def _main(words: list[str]) -> int:
    from dermlab import verbs

    if not words or words[0] in ("-h", "--help"):
        print(_overview(verbs.COMMANDS))
        return 0 if words else 2
    if words[0] in ("--version", "-V"):
        from dermlab import __version__

        print(f"dermlab {__version__}")
        return 0
    command, rest = _find(words, verbs.COMMANDS)
    if command is None:
        return 0
    verb = verbs.COMMANDS[command]
    program = "dermlab " + " ".join(command)

    model = verbs.config_class(verb)
    data, options = parse(model, rest, program=program, summary=verbs.summary(verb))
    from dermlab.core.config import describe, write_yaml

    try:
        from pydantic import ValidationError

        config = model.model_validate(data)
    except ValidationError as error:
        missing = [fault["loc"][0] for fault in error.errors() if fault["type"] == "missing" and len(fault["loc"]) == 1]
        if missing and len(missing) == len(error.errors()):
            names = verbs.positional_names(model)
            words = [str(field).upper() if field in names else f"--{field}" for field in missing]
            raise InputError(f"{program}: {', '.join(words)} required (see {program} --help)") from None
        raise InputError(f"{describe(error, model, source=options.config or program)}") from None
    if options.print_config:
        print(write_yaml(config), end="")
        return 0
    import importlib

    result = importlib.import_module(f"dermlab.commands.{verb}").run(config)
    if options.json:
        from dermlab.core.files import json_ready

        print(json.dumps(json_ready(result.to_json()), ensure_ascii=False, indent=2))
    else:
        for line in result.lines():
            print(line)
    sys.stdout.flush()
    return int(getattr(result, "exit_status", 0))


def _overview(commands: dict[tuple[str, ...], str]) -> str:
    from dermlab.verbs import summary

    width = max(len(" ".join(words)) for words in commands) + 2
    rows = [f"  {' '.join(words):<{width}}{summary(verb)}" for words, verb in commands.items()]
    return "\n".join(
        [
            "usage: dermlab COMMAND [options]",
            "",
            "From public vision models and a clinic's labelled skin photos to a classifier that may ship,",
            "measured on patients it has never seen.",
            "",
            "commands:",
            *rows,
            "",
            EVERYWHERE,
            "start with: dermlab demo --out demo        help on one command: dermlab COMMAND --help",
        ]
    )


def _find(words: list[str], commands: dict[tuple[str, ...], str]) -> tuple[tuple[str, ...] | None, list[str]]:
    """Split the words into a command and its arguments; an unknown command is one line with the nearest names."""
    for length in (2, 1):
        name = tuple(words[:length])
        if name in commands:
            return name, words[length:]
    group = {name: verb for name, verb in commands.items() if name[0] == words[0]}
    if group:
        if len(words) > 1 and words[1] not in ("-h", "--help"):
            near = difflib.get_close_matches(words[1], [name[1] for name in group if len(name) > 1], n=1)
            hint = f"; did you mean '{words[0]} {near[0]}'?" if near else ""
            known = ", ".join(" ".join(name) for name in group)
            raise InputError(f"dermlab {words[0]}: no command {words[1]!r}{hint} There are: {known}")
        from dermlab.verbs import summary

        width = max(len(" ".join(name)) for name in group) + 2
        print(f"usage: dermlab {words[0]} COMMAND [options]\n")
        for name, verb in group.items():
            print(f"  {' '.join(name):<{width}}{summary(verb)}")
        if len(words) == 1:
            raise InputError(f"dermlab {words[0]}: which one?")
        return None, []
    known_words = sorted({name[0] for name in commands})
    near = difflib.get_close_matches(words[0], [" ".join(name) for name in commands] + known_words, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise InputError(f"dermlab: no command {words[0]!r}{hint} (see dermlab --help)")


def parse(
    model: type, words: Sequence[str], *, program: str, summary: str
) -> tuple[dict[str, Any], argparse.Namespace]:
    """Turn words into the fields of ``model``: defaults < YAML < command line, in whatever order they are written.

    Returns the merged fields, not yet validated, and the options that every command takes.
    """
    from dermlab.core.config import merge, read_yaml
    from dermlab.verbs import positional_names

    names = positional_names(model)
    parser = _Parser(prog=program, description=summary + ".", allow_abbrev=False, add_help=True)
    parser.add_argument("--config", metavar="FILE.yaml", help="YAML file with the same fields; the command line wins")
    parser.add_argument("--print_config", action="store_true", help="print the resolved config and stop")
    parser.add_argument("--json", action="store_true", help="print one JSON value on standard output")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    declared: dict[str, Any] = model.model_fields  # type: ignore[attr-defined]
    fields = {field.alias or name: field for name, field in declared.items()}  # --from cannot be a Python name
    for name in names:
        if name == "config" and "config" not in fields:
            parser.add_argument("config_file", nargs="?", metavar="CONFIG", help="YAML file with the fields below")
            continue
        field = fields[name]
        count = "*" if _is_many(field.annotation) else "?"
        parser.add_argument(f"positional:{name}", nargs=count, metavar=name.upper(), help=_help(field))
    for name, field in fields.items():
        shown = argparse.SUPPRESS if name in names else _help(field)
        if _unwrapped(field.annotation) is bool:
            on = argparse.SUPPRESS if field.default is True else shown
            # The description is of what the field does; the option that is shown here turns that off.
            off = f"turn off: {shown}" if field.default is True and name not in names else argparse.SUPPRESS
            parser.add_argument(f"--{name}", dest=name, action="store_true", default=argparse.SUPPRESS, help=on)
            parser.add_argument(f"--no_{name}", dest=name, action="store_false", default=argparse.SUPPRESS, help=off)
        else:
            parser.add_argument(
                f"--{name}",
                dest=name,
                action="append",
                default=argparse.SUPPRESS,
                metavar=_metavar(field),
                help=shown,
            )
    plain, dotted = _take_dotted(words, fields)
    options, unknown = parser.parse_known_args(plain)
    if unknown:
        raise InputError(_unknown(program, unknown, [*fields, "config", "print_config", "json", "debug"]))
    given: dict[str, Any] = {}
    for name in names:
        value = getattr(options, f"positional:{name}", None)
        if value:
            given[name] = value if isinstance(value, list) else _value(fields[name].annotation, [value])
    for name, field in fields.items():
        if hasattr(options, name) and name not in ("config", "json", "debug", "print_config"):
            raw = getattr(options, name)
            given[name] = raw if isinstance(raw, bool) else _value(field.annotation, raw)
    config_file = options.config or getattr(options, "config_file", None)
    options.config = config_file
    data = merge(read_yaml(config_file) if config_file else {}, given)
    for path, text in dotted:
        _set(data, path, text)
    return data, options


def _take_dotted(words: Sequence[str], fields: dict[str, Any]) -> tuple[list[str], list[tuple[list[str], str]]]:
    """Separate ``--candidates.0.head.kind linear`` (a path into the config) from plain options, written alike."""
    plain: list[str] = []
    dotted: list[tuple[list[str], str]] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        name = word[2:].split("=", 1)[0] if word.startswith("--") else ""
        parts = name.split(".")
        # Dashes and underscores in option names are the same; values after "=" stay as they are.
        parts[0] = parts[0].replace("-", "_")
        if len(parts) > 1 and parts[0] in fields:
            if "=" in word:
                value = word.split("=", 1)[1]
            elif queue:
                value = queue.pop(0)
            else:
                raise InputError(f"{word}: expects a value")
            dotted.append((parts, value))
        else:
            plain.append("--" + ".".join(parts) + word[2 + len(name) :] if name else word)
    return plain, dotted


def _set(data: dict[str, Any], path: list[str], text: str) -> None:
    """Set one value deep in the config; lists are indexed by number, a string shorthand becomes its ``kind``."""
    target: Any = data
    for here, following in itertools.pairwise(path):
        fresh: Any = [] if following.isdigit() else {}
        key: int | str = here
        if isinstance(target, list):
            key = _index(target, here, path)
            if key == len(target):
                target.append(fresh)
        else:
            target.setdefault(here, fresh)
        value = target[key]
        if isinstance(value, str) and isinstance(fresh, dict):
            value = {"kind": value}
        elif isinstance(value, tuple):
            value = list(value)
        elif not isinstance(value, dict | list):
            value = fresh
        target[key] = value
        target = value
    last = path[-1]
    if isinstance(target, list):
        place = _index(target, last, path)
        target[place : place + 1] = [_yaml(text)]
    else:
        target[last] = _yaml(text)


def _index(values: list[Any], word: str, path: list[str]) -> int:
    if not word.isdigit() or int(word) > len(values):
        raise InputError(f"--{'.'.join(path)}: {word!r} is not an index of a list of {len(values)}")
    return int(word)


def _unknown(program: str, unknown: list[str], known: list[str]) -> str:
    word = next((item for item in unknown if item.startswith("-")), unknown[0])
    name = word.lstrip("-").split("=", 1)[0].replace("-", "_")
    if not word.startswith("-"):
        return f"{program}: unexpected argument {word!r} (see {program} --help)"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean --{near[0]}?" if near else ""
    return f"{program}: no option {word!r}{hint} (see {program} --help)"


def _unwrapped(annotation: Any) -> Any:
    """Return the annotation without ``Annotated`` and without ``| None``."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _unwrapped(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        kinds = [item for item in typing.get_args(annotation) if item is not type(None)]
        return _unwrapped(kinds[0]) if len(kinds) == 1 else annotation
    return annotation


def _is_many(annotation: Any) -> bool:
    return typing.get_origin(_unwrapped(annotation)) in (tuple, list, set, frozenset)


def _is_scalar(annotation: Any) -> bool:
    """Whether a field's text is taken as it stands (pydantic makes numbers of it) and not read as YAML."""
    kind = _unwrapped(annotation)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return all(_is_scalar(item) for item in typing.get_args(kind))
    return kind in (str, int, float, Path) or typing.get_origin(kind) is typing.Literal


def _value(annotation: Any, texts: list[str]) -> Any:
    """Turn the words given for one option into what pydantic validates."""
    if _is_many(annotation):
        items: list[Any] = []
        for text in texts:
            value = _yaml(text) if text.lstrip().startswith(("[", "{")) else text.split(",")
            items.extend(value if isinstance(value, list) else [value])
        return [item.strip() if isinstance(item, str) else item for item in items if item != ""]
    text = texts[-1]
    optional = type(None) in typing.get_args(annotation)
    if optional and text.lower() in ("none", "null"):
        return None
    return text if _is_scalar(annotation) else _yaml(text)


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"{text!r}: cannot be read as a value; write plain text, a number or YAML") from None


def _metavar(field: Any) -> str:
    kind = _unwrapped(field.annotation)
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(str(item) for item in typing.get_args(kind))
    if _is_many(kind):
        return "A,B,…"
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "VALUE")


def _help(field: Any) -> str:
    text = field.description or ""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if default not in (None, (), "", False) and not hasattr(default, "model_dump"):
        text += f" (default: {','.join(map(str, default)) if isinstance(default, tuple) else default})"
    return text.replace("%", "%%")


if __name__ == "__main__":
    sys.exit(main())
