"""The verbs of the package as Python functions; the command line adds nothing but flags to them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from stopgrad.data.sources import DataSettings, is_data_set, load_dataset, load_folder_part
from stopgrad.data.sources.parts import ArrayPart, FilePart
from stopgrad.errors import MissingExtra, UsageError
from stopgrad.evaluation.measures import mode
from stopgrad.evaluation.vectors import check_suffix, save_vectors
from stopgrad.exports import Format, export_encoder
from stopgrad.training import pretrain as training
from stopgrad.training.build import LoadedRun, load_run
from stopgrad.training.distributed import restartable
from stopgrad.training.folder import RunFolder
from stopgrad.training.results import probe_features
from stopgrad.training.settings import AXES, merge, read_yaml, resolve

log = logging.getLogger(__name__)

PartName = Literal["train", "val", "test"]
Layer = Literal["h", "z"]


def pretrain(
    data: str | Path | Mapping[str, Any] | None = None,
    method: str | None = None,
    out: str | Path | None = None,
    *,
    config: str | Path | None = None,
    resume: bool = False,
    init_from: str | Path | None = None,
    show_progress: bool = True,
    preflight: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Pretrain an encoder, evaluate it, export it, and write the report.

    Args:
        data: a data set's name, a folder of images, or all of `DataSettings`; "digits" by default.
        method: a name of the catalogue; "directpred" by default.
        out: run folder; by default a new one in ``runs/``, named after data, method and seed.
        config: YAML file of settings, such as another run's ``config.yaml``; the other arguments go over it.
        resume: continue the run in ``out`` where its last checkpoint left it. Without a run there, start one.
            A job that torchrun may restart, or SLURM has requeued, resumes without being told.
        init_from: checkpoint or run folder to take the encoder's and projector's weights from.
        show_progress: whether to draw a progress bar on stderr.
        preflight: whether to try the first batch before training; a fault stops, warnings go to the log.
        settings: anything else of `RunSettings`, nested: ``epochs=10, predictor={"eps": 0.2}``.

    Returns:
        The summary that is written to ``summary.json``.

    Raises:
        UsageError: for bad input; the message is one line.
        Interrupted: when SIGINT or SIGTERM stopped the run; it is saved.
        PeerLost: when another process of the run is gone; the last checkpoint is kept.
    """
    if out is None and (resume or restartable()):
        what = "--resume" if resume else "a job that may be restarted"
        raise UsageError(f"{what}: needs --out, the folder of the run to go on with")
    resume = resume or restartable()
    changes = dict(settings)
    if data is not None:
        changes["data"] = dict(data) if isinstance(data, Mapping) else {"name": str(data)}
    if method is not None:
        changes["method"] = method
    base = _base(config, Path(out) if out is not None and resume else None)
    complete = resolve(_over(base, changes))
    folder = RunFolder(
        Path(out) if out is not None else _new_folder(complete.data.name, complete.method, complete.seed)
    )
    summary = training.run(
        complete,
        folder.path,
        resume=resume,
        init_from=None if init_from is None else Path(init_from),
        show_progress=show_progress,
        check=preflight,
    )
    if summary:
        _write_report(folder)
    return summary


def probe(
    run: str | Path, data: str | Path | None = None, data_dir: str | Path | None = None, device: str = "auto"
) -> dict[str, Any]:
    """kNN and linear probes of a run's encoder, on the run's own data or on another labelled set.

    Raises:
        UsageError: when there is no run, no such data, or no labels.
    """
    loaded = load_run(Path(run), device)
    settings = _data(loaded, data, data_dir)
    dataset = load_dataset(settings)
    if dataset.probe.labels is None or dataset.test.labels is None:
        raise UsageError(f"probe: {settings.name} has no labels; sort its images into one folder a class")
    figures = probe_features(loaded.learner, loaded.embedder, dataset, loaded.settings.evaluation)
    return {"run": str(run), "data": settings.name, "step": loaded.step, **figures}


