import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.catalog import CATALOG
from stopgrad.diagnostics.diagnosis import VERDICTS, Diagnosis
from stopgrad.diagnostics.remedies import FIXES, fixes_for
from stopgrad.method import SiameseLearner
from stopgrad.parts.target import EmaTarget
from stopgrad.training import pretrain
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.folder import RunFolder
from stopgrad.training.pretrain import run
from stopgrad.training.rescue import CHANGES, apply_changes, first_fix, read_rescues, transplant
from stopgrad.training.settings import resolve

# without its stop-gradient BYOL collapses within an epoch of this length
COLLAPSING = {
    "method": "byol-nosg", "optimizer": {"lr": 0.3}, "schedule": {"warmup_epochs": 0}, "epochs": 6,
    "on_collapse": "rescue",
}  # fmt: skip


def found(verdict, since=None):
    return Diagnosis(verdict, 1.0, since, (), None, fixes_for(verdict, None))


@pytest.mark.parametrize("method", CATALOG)
def test_a_rescue_changes_the_settings_and_they_stay_valid(method):
    settings = resolve({"method": method})
    for verdict in VERDICTS:
        fix = first_fix(found(verdict), settings)
        if fix is not None:
            assert apply_changes(settings, fix[1]) != settings


@given(method=st.sampled_from(list(CATALOG)), verdict=st.sampled_from(VERDICTS))
def test_remedies_other_than_the_learning_rate_run_out(method, verdict):
    settings, tried = resolve({"method": method}), 0
    while (fix := first_fix(found(verdict), settings)) is not None and "lr" not in fix[1].get(
        "optimizer", {}
    ):
        settings = apply_changes(settings, fix[1])
        tried += 1
        assert tried <= len(FIXES[verdict])


@pytest.mark.parametrize(
    ("verdict", "changes", "expected"),
    [
        ("complete-collapse", {"method": "simsiam-nosg"}, {"target": {"stop_gradient": True}}),
        ("target-leak", {"method": "byol-nosg"}, {"target": {"stop_gradient": True}}),
        ("complete-collapse", {"method": "byol-np"}, {"predictor": {"kind": "mlp"}}),
        ("frozen-target", {"method": "byol", "target": {"tau": 1.0}}, {"target": {"tau": 0.99}}),
        ("diverged", {"method": "byol", "optimizer": {"lr": 3.0}}, {"optimizer": {"lr": 1.0}}),
        ("predictor-collapse", {"method": "simsiam-no-extra"}, {"gradient": {"kind": "exact"}}),
        ("identical-views", {"method": "byol"}, None),
    ],
)
def test_the_first_remedy_that_the_settings_can_take(verdict, changes, expected):
    fix = first_fix(found(verdict), resolve(changes))
    assert (fix and fix[1]) == expected


def test_every_remedy_of_settings_is_one_of_the_doctors():
    named = {fix for fixes in FIXES.values() for fix in fixes}
    assert set(CHANGES) <= named


def rescues_of(path):
    return read_rescues(RunFolder(path))[0]


def learner_of(**changes):
    settings = resolve(changes)
    return build_learner(settings, DataFacts(1, (0.5,), (0.2,), None, 64))


def test_weights_that_are_still_there_go_on_and_a_new_target_starts_as_a_copy():
    before, after = (
        learner_of(method="simsiam-np"),
        learner_of(method="byol", projector={"final_bn": "plain"}),
    )
    fresh = {name: w.clone() for name, w in after.state_dict().items()}
    content = transplant({"learner": before.state_dict(), "step": 7, "optimizer": {"momentum": 1}}, after)
    assert (content["step"], content["optimizer"]) == (7, None)
    for name in ("encoder", "projector"):
        for own, old in zip(
            getattr(after, name).state_dict().values(),
            getattr(before, name).state_dict().values(),
            strict=True,
        ):
            assert torch.equal(own, old)
    for name, w in after.predictor.state_dict().items():
        assert torch.equal(w, fresh[f"predictor.{name}"])
    assert isinstance(after, SiameseLearner)
    assert isinstance(after.target, EmaTarget)
    for own, online in zip(after.target.network.parameters(), after.online.parameters(), strict=True):
        assert torch.equal(own, online)


