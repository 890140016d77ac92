"""Rescue: a run that fails goes back to where it was well, and on with a remedy its settings can take."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stopgrad.diagnostics import remedies
from stopgrad.diagnostics.diagnosis import Diagnosis, Fix
from stopgrad.errors import UsageError
from stopgrad.files import to_json, write_text
from stopgrad.method import Learner
from stopgrad.parts.gradient import Decomposed, Exact
from stopgrad.parts.pairing import MIRROR, SYMMETRIC, both_ways
from stopgrad.parts.predictors import Spectral
from stopgrad.parts.target import Ema, Same
from stopgrad.training.build import follow_online
from stopgrad.training.folder import RunFolder
from stopgrad.training.settings import RunSettings, merge, validate

MOST = 5
"""Rescues of one run; after them it goes on as it is."""

TAU, DECAY, FASTER, LOWER = 0.99, 4e-4, 10.0, 3.0


@dataclass(frozen=True)
class Rescue:
    """What was done about a failure.

    Attributes:
        verdict: the failure.
        step: at which it was found.
        first_bad_step: since when it shows.
        back_to: step of the checkpoint that the run goes on from; 0 for a fresh start.
        fix: what was changed, in the doctor's words.
        changes: the same as settings.
    """

    verdict: str
    step: int
    first_bad_step: int | None
    back_to: int
    fix: str
    changes: dict[str, Any]


def first_fix(diagnosis: Diagnosis, settings: RunSettings) -> tuple[Fix, dict[str, Any]] | None:
    """The first remedy of a diagnosis that these settings can take and have not yet, with the change."""
    for fix in diagnosis.fixes:
        change = CHANGES.get(fix, _nothing)(settings)
        if change and _goes_together(settings, change):
            return fix, change
    return None


def apply_changes(settings: RunSettings, changes: Mapping[str, Any]) -> RunSettings:
    """The settings with the changes of a rescue.

    Raises:
        UsageError: where the parts do not go together.
    """
    return validate(merge(settings.model_dump(mode="json"), changes))


def read_rescues(folder: RunFolder) -> tuple[list[Rescue], dict[str, Any] | None]:
    """What has been done in a run so far, and the settings that it began with; ([], None) before a rescue."""
    if not folder.rescues.is_file():
        return [], None
    content = json.loads(folder.rescues.read_text(encoding="utf-8"))
    return [Rescue(**row) for row in content["rescues"]], content["settings"]


def write_rescues(folder: RunFolder, rescues: list[Rescue], settings: Mapping[str, Any]) -> None:
    """Keep what was done, and the settings that the run began with."""
    content = {"settings": dict(settings), "rescues": [asdict(rescue) for rescue in rescues]}
    write_text(folder.rescues, to_json(content, indent=2) + "\n")


def transplant(content: Mapping[str, Any], learner: Learner) -> dict[str, Any]:
    """A checkpoint of the run before its rescue, for the learner after it.

    Weights whose name and shape are still there go on; others are the learner's own fresh ones, and a target
    network that is new starts as a copy of the online one. The optimiser's memory of the failure is left
    behind.
    """
    fresh = learner.state_dict()
    kept = {key: w for key, w in content["learner"].items() if key in fresh and w.shape == fresh[key].shape}
    learner.load_state_dict({**fresh, **kept})
    if not any(key.startswith("target.") for key in kept):
        follow_online(learner)
    return {**content, "learner": learner.state_dict(), "optimizer": None}


def _goes_together(settings: RunSettings, changes: Mapping[str, Any]) -> bool:
    try:
        apply_changes(settings, changes)
    except UsageError:
        return False
    return True


def _nothing(settings: RunSettings) -> dict[str, Any]:
    return {}


def _stop_gradient(settings: RunSettings) -> dict[str, Any]:
    same = isinstance(settings.target, Same) and not settings.target.stop_gradient
    return {"target": {"stop_gradient": True}} if same else {}


def _predictor(settings: RunSettings) -> dict[str, Any]:
    bare = settings.predictor is not None and settings.predictor.kind == "identity"
    return {"predictor": {"kind": "mlp"}} if bare else {}


def _directpred(settings: RunSettings) -> dict[str, Any]:
    if settings.predictor is None or isinstance(settings.predictor, Spectral):
        return {}
    return {"predictor": {"kind": "spectral"}, **_ema(settings)}


def _ema(settings: RunSettings) -> dict[str, Any]:
    return {"target": {"kind": "ema", "tau": TAU}} if isinstance(settings.target, Same) else {}


def _moving(settings: RunSettings) -> dict[str, Any]:
    still = isinstance(settings.target, Ema) and settings.target.tau > 0.9999
    return {"target": {"tau": TAU}} if still else {}


def _faster(settings: RunSettings) -> dict[str, Any]:
    own = settings.optimizer.predictor
    learned = settings.predictor is not None and settings.predictor.kind not in ("identity", "spectral")
    if not learned or own.lr_scale >= FASTER:
        return {}
    scaled = {"lr_scale": FASTER * own.lr_scale, "constant_lr": True}
    return {"optimizer": {"predictor": scaled}}


def _less_decay(settings: RunSettings) -> dict[str, Any]:
    return {"optimizer": {"weight_decay": DECAY}} if settings.optimizer.weight_decay > 10 * DECAY else {}


def _some_decay(settings: RunSettings) -> dict[str, Any]:
    return {"optimizer": {"weight_decay": DECAY}} if settings.optimizer.weight_decay == 0 else {}


def _last_norm(settings: RunSettings) -> dict[str, Any]:
    return {} if settings.projector.final_bn == "plain" else {"projector": {"final_bn": "plain"}}


def _lower_rate(settings: RunSettings) -> dict[str, Any]:
    return {"optimizer": {"lr": settings.optimizer.lr / LOWER}}


def _clip(settings: RunSettings) -> dict[str, Any]:
    return {} if settings.optimizer.clip is not None else {"optimizer": {"clip": 1.0}}


def _single(settings: RunSettings) -> dict[str, Any]:
    return {} if settings.precision == "fp32" else {"precision": "fp32"}


def _other_view(settings: RunSettings) -> dict[str, Any]:
    """SimSiam's own pairing and gradient, where another was chosen."""
    changes: dict[str, Any] = {}
    if settings.pairing in (SYMMETRIC, MIRROR):
        changes["pairing"] = [pair.model_dump() for pair in both_ways("p1", "t2")]
    if isinstance(settings.gradient, Decomposed):
        changes["gradient"] = Exact().model_dump()
    return changes


CHANGES: dict[Fix, Callable[[RunSettings], dict[str, Any]]] = {
    remedies.STOP: _stop_gradient,
    remedies.DETACH: _stop_gradient,
    remedies.PREDICTOR: _predictor,
    remedies.DIRECTPRED: _directpred,
    remedies.EMA: _ema,
    remedies.MOVING: _moving,
    remedies.FASTER: _faster,
    remedies.LESS_DECAY: _less_decay,
    remedies.SOME_DECAY: _some_decay,
    remedies.LAST_BN: _last_norm,
    remedies.LOWER_LR: _lower_rate,
    remedies.CLIP: _clip,
    remedies.FULL: _single,
    remedies.OTHER_VIEW: _other_view,
}
"""Remedies that are a matter of settings; what to do about data or code is for people."""
