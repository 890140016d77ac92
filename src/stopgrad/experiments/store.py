"""Finished trials on disk: a folder of JSON files, one a trial, named by all that decides its numbers.

The name of a file is the beginning of a SHA-256 over the trial's spec, the source that makes its numbers and
the environment. A change in any of them is another name, so that a trial is run again exactly when its
numbers could differ.
"""

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stopgrad.errors import UsageError
from stopgrad.experiments.schema import Kind, Result, Trial, canonical
from stopgrad.files import to_json, write_text

DEFAULT = Path("results/ledger")
PACKAGE = Path(__file__).parents[1]
THREADS = 1
"""Of a trial: rounding depends on it."""
DIGITS = 16
"""Of the hash, in a file's name."""

# Pages and commands make no numbers, nor do the experiments' own texts, rules and executors
SILENT = ("report", "cli", "explorer", "experiments", "theory/figures")
SPOKEN: dict[Kind, tuple[str, ...]] = {
    "training": ("experiments/trials.py",),
    "exact": ("experiments/trials.py", "experiments/exact"),
}
COMPLETE = ("settings", "method")
"""Arguments of a function that have a value for every setting there is."""

# Training never imports the theory (tests/contracts/test_imports.py)
UNUSED: dict[Kind, tuple[str, ...]] = {"training": ("theory",), "exact": ()}


@dataclass(frozen=True)
class Record:
    """A finished trial.

    Attributes:
        spec: see `Trial.spec`.
        source: digest of the source that made the numbers.
        environment: see :func:`here`.
        commit: of the repository, with "+" after it if files had changed since; None outside of one.
        seconds: the trial took.
        finished: when, ISO 8601, UTC.
        result: the numbers and series.
        peak_gib: largest memory of its process until it ended, earlier trials in it included; None in records
            that are older than the field.
    """

    spec: dict[str, Any]
    source: str
    environment: dict[str, Any]
    commit: str | None
    seconds: float
    finished: str
    result: Result
    peak_gib: float | None = None


class Store:
    """The finished trials in ``folder``, as this source and environment would have made them.

    Args:
        folder: made when the first trial is put in.
        sources: digest of the source for each kind of trial, by default that of the installed package.
        environment: by default this one.
    """

    def __init__(
        self,
        folder: Path,
        sources: Mapping[Kind, str] | None = None,
        environment: Mapping[str, Any] | None = None,
    ):
        self.folder = folder
        self.sources = dict(sources or {kind: source_digest(kind) for kind in SPOKEN})
        self.environment = dict(environment or here())

    def key(self, trial: Trial) -> str:
        """The name of a trial's file, 16 hexadecimal digits."""
        whole = {"spec": trial.spec, "source": self.sources[trial.kind], "environment": self.environment}
        return hashlib.sha256(canonical(whole).encode()).hexdigest()[:DIGITS]

    def path(self, trial: Trial) -> Path:
        """A trial's file."""
        return self.folder / f"{self.key(trial)}.json"

    def get(self, trial: Trial) -> Record | None:
        """The finished trial, or None.

        Raises:
            UsageError: if its file is damaged, or holds another trial.
        """
        path = self.path(trial)
        if not path.is_file():
            return None
        record = _read(path)
        if record.spec != trial.spec:
            raise UsageError(f"{path}: holds another trial than its name says; delete it")
        return record

    def put(self, trial: Trial, result: Result, seconds: float, peak_gib: float | None = None) -> Path:
        """Write a finished trial, whole or not at all; numbers that are not finite become null."""
        record = Record(
            trial.spec,
            self.sources[trial.kind],
            self.environment,
            commit(),
            round(seconds, 3),
            datetime.now(UTC).isoformat(timespec="seconds"),
            result,
            peak_gib,
        )
        path = self.path(trial)
        write_text(path, to_json(asdict(record)) + "\n")
        return path

    def latest(self, trial: Trial) -> Record | None:
        """The newest finished trial of the same spec, whatever source and environment made it.

        For pages: a committed store is of the commit that its records name. A setting that no record has yet,
        because it is newer, does not part the two. The other arguments of a function have to be equal, since
        those of one arm may be part of another's.

        Raises:
            UsageError: if a file of the folder is damaged.
        """
        found = self._newest.get(trial.identity)
        if found is not None:
            return found
        same = [record for record in self._newest.values() if _agree(record.spec, trial.spec)]
        return max(same, key=lambda record: record.finished, default=None)

    @cached_property
    def _newest(self) -> dict[str, Record]:
        """The newest record of each spec."""
        records = [_read(path) for path in sorted(self.folder.glob("*.json"))]
        return {canonical(r.spec): r for r in sorted(records, key=lambda record: record.finished)}


def here() -> dict[str, Any]:
    """What numbers may depend on besides the source: Python, PyTorch, kind of machine, threads of a trial."""
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "torch": version("torch"),
        "machine": platform.machine(),
        "threads": THREADS,
    }


@cache
def source_digest(kind: Kind, package: Path = PACKAGE) -> str:
    """SHA-256 of the files of the package that make the numbers of a kind of trials, paths included."""
    silent = (*SILENT, *UNUSED[kind])
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    digest = hashlib.sha256()
    for path in sorted(files):
        name = path.relative_to(package).as_posix()
        if not _below(name, silent) or _below(name, SPOKEN[kind]):
            content = path.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


@cache
def commit(folder: Path = PACKAGE) -> str | None:
    """The source's commit, with "+" after it if a file of the package has changed since; None without git."""

    def git(*arguments: str) -> str | None:
        try:
            run = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
            )
        except OSError:  # no git
            return None
        return run.stdout.strip() if run.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    return head + ("+" if git("status", "--porcelain", ".") else "") if head else None


def _below(name: str, folders: tuple[str, ...]) -> bool:
    return any(name == folder or name.startswith(f"{folder}/") for folder in folders)


def _agree(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two specs tell the same trial, but for settings that ``old`` does not know."""
    if old["kind"] != new["kind"] or old.get("function") != new.get("function"):
        return False
    if old["kind"] == "training":
        return _says(new["settings"], old["settings"])
    given, asked = old["arguments"], new["arguments"]
    return given.keys() == asked.keys() and all(
        _says(asked[name], value) if name in COMPLETE else asked[name] == value
        for name, value in given.items()
    )


def _says(new: Any, old: Any) -> bool:
    """Whether ``new`` says all that ``old`` does."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and _says(new[key], value) for key, value in old.items())
    return bool(old == new)


def _read(path: Path) -> Record:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{**content, "result": Result(**content["result"])})
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{path}: not a finished trial; delete it to have it run again") from None
