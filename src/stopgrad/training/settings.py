"""Everything that decides a run, in one object: what `config.yaml` holds and `--set` changes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from stopgrad.catalog import CATALOG, lookup
from stopgrad.data.sources import DataSettings
from stopgrad.data.views import Views, preset
from stopgrad.errors import UsageError, nearest, unknown
from stopgrad.frozen import Frozen, named
from stopgrad.method import Method, Supervised
from stopgrad.networks.encoders import EncoderSettings
from stopgrad.networks.heads import ProjectorSettings
from stopgrad.parts.distances import DistanceSettings
from stopgrad.parts.gradient import GradientSettings
from stopgrad.parts.pairing import Pair
from stopgrad.parts.predictors import PredictorSettings
from stopgrad.parts.target import Ema, Target
from stopgrad.training.optimizer import OptimizerSettings, ScheduleSettings
from stopgrad.training.recipes import recipe

KINDS = ("target", "predictor")
AXES = ("target", "predictor", "gradient", "pairing", "distance")
NAMED = {"target", "predictor", "gradient", "distance"}
"""Axes whose settings may be a bare name, which stands for that kind with its defaults."""
Compile = Literal["none", "default", "reduce-overhead", "max-autotune"]
SCALARS = {"str", "int", "float", "bool", "constrained-int", "constrained-float"}


class EvaluationSettings(Frozen):
    """What is measured, on which images.

    Every ``every`` epochs the validation images, at most ``images`` of them, are embedded, and kNN votes
    among as many training images. At the end all parts are embedded once; ``control`` probes the untrained
    encoder too, the figure that every run should stand beside.
    """

    every: int = Field(1, ge=1)
    images: int = Field(1024, ge=8)
    knn_k: int = Field(20, ge=1)
    knn_temperature: float = Field(0.07, gt=0)
    control: bool = True


class RunSettings(Frozen):
    """All settings of a run. The same settings and the same data give the same run.

    The five parts of the method are None for ``supervised``, which has none. ``views`` is a preset's name or
    the full list of operations; ``view_size`` is in pixels. ``batch_size`` is the number of images per
    optimiser step, over all processes and accumulated parts.
    """

    method: str
    target: Target | None = None
    predictor: PredictorSettings | None = None
    gradient: GradientSettings | None = None
    pairing: tuple[Pair, ...] | None = None
    distance: DistanceSettings | None = None
    recipe: str = "auto"
    data: DataSettings = DataSettings()
    views: str | Views
    view_size: int = Field(ge=4)
    encoder: EncoderSettings
    projector: ProjectorSettings
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    accumulate: int = Field(1, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Threads of one operation of a training step on the CPU. Rounding depends on it, so `config.yaml` holds
    the number that "auto" stood for: 1 for convnet-s on the CPU, whose operations are too small to be shared,
    else torch's own number. convnet-s with 1 computes both views of a batch at once, in a thread each."""
    compile: Compile = "none"
    """The mode of `torch.compile` for the networks of a training step (see `stopgrad.training.compiled`).
    Evaluation is never compiled. Where compiling fails the run goes on without, and `train.log`, stderr and
    ``compiled`` in `summary.json` say so. "reduce-overhead" is of CUDA alone."""
    on_collapse: Literal["warn", "stop", "rescue"] = "warn"
    """What to do at the end of an epoch whose readings are those of a failure: a line in `train.log` with the
    cause and the first thing to change; with "stop", where it is a collapse, the end of the training too;
    with "rescue" the run goes back to its last healthy checkpoint, and on with the first remedy that its
    settings can take (see `stopgrad.training.rescue`)."""
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint_minutes: float = Field(10, gt=0)
    """Within an epoch a checkpoint is written at least this often; at the end of an epoch always."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        parts = {axis: getattr(self, axis) for axis in AXES}
        if isinstance(lookup(self.method).method, Supervised):
            given = [axis for axis, part in parts.items() if part is not None]
            if given:
                raise ValueError(f"{given[0]}: method 'supervised' has no {given[0]}, remove it")
        elif missing := [axis for axis, part in parts.items() if part is None]:
            raise ValueError(f"{missing[0]}: method '{self.method}' needs a {missing[0]}, it cannot be null")
        try:
            _ = self.sentence
        except ValidationError as error:  # parts that do not go together
            raise ValueError(describe(error, Method)) from None
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate: {self.accumulate} does not divide batch_size {self.batch_size}")
        if self.schedule.warmup_epochs > self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs: {self.schedule.warmup_epochs:g} is more than epochs {self.epochs}"
            )
        return self

    @property
    def sentence(self) -> Method | Supervised:
        """The method as a sentence of parts, with the changes that the settings make to the catalogue's."""
        if self.target is None:
            return Supervised()
        return Method.model_validate({axis: getattr(self, axis) for axis in AXES})

    def make_views(self) -> Views:
        """The augmentations of both views."""
        return preset(self.views, self.view_size) if isinstance(self.views, str) else self.views

    def to_yaml(self) -> str:
        """The complete settings as YAML that `from_yaml` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False)


def resolve(changes: Mapping[str, Any]) -> RunSettings:
    """Complete settings from the few that somebody gave.

    In rising precedence: defaults of the fields, the catalogue's parts for the method, the recipe (of the
    data set, or of the method's paper), ``changes``. Where a change names another kind of target or
    predictor, the catalogue's own settings for that axis no longer apply.

    Args:
        changes: nested, in the shape of `RunSettings`; ``method`` is "directpred" by default.

    Raises:
        UsageError: one line with the exact path of the wrong setting, what is allowed, and the nearest name.
    """
    method = changes.get("method", "directpred")
    if not isinstance(method, str):
        raise UsageError(f"method: a name is needed, got {method!r}. Known: {', '.join(CATALOG)}")
    data = changes.get("data") or {}
    name = str(data.get("name", "digits")) if isinstance(data, Mapping) else "digits"
    defaults = dict(recipe(str(changes.get("recipe", "auto")), name, method))
    own = defaults.pop("methods", {}).get(method, {})
    of_kind = {axis: defaults.pop(axis) for axis in KINDS if axis in defaults}

    merged = merge(_parts(method), {"projector": lookup(method).projector.model_dump()})
    merged = merge(merged, defaults)
    for axis, kinds in of_kind.items():
        kind = _kind(changes, merged, axis)
        if kind in kinds:
            merged = merge(merged, {axis: {"kind": kind, **kinds[kind]}})
    return validate(merge(merge(merged, own), {**changes, "method": method}))


def facts_of(settings: RunSettings) -> dict[str, Any]:
    """What names the cause of a collapse (see `stopgrad.diagnostics.doctor.examine`).

    Nothing for methods with negatives or with terms of the whole batch: they do without a stop-gradient or a
    predictor by design.
    """
    method = settings.sentence
    if not isinstance(method, Method) or method.distance.of_batch:
        return {}
    return {
        "stops_gradient": method.stops_gradient,
        "predictor": method.predictor.kind,
        "symmetric": bool(getattr(method.predictor, "symmetric", False)),
        "ema": method.target.tau if isinstance(method.target, Ema) else None,
        "weight_decay": settings.optimizer.weight_decay,
        "lr_scale": settings.optimizer.predictor.lr_scale,
    }


def validate(settings: Mapping[str, Any]) -> RunSettings:
    """`RunSettings` of a complete nested dictionary.

    Raises:
        UsageError: one line that names the first wrong setting by its path.
    """
    try:
        return RunSettings.model_validate(settings)
    except ValidationError as error:
        raise UsageError(describe(error, RunSettings)) from None


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` over ``base``, dictionary by dictionary; another ``kind`` replaces the whole.

    >>> merge({"distance": "cosine"}, {"distance": {"kind": "infonce", "temperature": 0.1}})
    {'distance': {'kind': 'infonce', 'temperature': 0.1}}
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if key in NAMED:
            old, value = named(old), named(value)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            other_kind = "kind" in value and value["kind"] != old.get("kind")
            merged[key] = dict(value) if other_kind else merge(old, value)
        else:
            merged[key] = value
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """The nested dictionary of a settings file.

    Raises:
        UsageError: when the file is missing, is no YAML or holds no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise UsageError(f"--config {path}: not YAML{line}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: holds no settings (a mapping of names to values is needed)")
    return content


