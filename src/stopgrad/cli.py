"""The command line: flags and printing. It imports torch only once a command needs it."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stopgrad.errors import UsageError, nearest

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Pretrain image encoders without negative pairs, and see whether they collapse.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Data = Annotated[str | None, typer.Option("--data", help="Data set's name, or a folder of images.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where the data set's official archive lies.")
]
DEVICES = ("auto", "cpu", "cuda", "mps")
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]


@app.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def pretrain(
    data: Data = None,
    data_dir: DataDir = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the archive where it is missing.")
    ] = False,
    method: Annotated[str | None, typer.Option("--method", help="Name from `stopgrad methods`.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Encoder: convnet-s, resnet18, resnet50, timm/NAME.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder; a new one in runs/ by default.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images per optimiser step.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate, used as it is.")] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or mps.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Defaults to use, e.g. digits-smoke.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out exactly.")] = False,
    init_from: Annotated[
        Path | None, typer.Option("--init-from", help="Run or checkpoint: weights only.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting by its path: predictor.eps=0.1")
    ] = None,
    fail_on_collapse: Annotated[
        bool, typer.Option("--fail-on-collapse", help="Exit with 1 unless the verdict is healthy.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: Json = False,
) -> None:
    """Pretrain an encoder on images, probe it, and write the report."""
    from stopgrad import jobs
    from stopgrad.training.settings import RunSettings, assignment, merge

    flags: dict[str, Any] = {
        "data.name": data,
        "data.dir": None if data_dir is None else str(data_dir),
        "data.download": download or None,
        "method": method,
        "encoder.name": model,
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer.lr": lr,
        "seed": seed,
        "device": device,
        "precision": precision,
        "recipe": recipe,
    }
    changes: dict[str, Any] = {}
    for path, value in flags.items():
        if value is not None:
            for key in reversed(path.split(".")):
                value = {key: value}
            changes = merge(changes, value)
    for text in sets or []:
        changes = merge(changes, assignment(text))
    for name in changes:
        if name not in RunSettings.model_fields:  # such as `out`, an argument of jobs.pretrain
            raise UsageError(f"{name}: unknown setting{nearest(name, list(RunSettings.model_fields))}")
    summary = jobs.pretrain(
        out=out, config=config, resume=resume, init_from=init_from, show_progress=not quiet, **changes
    )
    if not summary:  # not the first process of a distributed run
        return
    _print(summary, as_json, _summary_lines(summary))
    if summary["verdict"] == "diverged" or (fail_on_collapse and summary["verdict"] != "healthy"):
        raise typer.Exit(1)


@app.command()
def probe(
    run: Run, data: Data = None, data_dir: DataDir = None, device: Device = "auto", as_json: Json = False
) -> None:
    """Evaluate a run's encoder: kNN and linear probes on labelled images."""
    from stopgrad import jobs

    result = jobs.probe(run, data, data_dir, _choice("--device", device, *DEVICES))
    lines = [f"{name:<22}{_percent(value)}" for name, value in result.items() if isinstance(value, float)]
    _print(result, as_json, lines)


@app.command()
def embed(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="File to write: .npz or .parquet.")],
    data: Data = None,
    data_dir: DataDir = None,
    part: Annotated[
        str, typer.Option("--part", help="Part of a named data set: train, val or test.")
    ] = "test",
    layer: Annotated[
        str, typer.Option("--layer", help="h: the encoder's features; z: the projections.")
    ] = "h",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write the vectors of images, with their paths and labels, to a file."""
    from stopgrad import jobs

    result = jobs.embed(
        run, out, data, data_dir, part=_choice("--part", part, "train", "val", "test"),
        layer=_choice("--layer", layer, "h", "z"), device=_choice("--device", device, *DEVICES),
    )  # fmt: skip
    lines = [f"{result['images']} vectors of width {result['width']} in {result['out']}"]
    lines += [f"skipped {s['path']}: {s['reason']}" for s in result["skipped"]]
    _print(result, as_json, lines)


@app.command()
def export(
    run: Run,
    format: Annotated[
        str, typer.Option("--format", help="safetensors, torch, timm or onnx.")
    ] = "safetensors",
    out: Annotated[Path | None, typer.Option("--out", help="Folder; the run's exported/ by default.")] = None,
    as_json: Json = False,
) -> None:
    """Write a run's encoder for use elsewhere, and check it by reading it back."""
    from stopgrad import jobs

    result = jobs.export(run, _choice("--format", format, "safetensors", "torch", "timm", "onnx"), out)
    lines = [f"{result['model']}  (read back: differs by at most {result['max_difference']:.1e})"]
    _print(result, as_json, [*lines, result["description"]])


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
        _print({"methods": rows}, True, [])
    elif name is None:
        _console().print(_table(("method", "what it is", "source"), [
            (row["name"], row["title"], f"{row['paper']}, {row['section']}".rstrip(", ")) for row in rows
        ]))  # fmt: skip
    else:
        row = rows[0]
        source = f"{row['paper']}, {row['section']}".rstrip(", ")
        _print(row, False, [row["title"], f"Source: {source}", "", row["equation"], "", *row["notes"]])


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
    _print({"name": name, "bibtex": BIBTEX[key]}, as_json, [BIBTEX[key]])


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 bad news that was asked for, 2 bad input."""
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


def _choice(flag: str, value: str, *allowed: str) -> Any:
    if value not in allowed:
        from stopgrad.errors import unknown

        raise unknown(flag, value, list(allowed))
    return value


def _print(result: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    if as_json:
        from stopgrad.files import to_json

        print(to_json(result, indent=2))
    else:
        print("\n".join(lines))


def _summary_lines(summary: dict[str, Any]) -> list[str]:
    untrained = summary["untrained"] or {}
    lines = [f"verdict               {summary['verdict']}"]
    for name in ("knn", "linear_probe", "linear_probe_20"):
        if summary[name] is not None:
            beside = f"   untrained {_percent(untrained.get(name))}" if untrained else ""
            lines.append(f"{name:<22}{_percent(summary[name])}{beside}")
    measures = ("std", "effective_rank", "alignment", "uniformity", "loss")
    lines += [f"{name:<22}{summary[name]:.3f}" for name in measures if summary[name] is not None]
    if summary["skipped"]:
        lines.append(f"skipped files         {len(summary['skipped'])} (named in {summary['run']}/train.log)")
    report = Path(summary["run"]) / "report.html"
    return [*lines, f"{'report':<22}{report if report.exists() else 'none, see train.log'}"]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:5.1f} %"


def _console() -> Any:
    from rich.console import Console

    return Console()


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> "Table":
    from rich.table import Table

    table = Table(*head, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    main()
