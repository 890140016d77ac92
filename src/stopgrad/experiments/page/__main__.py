"""Writes the ledger's pages from the store of finished trials, or says where they differ from it.

    python -m stopgrad.experiments.page [--store results/ledger] [--write | --check]

Without --write or --check it prints the Markdown. Bad input is one line and exit status 2.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from stopgrad.errors import UsageError
from stopgrad.experiments import ledger
from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page import beside, html, markdown, tables
from stopgrad.experiments.papers import EXPERIMENTS
from stopgrad.experiments.schema import Experiment
from stopgrad.experiments.store import DEFAULT, Store
from stopgrad.files import write_text
from stopgrad.report.page import write_page

PAGE = Path("docs/results/ledger.md")
HTML = PAGE.with_suffix(".html")
PAPERS = Path("docs/papers")
"""A page for each paper, whose ledger is written into it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; the exit status."""
    parser = argparse.ArgumentParser(
        prog="stopgrad.experiments.page", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--store", type=Path, default=DEFAULT, help="folder of finished trials")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--write", action="store_true", help=f"write {PAGE}, {HTML} and the verdicts in {PAPERS}"
    )
    what.add_argument(
        "--check", action="store_true", help="exit with 1 if a page is not what the store gives"
    )
    chosen = parser.parse_args(arguments)
    try:
        rows = read(chosen.store)
        if chosen.check:
            return _check(rows, chosen.store)
        if chosen.write:
            write_page(HTML, html.render(rows, beside.sections(rows)))
            for path, page in pages(rows).items():
                write_text(path, page)
        else:
            print(markdown.render(rows, beside.markdown(rows)), end="")
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def read(folder: Path) -> list[Row]:
    """The rows of all experiments as a store has them, whatever source made its trials.

    Raises:
        UsageError: if there is no such folder, or what it holds cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"--store: no folder '{folder}'; `stopgrad reproduce all` makes it")
    store = Store(folder)
    return [_row(experiment, store) for experiment in EXPERIMENTS.values()]


def pages(rows: Sequence[Row]) -> dict[Path, str]:
    """Path -> text of every page in Markdown: the ledger, and those of the papers that are there.

    Raises:
        UsageError: if a paper's page has no place for its claims.
    """
    found = {PAGE: markdown.render(rows, beside.markdown(rows))}
    for name, own in tables.by_paper(rows).items():
        path = PAPERS / f"{name}.md"
        if path.is_file():
            try:
                found[path] = markdown.paper(path.read_text(encoding="utf-8"), own)
            except UsageError as error:
                raise UsageError(f"{path}: {error}") from None
    return found


def difference(page: str, given: str) -> str | None:
    """Where a page is not what the store gives: the first line that differs, or None."""
    pairs = zip_longest(page.splitlines(), given.splitlines(), fillvalue="(nothing)")
    for number, (old, new) in enumerate(pairs, start=1):
        if old != new:
            return f"line {number} is\n  {old}\nand the store gives\n  {new}"
    return None if page == given else "the ends of its lines are not what the store gives"


def _row(experiment: Experiment, store: Store) -> Row:
    try:
        row = ledger.row(experiment, store, any_source=True)
        for of_seed in row.records.values():
            for record in of_seed.values():
                sum(record.result.numbers.values())  # what is no number says so here
    except UsageError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{store.folder}: {experiment.id} cannot be read: {said}") from None
    return row


def _check(rows: Sequence[Row], store: Path) -> int:
    """Compare the pages with the store, and see that the HTML can be built."""
    again = f"python -m stopgrad.experiments.page --store {store} --write"
    for path, given in pages(rows).items():
        if not path.is_file():
            print(f"{path}: not there; {again}", file=sys.stderr)
            return 1
        if found := difference(path.read_text(encoding="utf-8"), given):
            print(f"{path}: {found}\nmend: {again}", file=sys.stderr)
            return 1
    try:
        html.render(rows, beside.sections(rows))
    except UsageError as error:
        print(f"{HTML}: cannot be built: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