def assignment(text: str) -> dict[str, Any]:
    """``predictor.eps=0.1`` as ``{"predictor": {"eps": 0.1}}``; the value is read as YAML.

    Raises:
        UsageError: when there is no ``=``.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"--set {text}: needs the form path=value, for example predictor.eps=0.1")
    try:
        nested: Any = _scalar(value)
    except yaml.YAMLError:
        raise UsageError(f"--set {text}: the value is not YAML") from None
    for key in reversed(path.strip().split(".")):
        nested = {key: nested}
    return nested


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault of a validation in one line: path, what is wrong, what is allowed or nearest."""
    # a name or a mapping was expected: of a mapping, only what is wrong inside it is of interest
    faults = [e for e in error.errors() if e["type"] != "string_type" or not isinstance(e["input"], Mapping)]
    first = (faults or error.errors())[0]
    path = _path(first["loc"], model)
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        return f"{path}: {message}" if path else message
    if first["type"] == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in first["ctx"]["expected_tags"].split(",")]
        return str(unknown(path, first["ctx"]["tag"], tags))
    if first["type"] == "extra_forbidden":
        siblings = _fields_at(first["loc"][:-1], model)
        return f"{path}: unknown setting{nearest(str(first['loc'][-1]), siblings)}"
    # of a union every member says what it expects
    messages = [e["msg"] for e in faults or [first] if _path(e["loc"], model) == path]
    message = ", or ".join(dict.fromkeys(message[0].lower() + message[1:] for message in messages))
    given = "" if first["type"] == "missing" else f", got {first['input']!r}"
    return f"{path}: {message}{given}"


