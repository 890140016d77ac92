"""The command about the papers' claims: reproduce."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stopgrad.cli.output import Json, console, show, table

if TYPE_CHECKING:
    from rich.table import Table

    from stopgrad.experiments.ledger import Row
    from stopgrad.experiments.runner import Progress
    from stopgrad.experiments.scale import Scale
    from stopgrad.experiments.schema import Experiment

app = typer.Typer()


@app.command()
def reproduce(
    names: Annotated[
        list[str],
        typer.Argument(metavar="list | all | ID...", help="What to run; 'list' shows what there is."),
    ],
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Train seeds 1 to N; 5 unless --quick.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trials at a time, a core each.")] = 1,
    executor: Annotated[str, typer.Option("--executor", help="processes or ray.")] = "processes",
    quick: Annotated[
        bool, typer.Option("--quick", help="2 seeds and shorter training; what is exact stays exact.")
    ] = False,
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            help="Train on cifar10, cifar100, stl10, tiny-imagenet or imagenet with the paper's recipe.",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Where the archive lies; of imagenet its folder, train/ and val/."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the archive where it is missing.")
    ] = False,
    store: Annotated[
        Path | None, typer.Option("--store", help="Folder of finished trials; results/ledger by default.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    as_json: Json = False,
) -> None:
    """Run the papers' claims as experiments; a finished trial is never run again.

    Exit status 1 when a trial failed.
    """
    from stopgrad.experiments.papers import EXPERIMENTS

    there = _scale(scale, data_dir, download, quick)
    if names == ["list"]:
        _list(list(EXPERIMENTS.values()), there, as_json)
        return
    chosen = (
        list(EXPERIMENTS.values()) if names == ["all"] else [_named(name) for name in dict.fromkeys(names)]
    )

    from stopgrad.experiments import ledger, runner
    from stopgrad.experiments.store import DEFAULT, Store

    if there is not None and any(experiment.kind == "training" for experiment in chosen):
        there.require(download)
    results = Store(store or DEFAULT)
    planned = runner.plan(chosen, seeds, quick, there)
    with _watch(chosen, quiet) as tell:
        done = runner.run(planned, results, at_once=jobs, executor=executor, tell=tell)
    rows = ledger.rows(chosen, results, seeds=seeds, quick=quick, scale=there)
    counts = {
        "trials": len(planned),
        "reused": len(done.reused),
        "ran": len(done.outcomes) - len(done.failed),
    }
    if as_json:
        show({**counts, "failed": done.failed, "experiments": [row.to_dict() for row in rows]}, True, [])
    else:
        _print(rows, counts, done.failed)
    if done.failed:
        raise typer.Exit(1)


def _named(name: str) -> "Experiment":
    from stopgrad.errors import unknown
    from stopgrad.experiments.papers import EXPERIMENTS

    if name not in EXPERIMENTS:
        raise unknown("reproduce", name, ["list", "all", *EXPERIMENTS])
    return EXPERIMENTS[name]


def _scale(name: str | None, data_dir: Path | None, download: bool, quick: bool) -> "Scale | None":
    """The scale that the flags name; None: digits."""
    from stopgrad.errors import UsageError

    if name is None:
        if data_dir is not None or download:
            raise UsageError(
                f"{'--download' if download else '--data-dir'}: needs --scale, digits are bundled"
            )
        return None
    if quick:
        raise UsageError("--quick: is for digits, leave it out with --scale")
    from stopgrad.experiments.scale import named

    return named(name, data_dir)


def _list(experiments: "list[Experiment]", scale: "Scale | None", as_json: bool) -> None:
    if scale is not None:
        _list_at(experiments, scale, as_json)
        return
    if as_json:
        show({"experiments": [experiment.to_dict() for experiment in experiments]}, True, [])
        return
    rows: list[tuple[str, ...]] = [
        (e.id, e.title, e.kind, str(len(e.arms)), str(len(e.seeds) or 1), f"{e.cost_minutes:g}")
        for e in experiments
    ]
    console().print(table(("experiment", "what is looked at", "kind", "arms", "seeds", "minutes"), rows))


def _list_at(experiments: "list[Experiment]", scale: "Scale", as_json: bool) -> None:
    """What there is at a scale, with the time and the memory that it should take there."""
    from stopgrad.experiments.scale import describe

    said = [describe(experiment, scale) for experiment in experiments]
    if as_json:
        show({"experiments": said}, True, [])
        return
    names = ("gpu_hours", "probe_hours", "gpu_memory_gib", "memory_gib")
    rows: list[tuple[str, ...]] = []
    for e in said:
        cost = e["cost"]
        if cost is None:
            rows.append((e["id"], "not at this scale", "", "", ""))
        elif "gpu_hours" in cost:
            rows.append((e["id"], *(f"{cost[name]:g}" for name in names)))
        else:
            rows.append((e["id"], f"exact, {cost['minutes']:g} min", "", "", f"{cost['memory_gib']:g}"))
    heads = ("experiment", "GPU hours", "CPU hours of probes", "GPU GiB", "GiB")
    console().print(table(heads, rows))
    basis = next(e["cost"]["basis"] for e in said if "basis" in (e["cost"] or {}))
    console().print(f"Of all trials: {basis}. Memory is of one trial.", markup=False, highlight=False)


def _print(rows: "list[Row]", counts: dict[str, int], failed: dict[str, str]) -> None:
    lines: list[tuple[str, ...]] = []
    for row in rows:
        missing = f"{len(row.missing)} trials missing"
        lines.append(
            (row.experiment.id, *((row.verdict.outcome, row.verdict.why) if row.verdict else ("-", missing)))
        )
    console().print(table(("experiment", "verdict", "why"), lines))
    for name, error in failed.items():
        console().print(f"failed  {name}: {error}", markup=False, highlight=False, soft_wrap=True)
    console().print(
        f"{counts['trials']} trials, {counts['reused']} in the store before, {counts['ran']} run now"
    )


@contextmanager
def _watch(experiments: "list[Experiment]", quiet: bool) -> "Iterator[Callable[[Progress, str], None]]":
    """Progress on stderr: a live table on a terminal, a line for each trial elsewhere."""
    from rich.console import Console
    from rich.live import Live

    screen = Console(stderr=True)
    if quiet or not screen.is_terminal:

        def line(progress: "Progress", identity: str) -> None:
            outcome = progress.outcomes[identity]
            said = f"{outcome.seconds:.0f} s" if outcome.error is None else f"failed: {outcome.error}"
            name = progress.jobs[identity].name
            screen.print(
                f"{_counted(progress)}  {name}: {said}", markup=False, highlight=False, soft_wrap=True
            )

        yield (lambda progress, identity: None) if quiet else line
        return
    with Live(console=screen, transient=True) as live:
        yield lambda progress, identity: live.update(_table(experiments, progress))


def _table(experiments: "list[Experiment]", progress: "Progress") -> "Table":
    """Trials done of each experiment that is not finished, and the time that is left for all."""
    ended = progress.reused | progress.outcomes.keys()
    rows: list[tuple[str, ...]] = []
    for experiment in experiments:
        own = {i for i, job in progress.jobs.items() if experiment.id in job.experiments}
        failed = sum(progress.outcomes[i].error is not None for i in own & progress.outcomes.keys())
        if not own <= ended or failed:
            rows.append((experiment.id, f"{len(own & ended)} of {len(own)}", str(failed or "")))
    whole = table(("experiment", "trials", "failed"), rows)
    whole.caption = _counted(progress)
    return whole


def _counted(progress: "Progress") -> str:
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    ended = len(progress.reused) + len(progress.outcomes)
    return f"{ended} of {len(progress.jobs)}, about {hours}:{minutes:02}:{seconds:02} left"
