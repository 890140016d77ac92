"""A flow from a YAML file, its matrices from nested lists, array files or random draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stopgrad.errors import UsageError, nearest
from stopgrad.theory.domain import NONNEGATIVE, matrix, number, reals
from stopgrad.theory.flow.model import Flow


def from_config(config: Mapping[str, Any] | str | Path) -> tuple[Flow, np.ndarray]:
    """A flow and its times from a YAML file, or from a mapping of the same keys.

    Keys: the fields of `Flow`, ``t_end`` (> 0) and ``points`` (>= 2, by default 101). A matrix is a nested
    list, the path of a ``.npy`` file, or of an array in an ``.npz`` file, ``file.npz:name`` (the name may be
    left out where there is only one); paths are relative to the YAML's folder. W, W_p and W_a may also be
    drawn: ``{random: {shape: [n2, n1], scale: 0.1, seed: 0}}`` has independent normal entries of standard
    deviation ``scale``; equal seeds give different matrices different numbers.

    Raises:
        UsageError: one line, for an unknown key, a file that cannot be read, or a value outside its domain.
    """
    folder = Path() if isinstance(config, Mapping) else Path(config).parent
    given = dict(config) if isinstance(config, Mapping) else _read_yaml(Path(config))
    known = [*Flow.__dataclass_fields__, "t_end", "points"]
    for key in given:
        if key not in known:
            raise UsageError(f"config: unknown key '{key}'{nearest(str(key), known)}")
    for key in ("X", "X_prime", "W", "t_end"):
        if given.get(key) is None:
            raise UsageError(f"{key}: missing; the flow needs it")
    t_end, points = number("t_end", _real(given.pop("t_end"))), given.pop("points", 101)
    if t_end == 0:
        raise UsageError("t_end: 0 is outside its domain (0, inf)")
    if not isinstance(points, int) or isinstance(points, bool) or points < 2:
        raise UsageError(f"points: {points!r} is no whole number >= 2")
    for name in ("X", "X_prime", "W", "W_p", "W_a"):
        if given.get(name) is not None:
            given[name] = _matrix(name, given[name], folder)
    for name in ("alpha_p", "beta", "eta", "eta_p"):
        if name in given:
            given[name] = _real(given[name])
    return Flow(**given), np.linspace(0, t_end, points)


def run_config(config: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """The trajectory that :func:`from_config` describes, as ``stopgrad theory flow --json`` prints it.

    Raises:
        UsageError: as :func:`from_config` and :meth:`Flow.trajectory`.
    """
    flow, times = from_config(config)
    return flow.trajectory(times).to_dict()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise UsageError(f"--config {path}: not YAML{f' in line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: holds no mapping of names to values")
    return content


def _real(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 for a string, because it has no point."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _matrix(name: str, value: Any, folder: Path) -> np.ndarray:
    if isinstance(value, str):
        return matrix(name, _load(name, value, folder))
    if isinstance(value, Mapping):
        if name.startswith("X"):
            raise UsageError(f"{name}: a nested list or the path of an array is needed, not a mapping")
        return _random(name, value)
    return matrix(name, value)


def _random(name: str, value: Mapping[str, Any]) -> np.ndarray:
    given = value.get("random")
    if set(value) != {"random"} or not isinstance(given, Mapping):
        raise UsageError(
            f"{name}: a mapping must have the form {{random: {{shape: [n2, n1], scale: 0.1, seed: 0}}}}"
        )
    for key in given:
        if key not in ("shape", "scale", "seed"):
            raise UsageError(
                f"{name}.random: unknown key '{key}'{nearest(str(key), ['shape', 'scale', 'seed'])}"
            )
    shape, seed = given.get("shape"), given.get("seed", 0)
    sizes = shape if isinstance(shape, list | tuple) else []
    if len(sizes) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise UsageError(f"{name}.random.shape: {shape!r} is no pair of positive whole numbers")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UsageError(f"{name}.random.seed: {seed!r} is no whole number >= 0")
    scale = reals(f"{name}.random.scale", _real(given.get("scale", 0.1)), NONNEGATIVE).item()
    random = np.random.default_rng([seed, ("W", "W_p", "W_a").index(name)])
    return scale * random.standard_normal(tuple(sizes))


def _load(name: str, text: str, folder: Path) -> np.ndarray:
    file, colon, key = text.rpartition(":")
    if not (colon and file.endswith(".npz")):
        file, key = text, ""
    path = folder / file
    if path.suffix not in (".npy", ".npz"):
        raise UsageError(f"{name}: {text!r} is neither a matrix nor the path of a .npy or .npz file")
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            return content[_only(name, path, list(content.files), key)]
    except OSError as error:
        raise UsageError(f"{name}: {path}: {error.strerror or 'is no array file'}") from None
    except UsageError:
        raise
    except Exception:  # what a damaged archive raises depends on where it is damaged
        raise UsageError(f"{name}: {path}: is no array file, or one that needs pickle") from None


def _only(name: str, path: Path, keys: list[str], key: str) -> str:
    if not key and len(keys) == 1:
        return keys[0]
    if key not in keys:
        wanted = f"no array '{key}'" if key else f"{len(keys)} arrays, name one as {path.name}:NAME"
        raise UsageError(f"{name}: {path}: holds {wanted}. Known: {', '.join(keys)}")
    return key