def _parts(method: str) -> dict[str, Any]:
    sentence = lookup(method).method
    return {} if isinstance(sentence, Supervised) else sentence.model_dump()


def _kind(changes: Mapping[str, Any], merged: Mapping[str, Any], axis: str) -> str | None:
    changed = changes.get(axis)
    chosen = changed.get("kind") if isinstance(changed, Mapping) else None
    return chosen or merged.get(axis, {}).get("kind")


def _scalar(value: str) -> Any:
    """YAML's scalars; also 1e-3, which YAML 1.1 takes for a string because it has no point."""
    parsed = yaml.safe_load(value)
    if isinstance(parsed, str):
        try:
            return float(parsed)
        except ValueError:
            return parsed
    return parsed


def _path(location: Sequence[str | int], model: type[BaseModel]) -> str:
    """The dotted path without the tags that pydantic puts between a union and its member's fields."""
    return ".".join(str(step) for step, _ in _walk(location, model))


def _fields_at(location: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    """Names of the settings below ``location``."""
    here = _walk(location, model)[-1][1] if location else [model]
    return sorted({name for m in here for name in m.model_fields})


def _walk(
    location: Sequence[str | int], model: type[BaseModel]
) -> list[tuple[str | int, list[type[BaseModel]]]]:
    steps: list[tuple[str | int, list[type[BaseModel]]]] = []
    here = [model]
    for step in location:
        if isinstance(step, str) and ("[" in step or step in SCALARS):
            continue  # pydantic's name for a member of a union that is no plain model
        tagged = [m for m in here if step in (_tag(m), m.__name__)]
        if tagged and not any(step in m.model_fields for m in here):
            here = tagged
            if steps:
                steps[-1] = (steps[-1][0], here)
            continue
        if isinstance(step, str):
            fields = [m.model_fields[step].annotation for m in here if step in m.model_fields]
            here = [inner for annotation in fields for inner in _models(annotation)]
        steps.append((step, here))
    return steps


def _tag(model: type[BaseModel]) -> Any:
    for discriminator in ("kind", "op"):
        if discriminator in model.model_fields:
            return model.model_fields[discriminator].default
    return None


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models inside a type such as ``Annotated[A | B, ...] | None`` or ``tuple[A, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models(inner)]
