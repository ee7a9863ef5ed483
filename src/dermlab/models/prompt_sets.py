"""Words for classes and concepts: the sets that dermlab brings (``prompts/*.yaml``) and a person's own files."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from pydantic import Field

from dermlab.core.config import Config, read_yaml, validate
from dermlab.core.errors import InputError

CONCEPTS = "concepts"
TEMPLATES = {"This is skin image of {}": "This is skin image", "This is image of {}": "This is image"}


class PromptSet(Config):
    """Words for the classes of a data set."""

    title: str = Field("", description="of what data")
    source: str = Field("", description="where the classes and words are from")
    data_sets: tuple[str, ...] = Field((), description="names of the data cards that it is for")
    templates: tuple[str, ...] = Field(("a photo of {}",), min_length=1, description="sentences with {} for the word")
    classes: dict[str, tuple[str, ...]] = Field(min_length=2, description="class of the data set → words for it")
    codes: dict[str, str] = Field({}, description="other names of the classes in data → class")

    def words_for(self, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the words for a target's classes, in its order; those that have none are left out.

        Capitals make no difference, and ``codes`` are asked after ``classes``.
        """
        known = {name.casefold(): words for name, words in self.classes.items()}
        for code, name in self.codes.items():
            known.setdefault(code.casefold(), self.classes.get(name, ()))
        return {name: known[name.casefold()] for name in classes if known.get(name.casefold())}


class ConceptSet(Config):
    """Words for what a photo may show."""

    title: str = Field("", description="of what")
    source: str = Field("", description="where the words are from")
    templates: dict[str, str] = Field(
        TEMPLATES, min_length=1, description="sentence with {} for the word → the same sentence that says nothing"
    )
    groups: dict[str, dict[str, tuple[str, ...]]] = Field(
        min_length=1, description="group (clinical, dermoscopic, artefact) → concept → words for it"
    )

    def chosen(self, names: Sequence[str], *, source: str) -> dict[str, tuple[str, ...]]:
        """Return concept → words for groups and single concepts by name; all for none.

        Raises:
            InputError: there is no such group or concept.
        """
        every = {name: words for group in self.groups.values() for name, words in group.items()}
        found: dict[str, tuple[str, ...]] = {}
        for name in names or tuple(self.groups):
            if name in self.groups:
                found |= self.groups[name]
            elif name in every:
                found[name] = every[name]
            else:
                groups = ", ".join(self.groups)
                raise InputError(f"{source}: no concept {name!r}; it has {', '.join(every)} in the groups {groups}")
        return found


@functools.cache
def prompt_sets() -> dict[str, PromptSet]:
    """Return the prompt sets that dermlab brings, by name."""
    folder = resources.files("dermlab.models").joinpath("prompts")
    files = sorted(Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {file.stem: read_prompts(file) for file in files if file.stem != CONCEPTS}


def read_prompts(path: Path) -> PromptSet:
    """Read a prompts file. Raises :class:`InputError` naming the file and the field that is wrong."""
    found = validate(PromptSet, read_yaml(path), source=str(path))
    for code, name in found.codes.items():
        if name not in found.classes:
            raise InputError(f"{path}: codes.{code}: {name!r} is not one of {', '.join(found.classes)}")
    return found


def read_concepts(path: Path | None = None) -> ConceptSet:
    """Read a concepts file; None: dermlab's own."""
    if path is None:
        path = Path(str(resources.files("dermlab.models").joinpath("prompts", f"{CONCEPTS}.yaml")))
    return validate(ConceptSet, read_yaml(path), source=str(path))


def find_prompts(asked: str | None, classes: Sequence[str], *, data_set: str = "") -> tuple[str, PromptSet]:
    """Return the prompts for a target, and their name; every class has words in them.

    Args:
        asked: name of a set that dermlab brings, or a file; None: the set that knows all classes, of several the one
            for this data set, or without such the one of these classes and no others.
        classes: of the target.
        data_set: name of the data set's card.

    Raises:
        InputError: no such set or file, a class has no words, or several sets fit.
    """
    sets = prompt_sets()
    if asked is not None:
        if asked not in sets and not Path(asked).expanduser().is_file():
            raise InputError(f"prompts {asked!r}: no such file, and none of the sets {', '.join(sets)}")
        prompts = sets[asked] if asked in sets else read_prompts(Path(asked).expanduser())
        unknown = [name for name in classes if name not in prompts.words_for([name])]
        if unknown:
            raise InputError(
                f"prompts {asked}: classes: has no words for {', '.join(unknown)}; it has {', '.join(prompts.classes)}"
            )
        return asked, prompts
    fitting = [name for name, one in sets.items() if len(one.words_for(classes)) == len(classes)]
    named = [name for name in fitting if data_set.casefold() in sets[name].data_sets]
    whole = [name for name in fitting if len(sets[name].classes) == len(classes)]
    best = named or whole or fitting
    if len(best) == 1:
        return best[0], sets[best[0]]
    if best:
        raise InputError(f"prompts: {' and '.join(best)} know the classes {', '.join(classes)}; say which")
    raise InputError(
        f"prompts: no set of dermlab's knows all of the classes {', '.join(classes)}; write the words for them into a "
        "file (classes: {CLASS: [words]}), or name a set"
    )
