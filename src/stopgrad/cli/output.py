"""What every command prints, and the options that commands share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]


def choice(flag: str, value: str, *allowed: str) -> Any:
    """``value`` if it is one of those allowed; else one line that names the nearest."""
    if value not in allowed:
        from stopgrad.errors import unknown

        raise unknown(flag, value, list(allowed))
    return value


def show(result: dict[str, Any], as_json: bool, lines: list[str], indent: int | None = 2) -> None:
    """Print a result: as JSON, or as lines of text. Long arrays are better without ``indent``."""
    if as_json:
        from stopgrad.files import to_json

        print(to_json(result, indent=indent))
    else:
        print("\n".join(lines))


def percent(value: float | None) -> str:
    """A fraction in percent, or a dash."""
    return "-" if value is None else f"{100 * value:5.1f} %"


def console() -> Any:
    """The terminal, for tables."""
    from rich.console import Console

    return Console()


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> "Table":
    """A plain table, whose first column is never cut: it holds the names."""
    from rich.table import Column, Table

    whole = Table(Column(head[0], no_wrap=True), *head[1:], box=None, pad_edge=False)
    for row in rows:
        whole.add_row(*row)
    return whole


@contextmanager
def progress(what: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, where that is a terminal.

    Gives a function to call with the number of things done since its last call.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, advance=done)
