"""The command line: flags and printing. It imports torch only once a command needs it."""

import signal
import sys
from typing import Any

import typer

from stopgrad.cli import catalog, diagnose, explore, reproduce, runs, theory
from stopgrad.errors import PeerLost, UsageError

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Pretrain image encoders without negative pairs, and see whether they collapse.",
)
app.add_typer(runs.app)
app.add_typer(diagnose.app)
app.add_typer(catalog.app)
app.add_typer(reproduce.app)
app.add_typer(explore.app)
app.add_typer(theory.app, name="theory")


@app.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 bad news asked for or a lost peer, 2 bad input."""
    try:
        status = app(standalone_mode=False)
    except _BAD_COMMAND_LINE as error:
        _fail(error.format_message())
    except UsageError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None:  # not about a file that the caller named
            raise
        _fail(f"{error.filename2 or error.filename}: {error.strerror}")
    except PeerLost as error:
        print(f"stopgrad: {error}", file=sys.stderr)
        sys.exit(1)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(128 + signal.SIGINT)
    except RuntimeError as error:
        # Interrupted cannot be imported here without torch
        number = getattr(error, "signal_number", None)
        if number is None:
            raise
        print(f"stopgrad: {error}; add --resume to go on", file=sys.stderr)
        sys.exit(128 + number)
    sys.exit(status if isinstance(status, int) else 0)


# typer carries its own copy of click and does not name this class
_BAD_COMMAND_LINE: Any = typer.BadParameter.__base__


def _fail(message: str) -> None:
    print(f"stopgrad: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
