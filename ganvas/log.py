"""The package's logger, and what the command lines show of it: lines on standard error, and a progress bar.

A caller in Python gets what `logging` does by default: warnings are shown, everything else is not. rich is imported
when a bar or a console is first needed, so that the ONNX runner works where rich is not installed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

Item = TypeVar("Item")

logger = logging.getLogger("ganvas")


class _LineHandler(logging.Handler):
    """Writes each message as one line to standard error, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "rich" in sys.modules:
            console().print(message, soft_wrap=True, highlight=False, markup=False)
        else:
            print(message, file=sys.stderr)


@contextmanager
def shown_log() -> Iterator[None]:
    """Show messages of level INFO and above on standard error within the block, as a command line does."""
    if any(isinstance(handler, _LineHandler) for handler in logger.handlers):  # one command runs another
        yield
        return
    handler, level = _LineHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@cache
def console() -> Console:
    """Return the console of standard error that messages and progress bars share."""
    from rich.console import Console

    return Console(stderr=True)


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Return a progress bar, shown on a terminal where messages of level INFO are.

    Args:
        columns: What it shows after the task's name and the bar; by default the count and the remaining time.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *(columns or (MofNCompleteColumn(), TimeRemainingColumn())),
        console=console(),
        transient=True,
        disable=not (console().is_terminal and logger.isEnabledFor(logging.INFO)),
    )


def track(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """Yield items under a progress bar.

    Args:
        items: Anything.
        title: What is done to them, such as "translating".
        total: How many there are.
    """
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=title)
