"""The one family of exceptions: each carries the sentence for the person at the keyboard and the exit status."""

from __future__ import annotations

from pathlib import Path


class DermlabError(Exception):
    """The work failed (exit status 3). Its text is one line: what is wrong, where, and what would be right."""

    exit_status = 3


class InputError(DermlabError):
    """Wrong usage or unusable input (exit status 2)."""

    exit_status = 2

    @classmethod
    def at(
        cls,
        file: str | Path,
        message: str,
        *,
        row: int | None = None,
        column: str | None = None,
    ) -> InputError:
        """Build an error that names its place: ``metadata.csv row 118, column 'dx': message``.

        ``row`` is the line a person sees in an editor: 1 is the header of a CSV, 2 its first record.
        """
        place = str(file)
        if row is not None:
            place += f" row {row}"
        if column is not None:
            place += f"{',' if row is not None else ''} column {column!r}"
        return cls(f"{place}: {message}")


class MissingExtraError(InputError):
    """A feature needs a package that is not installed; the text says what to install."""

    def __init__(self, feature: str, package: str, extra: str | None = None) -> None:
        """Say which ``package`` the ``feature`` needs and how to install it (``extra`` of dermlab, or the package)."""
        install = f"pip install 'dermlab[{extra}]'" if extra else f"pip install {package}"
        super().__init__(f"{feature} needs the package {package!r}, which is not installed: {install}")


class MissingWeightsError(InputError):
    """Weights are not on this machine and could not be fetched."""


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of an exception's text, or its class name where it has none."""
    for line in str(error).splitlines():
        if line.strip():
            return line.strip()
    return type(error).__name__
