"""The command about what already lies on disk: diagnose."""

from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import typer

from stopgrad.cli.output import Json, choice, console, show, table
from stopgrad.cli.runs import DEVICES, Data, DataDir, Device

app = typer.Typer()

SHOWN = (
    *("std", "effective_rank", "rankme", "participation_ratio", "alpha_req", "m_o", "m_r", "uniformity"),
    *("alignment", "off_diagonal_covariance", "norm", "raw_std", "finite", "zero_rows"),
)
NODES = ("p", "z_train", "p_train")


@app.command()
def diagnose(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="File of vectors, run, checkpoint, or a folder of these."),
    ],
    key: Annotated[
        str | None, typer.Option("--key", help="Array or column, where a file holds several.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Encoder of a checkpoint: timm/NAME, resnet18, resnet50.")
    ] = None,
    data: Data = None,
    data_dir: DataDir = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=4, help="Pixels a side for a checkpoint's encoder.")
    ] = None,
    device: Device = "auto",
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.html", help="Write one page with the evidence drawn."),
    ] = None,
    fail_on_collapse: Annotated[
        bool, typer.Option("--fail-on-collapse", help="Exit with 1 unless the verdict is healthy.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what is wrong with embeddings, a run, or a checkpoint: verdict, since when, evidence, remedies."""
    from stopgrad.postmortem.diagnose import diagnose as examine

    found = examine(
        path, key=key, model=model, data=data, data_dir=data_dir, image_size=image_size,
        device=choice("--device", device, *DEVICES), plot=plot,
    )  # fmt: skip
    if as_json:
        show(found, True, [])
    else:
        _print(found)
        if plot is not None:
            _line(console(), f"page        {plot}")
    if fail_on_collapse and found["verdict"] != "healthy":
        raise typer.Exit(1)


def _print(found: dict[str, Any]) -> None:
    """A page for people; of a folder, one line a file and the page of the worst."""
    page = console()
    if "files" in found:
        rows: list[tuple[str, ...]] = [
            (d["source"]["path"], d["verdict"], f"{d['confidence']:.2f}") for d in found["files"]
        ]
        page.print(table(("file", "verdict", "confidence"), rows))
        for skipped in found["source"]["skipped"]:
            _line(page, f"skipped {skipped['reason']}")
        if found["verdict"] == "healthy":
            return
        found = next(d for d in found["files"] if d["source"]["path"] == found["source"]["worst"])
        page.print()
    since = "" if found["first_bad_step"] is None else f", since step {found['first_bad_step']}"
    _line(page, f"verdict     {found['verdict']} (confidence {found['confidence']:.2f}{since})")
    for line in _source_lines(found["source"]):
        _line(page, line)
    if found["cause"]:
        _line(page, f"cause       {found['cause']}")
    page.print()
    page.print(_measures(found["measures"]))
    page.print()
    for item in found["evidence"]:
        sign = "<" if item["below"] else ">="
        amounts = f"{item['value']:.4g} {sign} {item['threshold']:.4g}"
        _line(page, f"evidence    {item['measure']} of {item['of']}: {amounts}: {item['says']}")
    for i, fix in enumerate(found["fixes"], start=1):
        _line(page, f"{'fixes' if i == 1 else '':<12}{i}. {fix['change']}: {fix['effect']} ({fix['source']})")


def _line(page: Any, text: str) -> None:
    """A line as it is; on a terminal wrapped under its text."""
    from rich.text import Text

    if page.is_terminal:
        text = fill(text, page.width, subsequent_indent=" " * 12, break_long_words=False)
    page.print(Text(text), soft_wrap=True)


def _source_lines(source: dict[str, Any]) -> list[str]:
    lines = [f"read        {source['path']}"]
    if source["kind"] == "run":
        state = "ended" if source["ended"] else "still running, or stopped"
        lines.append(f"run         {source['method']}, {source['readings']} readings, {state}")
        return lines
    if source["kind"] == "checkpoint":
        where = f"under '{source['prefix']}'" if source["prefix"] else "at the top"
        lines.append(
            f"encoder     {source['model']}: {source['matched_keys']} of {source['model_keys']} keys matched "
            f"{where} ({source['library']}, {source['layout']})"
        )
        for name, values in (("ignored", source["ignored"]), ("also there", source["other_encoders"])):
            lines += [f"{name:<12}{', '.join(values)}"] if values else []
        lines += [f"assumed     {note}" for note in source["notes"]]
        lines.append(
            f"images      {source['rows']} of {source['data']} at {source['image_size']} pixels, mean "
            f"{_numbers(source['mean'])}, std {_numbers(source['std'])}"
        )
        lines += [f"skipped     {s['path']}: {s['reason']}" for s in source["skipped"]]
    what = f"{source['rows']} x {source['dims']}"
    named = f", '{source['key']}'" if source.get("key") else ""
    lines.append(f"vectors     {what}{' ' + source['dtype'] if 'dtype' in source else ''}{named}")
    return lines


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def _measures(measures: dict[str, Any]) -> Any:
    """A table of the measures, one column a node."""
    nodes = [name for name in NODES if name in measures]
    columns = [measures, *(measures[name] for name in nodes)]
    rows = [
        (name, *(_amount(column.get(name)) for column in columns))
        for name in SHOWN
        if any(name in column for column in columns)
    ]
    return table(("measure", "z" if nodes else "value", *nodes), rows)


def _amount(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
