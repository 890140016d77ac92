"""The verb: what is wrong with a file of vectors, a run's folder, a foreign checkpoint, or a folder of these.

Legend: N vectors of width D; C channels, S image side.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stopgrad.data.batches import evaluation_batches
from stopgrad.data.sources import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    DataSettings,
    Part,
    Skipped,
    is_data_set,
    load_dataset,
    load_folder_part,
)
from stopgrad.diagnostics.diagnosis import Diagnosis, Reading
from stopgrad.diagnostics.doctor import examine
from stopgrad.diagnostics.series import Series, evidence_series
from stopgrad.diagnostics.statistics import VectorStatistics
from stopgrad.errors import UsageError
from stopgrad.postmortem.checkpoints import Foreign, load_foreign
from stopgrad.postmortem.files import READERS, check_size, open_vectors
from stopgrad.postmortem.runs import is_run, read_measures, read_readings, read_settings
from stopgrad.report.diagnosed import check_page, write_diagnosis
from stopgrad.training.folder import RunFolder
from stopgrad.training.precision import resolve_device
from stopgrad.training.settings import facts_of

Document = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """What was found at one place: the document, and what the page of it draws.

    Attributes:
        document: as `diagnose` returns it.
        diagnosis: the same as the doctor has it.
        series: the course of its evidence; empty for what has none.
    """

    document: Document
    diagnosis: Diagnosis
    series: tuple[Series, ...] = ()


def diagnose(
    path: str | Path,
    *,
    key: str | None = None,
    model: str | None = None,
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    device: str = "auto",
    plot: str | Path | None = None,
) -> Document:
    """What is wrong with what lies at ``path``, if anything.

    Args:
        path: vectors (.npy, .npz, .parquet, .pt, .safetensors), a run's folder, a folder of such files or
            runs, or, with ``model`` and ``data``, a checkpoint of lightly, solo-learn, stable-pretraining,
            timm or torchvision.
        key: the array or column of a file that holds several.
        model: the checkpoint's encoder: ``timm/NAME``, ``resnet18`` or ``resnet50``.
        data: images for the checkpoint's encoder: a folder, or the name of a data set.
        data_dir: where the archive of a named data set lies.
        image_size: S for the encoder; by default what its weights suggest.
        device: "auto", "cpu", "cuda" or "mps".
        plot: file, ending in .html, for one page with the evidence drawn; of a folder, that of the worst.

    Returns:
        ``source`` (what was read), ``verdict``, ``confidence`` in [0, 1], ``first_bad_step`` (None but for a
        run that failed), ``cause``, ``measures`` (of the vectors; of a run's z, with its other nodes by name;
        of a checkpoint's features h), ``evidence`` and ``fixes``. For a folder of files these are of the
        worst of them, and ``files`` holds a document for each.

    Raises:
        UsageError: for bad input; the message is one line.
    """
    page = None if plot is None else Path(plot)
    if page is not None:
        check_page(page)
    found = _find(Path(path), key, model, data, data_dir, image_size, device)
    if page is not None:
        write_diagnosis(page, found.diagnosis, _shown(found.document), found.series)
    return found.document


def _find(
    place: Path,
    key: str | None,
    model: str | None,
    data: str | Path | None,
    data_dir: str | Path | None,
    image_size: int | None,
    device: str,
) -> Finding:
    if not place.exists():
        raise UsageError(f"{place}: no such file or folder")
    if model is not None:
        if data is None:
            raise UsageError("--model: needs --data, a folder of images for the encoder to embed")
        return _checkpoint(place, model, data, data_dir, image_size, device)
    for flag, value in (("--data", data), ("--data-dir", data_dir), ("--image-size", image_size)):
        if value is not None:
            raise UsageError(f"{flag}: goes with a checkpoint and its --model timm/NAME")
    if place.is_file():
        return _vectors(place, key)
    return _run(place, key) if is_run(place) else _folder(place, key)


def _shown(document: Document) -> Document:
    """The source as a page names it: of a folder, the worst that lies in it."""
    files = document.get("files")
    if files is None:
        return dict(document["source"])
    source = document["source"]
    (worst,) = (d["source"] for d in files if d["source"]["path"] == source["worst"])
    return {**worst, "worst_of": f"{len(files)} in {source['path']}"}


# ---- vectors


def _vectors(path: Path, key: str | None) -> Finding:
    file = open_vectors(path, key)
    measures = _measure(file.chunks(), file.dim)
    source = {
        "kind": "vectors", "path": str(path), "format": path.suffix.lower().lstrip("."), "key": file.key,
        "rows": file.rows, "dims": file.dim, "dtype": file.dtype,
    }  # fmt: skip
    return _of_measures(measures, "x", source)


def _measure(chunks: Iterable[Tensor], dim: int) -> dict[str, Any]:
    statistics = VectorStatistics(dim)
    for chunk in chunks:
        statistics.update(chunk)
    return dict(statistics.compute())


def _of_measures(measures: dict[str, Any], name: str, source: Document) -> Finding:
    """The finding for one set of vectors, which the doctor's rules know as z and the caller as ``name``."""
    found = examine([Reading(step=None, nodes={"z": measures})])
    evidence = tuple(
        replace(item, of=name, says=re.sub(r"\bz\b", name, item.says)) if item.of == "z" else item
        for item in found.evidence
    )
    named = replace(found, evidence=evidence, measures={name: measures})
    return Finding(_document(named, measures, source), named)


def _document(found: Diagnosis, measures: Mapping[str, Any], source: Document) -> Document:
    return {
        "source": source,
        "verdict": found.verdict,
        "confidence": found.confidence,
        "first_bad_step": found.first_bad_step,
        "cause": found.cause,
        "measures": dict(measures),
        "evidence": [asdict(item) for item in found.evidence],
        "fixes": [asdict(fix) for fix in found.fixes],
    }


# ---- runs


def diagnose_run(path: Path) -> Finding:
    """What is wrong with the run in a folder, with the course of the evidence.

    Args:
        path: the folder.

    Raises:
        UsageError: nothing was read in this run yet, or a file of it is damaged.
    """
    return _run(path, None)


def _run(path: Path, key: str | None) -> Finding:
    if key is not None:
        raise UsageError(f"--key {key}: {path} is a run, whose vectors are z and p; leave --key out")
    folder = RunFolder(path)
    settings = read_settings(folder)
    rows = list(folder.rows())
    readings = read_readings(folder, rows)
    found = examine(readings, None if settings is None else facts_of(settings))
    nodes = read_measures(folder, rows) or readings[-1].nodes
    source = {
        "kind": "run", "path": str(path), "method": None if settings is None else settings.method,
        "ended": folder.summary.is_file(), "readings": len(readings), "last_step": readings[-1].step,
        "dims": None if settings is None or settings.target is None else settings.projector.out,
    }  # fmt: skip
    measures = {**nodes.get("z", {}), **{name: values for name, values in nodes.items() if name != "z"}}
    return Finding(_document(found, measures, source), found, tuple(evidence_series(readings, found)))


# ---- checkpoints


def _checkpoint(
    path: Path, model: str, data: str | Path, data_dir: str | Path | None, image_size: int | None, device: str
) -> Finding:
    where = torch.device(resolve_device(device))
    foreign = load_foreign(path, model, image_size)
    part, mean, std, skipped = _images(data, data_dir, foreign.encoder.channels)
    check_size(f"--data {data}", len(part), foreign.encoder.width)
    encoder = foreign.encoder
    measures = _measure(_features(foreign, part, mean, std, where), encoder.width)
    source = {
        "kind": "checkpoint", "path": str(path), "model": model, "library": foreign.library,
        "prefix": foreign.prefix, "layout": foreign.layout, "matched_keys": foreign.keys,
        "model_keys": foreign.keys, "other_encoders": list(foreign.others),
        "ignored": list(foreign.ignored), "notes": list(foreign.notes), "layer": "h", "data": str(data),
        "rows": len(part), "dims": encoder.width, "image_size": encoder.image_size, "mean": list(mean),
        "std": list(std), "skipped": [{"path": s.path, "reason": s.reason} for s in skipped],
    }  # fmt: skip
    return _of_measures(measures, "h", source)


def _images(
    data: str | Path, data_dir: str | Path | None, channels: int
) -> tuple[Part, tuple[float, ...], tuple[float, ...], tuple[Skipped, ...]]:
    """Images to embed, with the mean and standard deviation that they are normalised by."""
    if is_data_set(str(data)):
        folder = None if data_dir is None else Path(data_dir)
        whole = load_dataset(DataSettings(name=str(data), dir=folder, channels=1 if channels == 1 else 3))
        return whole.test, whole.mean, whole.std, whole.skipped
    part, _, skipped = load_folder_part(Path(data), channels)
    if channels == 3:
        return part, IMAGENET_MEAN, IMAGENET_STD, skipped
    return part, (sum(IMAGENET_MEAN) / 3,), (sum(IMAGENET_STD) / 3,), skipped


@torch.no_grad()
def _features(
    foreign: Foreign, part: Part, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> Iterable[Tensor]:
    """The encoder's features of all images, in evaluation mode, float32 (B, D) at a time."""
    encoder = foreign.encoder.to(device).eval()
    middle, scale = (torch.tensor(values, device=device)[:, None, None] for values in (mean, std))
    for _, images in evaluation_batches(part, encoder.image_size, 64, device=device):
        yield encoder((images - middle) / scale).float().cpu()


# ---- folders


def _folder(path: Path, key: str | None) -> Finding:
    """Every file of vectors and every run in a folder, by name; what cannot be read is named beside."""
    files: list[Finding] = []
    skipped: list[dict[str, str]] = []
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        try:
            if entry.is_file() and entry.suffix.lower() in READERS:
                files.append(_vectors(entry, key))
            elif entry.is_dir() and is_run(entry):
                files.append(_run(entry, None))
        except UsageError as error:
            skipped.append({"path": str(entry), "reason": str(error)})
    if not files:
        why = f"; {skipped[0]['reason']}" if skipped else ""
        known = ", ".join(READERS)
        raise UsageError(f"{path}: no run and no readable file of vectors ({known}) in this folder{why}")
    worst = max(files, key=lambda found: _badness(found.document))
    source = {
        "kind": "folder", "path": str(path), "files": len(files), "skipped": skipped,
        "worst": worst.document["source"]["path"],
    }  # fmt: skip
    documents = [found.document for found in files]
    return replace(worst, document={**worst.document, "source": source, "files": documents})


def _badness(document: Document) -> tuple[bool, float]:
    confidence = document["confidence"]
    return document["verdict"] != "healthy", confidence if math.isfinite(confidence) else 0.0
