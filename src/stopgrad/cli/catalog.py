"""Commands about the catalogue: methods, cite."""

from typing import Annotated, Any

import typer

from stopgrad.cli.output import Json, console, show, table

app = typer.Typer()


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Explain this method alone.")] = None,
    as_json: Json = False,
) -> None:
    """List the catalogue, or explain one method: its equation and what theory expects."""
    from stopgrad.catalog import CATALOG, lookup

    chosen = CATALOG.values() if name is None else [lookup(name)]
    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "title": entry.title,
            "paper": entry.paper,
            "section": entry.section,
            "cite": entry.cite,
            "parts": entry.method.model_dump(mode="json"),
            "projector": entry.projector.model_dump(mode="json"),
            "equation": entry.method.explain(),
            "notes": entry.method.notes(),
        }
        for entry in chosen
    ]
    if as_json:
        show({"methods": rows}, True, [])
    elif name is None:
        console().print(table(("method", "what it is", "source"), [
            (row["name"], row["title"], f"{row['paper']}, {row['section']}".rstrip(", ")) for row in rows
        ]))  # fmt: skip
    else:
        row = rows[0]
        source = f"{row['paper']}, {row['section']}".rstrip(", ")
        show(row, False, [row["title"], f"Source: {source}", "", row["equation"], "", *row["notes"]])


@app.command()
def cite(
    name: Annotated[
        str, typer.Argument(help="Name from `stopgrad methods`, or stopgrad itself.")
    ] = "stopgrad",
    as_json: Json = False,
) -> None:
    """Print the BibTeX of a method's paper."""
    from stopgrad.citations import BIBTEX

    if name == "stopgrad":
        key = name
    else:
        from stopgrad.catalog import lookup

        key = lookup(name).cite
    show({"name": name, "bibtex": BIBTEX[key]}, as_json, [BIBTEX[key]])
