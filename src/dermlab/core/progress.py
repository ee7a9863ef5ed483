"""Progress on standard error: a bar with rate and time left, and one-line notes. Standard output stays for results."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

_quiet = False
_bar_active = False


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def set_quiet(quiet: bool) -> None:
    """Switch notes and bars off (tests, library use) or on."""
    global _quiet
    _quiet = quiet


def note(message: str) -> None:
    """Print one line for the user on standard error."""
    if not _quiet:
        print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print one warning line on standard error."""
    note(f"warning: {message}")


@contextlib.contextmanager
def progress(description: str, total: int | None, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Show a bar with count, rate and time left while the block runs; call the yielded function with steps done.

    On a terminal it is a live bar; elsewhere (a log file, CI) one line about every ten seconds.
    """
    global _bar_active
    if _quiet or _bar_active:  # bars do not nest: the outer one tells how far the work is
        yield _nothing
        return
    _bar_active = True
    try:
        if sys.stderr.isatty():
            yield from _live(description, total, unit)
        else:
            yield from _lines(description, total, unit)
    finally:
        _bar_active = False


def _nothing(steps: int = 1) -> None:
    """Advance no bar."""


def _live(description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console()) as bar:
        task = bar.add_task(description, total=total, rate="")

        def advance(steps: int = 1) -> None:
            bar.advance(task, steps)
            current = bar.tasks[0]
            if current.speed:
                bar.update(task, rate=f"{current.speed:,.1f}/s")

        yield advance


def _lines(description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    import time

    start = last = time.monotonic()
    done = 0

    def advance(steps: int = 1) -> None:
        nonlocal done, last
        done += steps
        now = time.monotonic()
        if now - last >= 10:
            last = now
            rate = done / (now - start)
            left = f", {(total - done) / rate:,.0f} s left" if total and rate else ""
            note(f"{description}: {done:,}{f' of {total:,}' if total else ''} {unit}, {rate:,.1f}/s{left}")

    yield advance
    seconds = time.monotonic() - start
    if seconds >= 2:
        note(f"{description}: {done:,} {unit} in {seconds:,.1f} s")
