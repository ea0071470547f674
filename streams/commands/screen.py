"""What a terminal gets to see. Text that came from outside never reaches it with control characters in it."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from schemas.alerts import Alert

__all__ = [
    "GRADE_STYLES",
    "Lang",
    "Update",
    "alert_line",
    "bar",
    "err",
    "grade",
    "moment",
    "note",
    "out",
    "safe",
    "say",
    "status_line",
    "table",
    "title",
    "words",
]

Lang = Literal["zh", "en", "both"]
GRADE_STYLES: Final = ("bold white on red", "bold orange1", "bold yellow", "bold blue")
_HIDDEN: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_WIDE: Final = 10_000


def safe(text: str) -> str:
    """The text with everything that a terminal would obey, or not show, written as an escape.

    Examples
    --------
    >>> safe("red \\x1b[31m and 产品")
    'red \\\\x1b[31m and 产品'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _HIDDEN else char for char in text
    )


class _Console(Console):
    """A console that leaves a reader who has gone to :mod:`streams.cli`, as everything else does."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def out() -> Console:
    """Standard output; wide where it is no terminal, so that lines can be cut and searched."""
    return _console(sys.stdout)


def err() -> Console:
    """Standard error."""
    return _console(sys.stderr)


def _console(stream: Any) -> Console:
    width = None if stream.isatty() else _WIDE
    return _Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def say(text: str | Text = "") -> None:
    """A line on standard output; a plain text's control characters are escaped."""
    out().print(safe(text) if isinstance(text, str) else text, soft_wrap=True)


def note(text: str) -> None:
    """A line on standard error."""
    err().print(safe(text), soft_wrap=True)


def title(text: str) -> None:
    """A heading, after an empty line."""
    say()
    say(Text(text, style="bold"))


def words(zh: str, en: str, lang: Lang) -> str:
    """A sentence in the language asked for, fit for a terminal."""
    if lang == "both":
        return safe(zh) if zh == en else f"{safe(zh)} / {safe(en)}"
    return safe(zh if lang == "zh" else en)


def moment(when: datetime) -> str:
    """Date and minute, in the alert's own offset."""
    return when.strftime("%Y-%m-%d %H:%M")


def grade(level: int) -> Text:
    """I to IV in the colour of the grade."""
    return Text(("I", "II", "III", "IV")[level - 1], style=GRADE_STYLES[level - 1])


def alert_line(alert: Alert, lang: Lang) -> Text:
    """One revision of an alert as one line: when, how grave, what happened to it, its id and its headline."""
    line = Text(f"{moment(alert.as_of)}  ")
    line.append(f"{alert.grade:<3}", style=GRADE_STYLES[alert.level - 1])
    line.append(f"  {alert.status:<12}", style="dim" if alert.status == "resolved" else "")
    line.append(f"  {safe(alert.id)}  ", style="cyan")
    line.append(words(alert.headline.zh, alert.headline.en, lang))
    return line


def table(*columns: str, fixed: tuple[str, ...] = ()) -> Table:
    """A plain table; the columns in ``fixed`` are never broken."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        made.add_column(column, no_wrap=column in fixed, overflow="fold")
    return made


class Update(Protocol):
    """Sets a bar: how much is done, of how much, and what it says."""

    def __call__(self, done: int, total: int | None = None, title: str | None = None, /) -> None: ...


@contextmanager
def bar(what: str) -> Iterator[Update]:
    """A progress bar on standard error while that is a terminal; yields the way to move it."""
    console = err()
    if not console.is_terminal:
        yield lambda done, total=None, title=None: None
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(safe(what), total=None)

        def update(done: int, total: int | None = None, title: str | None = None, /) -> None:
            if title is not None:
                progress.update(task, description=safe(title))
            progress.update(task, completed=done, total=total)

        yield update


@contextmanager
def status_line(console: Console | None) -> Iterator[Callable[[str], None]]:
    """A line that is rewritten in place, on the terminal if there is one; yields the way to set it."""
    if console is None or not console.is_terminal:
        yield lambda text: None
        return
    with console.status("") as status:
        last = 0.0

        def show(text: str) -> None:
            nonlocal last
            if time.monotonic() - last > 0.2:
                last = time.monotonic()
                status.update(Text(safe(text)))

        yield show