def embed(
    run: str | Path,
    out: str | Path,
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    *,
    part: PartName = "test",
    layer: Layer = "h",
    device: str = "auto",
) -> dict[str, Any]:
    """Write the vectors of images to ``out`` (.npz or .parquet) with their paths and labels.

    Args:
        run: run folder whose encoder to use, at its last checkpoint.
        out: file to write, whole or not at all.
        data: a folder, all of whose images are embedded, or a data set's name; the run's own by default.
        data_dir: where the archive of a named data set lies.
        part: which part of a named data set.
        layer: "h" for the encoder's features, "z" for the projections.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        UsageError: for a wrong suffix, a missing run, or a folder without readable images.
    """
    path = Path(out)
    check_suffix(path)
    loaded = load_run(Path(run), device)
    images, classes, skipped = _images(loaded, data, data_dir, part)
    with mode(loaded.learner, training=False):
        embedding = loaded.embedder.embed(loaded.learner, images)
    vectors = embedding.h if layer == "h" else embedding.z
    save_vectors(path, vectors, images.ids, images.labels, classes)
    return {
        "run": str(run),
        "out": str(path),
        "layer": layer,
        "images": len(images),
        "width": vectors.shape[1],
        "skipped": [{"path": s.path, "reason": s.reason} for s in skipped],
    }


def export(run: str | Path, format: Format = "safetensors", out: str | Path | None = None) -> dict[str, Any]:
    """Write a run's encoder in a format that others read, after reading it back.

    Args:
        run: run folder, exported at its last checkpoint.
        format: "safetensors", "torch" (a torch.export program), "timm" or "onnx".
        out: folder to write to; the run's ``exported`` by default.

    Raises:
        UsageError: for an architecture that the format cannot hold.
    """
    loaded = load_run(Path(run), "cpu")
    info = {"mean": loaded.facts.mean, "std": loaded.facts.std, "method": loaded.settings.method}
    folder = Path(out) if out is not None else loaded.folder.exported
    written = export_encoder(loaded.learner.encoder, folder, format, info)
    return {
        "run": str(run),
        "format": format,
        "model": str(written.model),
        "description": str(written.description),
        "max_difference": written.max_difference,
    }


def _base(config: str | Path | None, resumed: Path | None) -> dict[str, Any]:
    """The settings file to start from: the one given, or that of the run to resume."""
    if config is not None:
        return read_yaml(Path(config))
    if resumed is not None and RunFolder(resumed).config.is_file():
        return read_yaml(RunFolder(resumed).config)
    return {}


def _over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` over ``base``; another method brings its own parts instead of those of the file."""
    if "method" in changes and changes["method"] != base.get("method", changes["method"]):
        base = {key: value for key, value in base.items() if key not in (*AXES, "projector")}
    return merge(base, changes)


def _new_folder(data: str, method: str, seed: int) -> Path:
    stem = f"{Path(data).resolve().name}-{method}-{seed}"
    names = [stem, *(f"{stem}-{i}" for i in range(2, 10_000))]
    return next(Path("runs") / name for name in names if not (Path("runs") / name).exists())


def _write_report(folder: RunFolder) -> None:
    from stopgrad.postmortem.diagnose import diagnose_run
    from stopgrad.postmortem.eigenvalues import eigenvalues
    from stopgrad.report.run_files import read_run

    found = diagnose_run(folder.path)
    course = eigenvalues(read_run(folder.path))
    try:
        from stopgrad.report import write_report

        write_report(folder.path, found.diagnosis, found.series, course)
    except MissingExtra as missing:
        log.warning("no report.html: %s", missing)


def _images(
    loaded: LoadedRun, data: str | Path | None, data_dir: str | Path | None, part: PartName
) -> tuple[ArrayPart | FilePart, tuple[str, ...] | None, Any]:
    if data is not None and not is_data_set(str(data)):
        return load_folder_part(Path(data), loaded.facts.channels)
    dataset = load_dataset(_data(loaded, data, data_dir))
    return getattr(dataset, part), dataset.classes, dataset.skipped


def _data(loaded: LoadedRun, data: str | Path | None, data_dir: str | Path | None) -> DataSettings:
    """The run's own data, or another set in the channels that its encoder takes."""
    own = loaded.settings.data
    if data is None and data_dir is None:
        return own
    return DataSettings(
        name=str(data or own.name),
        dir=None if data_dir is None else Path(data_dir),
        channels=1 if loaded.facts.channels == 1 else 3,
    )