def test_a_collapsing_run_is_rescued(tiny, tmp_path, quick):
    run(tiny(**COLLAPSING), tmp_path, show_progress=False)
    rescues = rescues_of(tmp_path)
    assert all(rescue.verdict.endswith("collapse") for rescue in rescues)
    assert rescues[0].changes == {"target": {"stop_gradient": True}}
    rows = list(RunFolder(tmp_path).rows())
    assert [row["std"] for row in rows if row["kind"] == "step"][-1] > 0.05
    epochs = [row["epoch"] for row in rows if row["kind"] == "epoch"]
    assert epochs == sorted(set(epochs))  # what came after the healthy checkpoint is written once
    assert epochs[-1] == 6
    assert "rescue: back to step" in (tmp_path / "train.log").read_text()


def test_a_rescued_run_resumes_to_the_same_bits_under_its_first_settings(
    tiny, tmp_path, monkeypatch, quick, same_state
):
    settings = tiny(**COLLAPSING)
    run(settings, tmp_path / "whole", show_progress=False)
    record = pretrain.TrainState.record

    def dying(self, loss):
        record(self, loss)
        if self.step == 44 and self.bare_learner.method.stops_gradient:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretrain.TrainState, "record", dying)
        with pytest.raises(KeyboardInterrupt):
            run(settings, tmp_path / "cut", show_progress=False)
    run(settings, tmp_path / "cut", resume=True, show_progress=False)
    assert rescues_of(tmp_path / "cut") == rescues_of(tmp_path / "whole") != []
    same_state(*(RunFolder(tmp_path / name).checkpoint for name in ("whole", "cut")))


def test_a_run_that_diverges_goes_back_and_on_more_slowly(tiny, tmp_path, monkeypatch, quick):
    settings = tiny(method="byol", on_collapse="rescue", optimizer={"lr": 0.9})
    join = SiameseLearner.join

    def exploding(self, branches, labels=None, indices=None):
        nodes = join(self, branches, labels, indices)
        hot = state and state[-1].optimizer.param_groups[0]["peak"] > 0.5 and state[-1].step == 10
        return nodes._replace(loss=nodes.loss * math.nan) if hot else nodes

    state = []
    begin = pretrain.TrainState.__post_init__
    monkeypatch.setattr(
        pretrain.TrainState, "__post_init__", lambda self: (state.append(self), begin(self))[1]
    )
    monkeypatch.setattr(SiameseLearner, "join", exploding)
    summary = run(settings, tmp_path, show_progress=False)
    (rescue,) = rescues_of(tmp_path)
    assert (rescue.verdict, rescue.first_bad_step, rescue.back_to) == ("diverged", 11, 8)
    assert rescue.changes == {"optimizer": {"lr": pytest.approx(0.3)}}
    assert math.isfinite(summary["loss"])
    assert summary["diverged_at"] is None


def test_what_no_setting_mends_trains_on_with_a_warning(tiny, tmp_path, monkeypatch, quick):
    monkeypatch.setattr(pretrain, "first_fix", lambda *_: None)
    run(tiny(**COLLAPSING), tmp_path, show_progress=False)
    assert rescues_of(tmp_path) == []
    assert "complete-collapse since step" in (tmp_path / "train.log").read_text()
    assert max(row["epoch"] for row in RunFolder(tmp_path).rows()) == 6


def test_rescues_of_a_run_have_an_end(tiny, tmp_path, monkeypatch, quick):
    monkeypatch.setattr(pretrain, "MOST", 1)
    useless = found("complete-collapse").fixes[0], {"checkpoint_minutes": 7.0}
    monkeypatch.setattr(pretrain, "first_fix", lambda *_: useless)
    run(tiny(**COLLAPSING), tmp_path, show_progress=False)
    assert len(rescues_of(tmp_path)) == 1
    assert "complete-collapse since step" in (tmp_path / "train.log").read_text()
