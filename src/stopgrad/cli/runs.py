"""Commands about runs: pretrain, probe, embed, export."""

from pathlib import Path
from typing import Annotated, Any

import typer

from stopgrad.cli.output import Json, choice, percent, show
from stopgrad.errors import UsageError, nearest

app = typer.Typer()

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Data = Annotated[str | None, typer.Option("--data", help="Data set's name, a folder of images, or hf:NAME.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where its archive, folder or shards lie.")]
DEVICES = ("auto", "cpu", "cuda", "mps")
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]


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
    compile: Annotated[
        str | None,
        typer.Option("--compile", help="none, default, reduce-overhead or max-autotune, of torch.compile."),
    ] = None,
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
    preflight: Annotated[
        bool, typer.Option("--preflight", help="Try the first batch and look for what would go wrong.")
    ] = False,
    on_collapse: Annotated[
        str | None,
        typer.Option("--on-collapse", help="warn, stop, or rescue: back, and on with the first remedy."),
    ] = None,
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
        "compile": compile,
        "recipe": recipe,
        "on_collapse": on_collapse,
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
        out=out,
        config=config,
        resume=resume,
        init_from=init_from,
        show_progress=not quiet,
        preflight=preflight,
        **changes,
    )
    if not summary:  # not the first process of a distributed run
        return
    show(summary, as_json, _summary_lines(summary))
    if summary["verdict"] == "diverged" or (fail_on_collapse and summary["verdict"] != "healthy"):
        raise typer.Exit(1)


@app.command()
def probe(
    run: Run, data: Data = None, data_dir: DataDir = None, device: Device = "auto", as_json: Json = False
) -> None:
    """Evaluate a run's encoder: kNN and linear probes on labelled images."""
    from stopgrad import jobs

    result = jobs.probe(run, data, data_dir, choice("--device", device, *DEVICES))
    lines = [f"{name:<22}{percent(value)}" for name, value in result.items() if isinstance(value, float)]
    show(result, as_json, lines)


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
        run, out, data, data_dir, part=choice("--part", part, "train", "val", "test"),
        layer=choice("--layer", layer, "h", "z"), device=choice("--device", device, *DEVICES),
    )  # fmt: skip
    lines = [f"{result['images']} vectors of width {result['width']} in {result['out']}"]
    lines += [f"skipped {s['path']}: {s['reason']}" for s in result["skipped"]]
    show(result, as_json, lines)


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

    result = jobs.export(run, choice("--format", format, "safetensors", "torch", "timm", "onnx"), out)
    lines = [f"{result['model']}  (read back: differs by at most {result['max_difference']:.1e})"]
    show(result, as_json, [*lines, result["description"]])


def _summary_lines(summary: dict[str, Any]) -> list[str]:
    untrained = summary["untrained"] or {}
    lines = [f"verdict               {summary['verdict']}"]
    for name in ("knn", "linear_probe", "linear_probe_20"):
        if summary[name] is not None:
            beside = f"   untrained {percent(untrained.get(name))}" if untrained else ""
            lines.append(f"{name:<22}{percent(summary[name])}{beside}")
    measures = ("std", "effective_rank", "alignment", "uniformity", "loss")
    lines += [f"{name:<22}{summary[name]:.3f}" for name in measures if summary[name] is not None]
    if summary["skipped"]:
        lines.append(f"skipped files         {len(summary['skipped'])} (named in {summary['run']}/train.log)")
    report = Path(summary["run"]) / "report.html"
    return [*lines, f"{'report':<22}{report if report.exists() else 'none, see train.log'}"]
