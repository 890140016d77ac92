"""Whole runs in this process: files, resuming, divergence, accumulation."""

import json
import math
import signal

import pytest
import torch

from stopgrad.errors import UsageError
from stopgrad.training import trainer
from stopgrad.training.build import load_run
from stopgrad.training.checkpoint import load_checkpoint
from stopgrad.training.distributed import make_fabric
from stopgrad.training.folder import RunFolder
from stopgrad.training.pretrain import Session, run
from stopgrad.training.settings import read_yaml, resolve
from stopgrad.training.state import TrainState


def test_all_files_and_keys_of_a_run(tiny, tmp_path):
    out = tmp_path / "run"
    summary = run(tiny(method="directpred", evaluation={"control": True}), out, show_progress=False)
    folder = RunFolder(out)
    assert json.loads(folder.summary.read_text()).keys() == summary.keys()
    for key in ("knn", "linear_probe", "linear_probe_raw", "linear_probe_20", "linear_probe_20_raw"):
        assert 0 <= summary[key] <= 1
        assert 0 <= summary["untrained"][key] <= 1
    for key in ("loss", "std", "effective_rank", "alignment", "uniformity", "images_per_second"):
        assert math.isfinite(summary[key])
    assert summary["verdict"] == "healthy"
    rows = list(folder.rows())
    assert [r["epoch"] for r in rows if r["kind"] == "epoch"] == [0, 1, 2]
    assert rows[-1]["step"] == 16
    assert {"z", "p", "z_train", "p_train", "modes", "knn", "online_probe"} <= rows[-1].keys()
    assert "modes" not in rows[0]  # W_p is not set before the first step
    for path in (
        folder.config,
        folder.log,
        folder.checkpoint,
        folder.evaluation,
        folder.exported / "encoder.json",
    ):
        assert path.stat().st_size > 0
    complete = tiny(method="directpred", evaluation={"control": True}, threads=1)
    assert resolve(read_yaml(folder.config)) == complete
    loaded = load_run(out)
    assert loaded.step == 16
    assert not loaded.learner.training


@pytest.mark.parametrize("method", ["directpred", "byol", "simsiam", "supervised"])
@pytest.mark.parametrize("at", [3, 8, 13])
def test_a_killed_run_ends_with_the_same_bits(method, at, tiny, tmp_path, quick, same_state, dying_at):
    settings = tiny(method=method, checkpoint_minutes=1e-9)
    run(settings, tmp_path / "whole", show_progress=False)
    with dying_at(at):
        run(settings, tmp_path / "cut", show_progress=False)
    run(settings, tmp_path / "cut", resume=True, show_progress=False)
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    same_state(whole.checkpoint, cut.checkpoint)

    def figures(folder):
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in folder.rows()]

    assert figures(whole) == figures(cut)


@pytest.mark.parametrize("minutes", [1e-9, 10.0])
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_death_between_an_epochs_last_step_and_its_row(
    epoch, minutes, tiny, tmp_path, monkeypatch, quick, same_state
):
    settings = tiny(method="byol", checkpoint_minutes=minutes)
    whole = run(settings, tmp_path / "whole", show_progress=False)
    write = trainer.Trainer._write_epoch_row

    def dying(self, number, loss):
        if number == epoch:
            raise KeyboardInterrupt
        write(self, number, loss)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_write_epoch_row", dying)
        with pytest.raises(KeyboardInterrupt):
            run(settings, tmp_path / "cut", show_progress=False)
    cut = run(settings, tmp_path / "cut", resume=True, show_progress=False)
    assert cut["loss"] == whole["loss"]
    folders = [RunFolder(tmp_path / name) for name in ("whole", "cut")]
    same_state(*(folder.checkpoint for folder in folders))
    whole_rows, cut_rows = ([(r["kind"], r["step"]) for r in folder.rows()] for folder in folders)
    assert whole_rows == cut_rows


@pytest.mark.parametrize("step", [3, 8, 16])
def test_a_signal_stops_with_a_checkpoint_of_that_step(step, tiny, tmp_path, monkeypatch, quick, same_state):
    """8 and 16 are the last steps of their epochs."""
    settings = tiny(method="directpred")
    run(settings, tmp_path / "whole", show_progress=False)
    record = TrainState.record

    def interrupting(self, loss):
        record(self, loss)
        if self.step + 1 == step:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "record", interrupting)
        with pytest.raises(trainer.Interrupted) as stopped:
            run(settings, tmp_path / "cut", show_progress=False)
    assert stopped.value.signal_number == signal.SIGTERM
    assert load_run(tmp_path / "cut").step == step
    run(settings, tmp_path / "cut", resume=True, show_progress=False)
    same_state(*(RunFolder(tmp_path / name).checkpoint for name in ("whole", "cut")))


def test_readings_come_back_from_the_log_and_not_from_the_checkpoint(
    tiny, tmp_path, monkeypatch, quick, dying_at
):
    settings = tiny(checkpoint_minutes=1e-9)
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    with dying_at(13):
        run(settings, tmp_path, show_progress=False)
    folder = RunFolder(tmp_path)
    checkpoint = load_checkpoint(folder.checkpoint)
    assert checkpoint["monitor"]["readings"] == []  # they would grow as long as the run does
    session = Session.open(settings, make_fabric("cpu", "fp32"))
    resumed = session.trainer(folder, checkpoint, show_progress=False)
    assert [reading.step for reading in resumed.monitor.readings] == [*range(1, checkpoint["step"] + 1)]
    assert resumed.monitor.readings == folder.readings()


def test_tensorboard_reads_what_the_log_holds(tiny, tmp_path, quick):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = RunFolder(tmp_path / "run")
    run(tiny(method="byol"), folder.path, show_progress=False)
    board = EventAccumulator(str(folder.tensorboard), size_guidance={"scalars": 0}).Reload()
    steps = [row for row in folder.rows() if row["kind"] == "step"]
    for tag, value in (
        ("step/loss", lambda row: row["loss"]),
        ("step/reading.nodes.z.std", lambda row: row["reading"]["nodes"]["z"]["std"]),
    ):
        found = [(event.step, event.value) for event in board.Scalars(tag)]
        assert found == [(row["step"], pytest.approx(value(row), rel=1e-6)) for row in steps]


def test_resuming_a_finished_run_changes_nothing(tiny, tmp_path, quick):
    first = run(tiny(), tmp_path / "a", show_progress=False)
    before = (tmp_path / "a" / "checkpoints" / "last.ckpt").read_bytes()
    second = run(tiny(), tmp_path / "a", resume=True, show_progress=False)
    assert (tmp_path / "a" / "checkpoints" / "last.ckpt").read_bytes() == before
    assert second["loss"] == first["loss"]


def test_two_runs_do_not_share_a_folder(tiny, tmp_path, quick):
    run(tiny(), tmp_path, show_progress=False)
    with pytest.raises(UsageError, match="add --resume"):
        run(tiny(), tmp_path, show_progress=False)
    with pytest.raises(UsageError, match=r"optimizer\.lr \(0\.3 then, 0\.1 now\)"):
        run(tiny(optimizer={"lr": 0.1}), tmp_path, resume=True, show_progress=False)


def test_nan_stops_and_keeps_the_last_good_checkpoint(tiny, tmp_path, monkeypatch, quick):
    step = trainer.Trainer._step

    def poisoned(self, batch):
        if self.state.step == 10:
            with torch.no_grad():
                self.state.bare_learner.encoder.body[0].weight.fill_(math.nan)
        return step(self, batch)

    monkeypatch.setattr(trainer.Trainer, "_step", poisoned)
    result = run(tiny(method="byol"), tmp_path, show_progress=False)
    assert result["diverged_at"] == 11
    assert math.isnan(result["loss"])
    log = (tmp_path / "train.log").read_text()
    assert "not finite at step 11" in log
    loaded = load_run(tmp_path)
    assert loaded.step == 8
    assert all(torch.isfinite(w).all() for w in loaded.learner.parameters())


def test_divergence_reaches_the_summary(tiny, tmp_path):
    summary = run(
        tiny(method="byol", distance="euclidean", optimizer={"lr": 1e6}), tmp_path, show_progress=False
    )
    assert summary["verdict"] == "diverged"
    assert summary["diverged_at_step"] >= 1
    assert json.loads((tmp_path / "summary.json").read_text())["loss"] is None


def test_the_same_seed_gives_the_same_run_and_another_another(tiny, tmp_path, quick, same_state):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tiny(seed=seed), tmp_path / name, show_progress=False)
    paths = [RunFolder(tmp_path / n).checkpoint for n in "abc"]
    same_state(paths[0], paths[1])
    with pytest.raises(AssertionError):
        same_state(paths[0], paths[2])


def test_accumulated_parts_give_the_gradient_of_the_batch(tiny, tmp_path, quick):
    """Without batch normalisation, whose statistics are those of the part, two halves are the whole."""
    plain = {
        "method": "byol",
        "predictor": {"kind": "linear"},
        "encoder": {"name": "timm/test_vit"},
        "projector": {"hidden": []},
        "epochs": 1,
        "data": {"limit": 64},
        "view_size": 16,
        "evaluation": {"every": 9, "images": 8},
    }
    weights = []
    for parts in (1, 2):
        run(tiny(**plain, accumulate=parts), tmp_path / str(parts), show_progress=False)
        weights.append(load_run(tmp_path / str(parts)).learner.state_dict())
    for name, w in weights[0].items():
        torch.testing.assert_close(w, weights[1][name], rtol=1e-4, atol=1e-6, msg=name)


def test_init_from_takes_weights_only(tiny, tmp_path, quick):
    run(tiny(method="byol"), tmp_path / "a", show_progress=False)
    run(tiny(method="simsiam", projector={"final_bn": "none"}, optimizer={"lr": 1e-12}), tmp_path / "b",
        init_from=tmp_path / "a", show_progress=False)  # fmt: skip
    first, second = (load_run(tmp_path / n).learner for n in "ab")
    torch.testing.assert_close(first.encoder.body[0].weight, second.encoder.body[0].weight)
    with pytest.raises(UsageError, match="projector does not fit"):
        run(tiny(projector={"out": 32}), tmp_path / "c", init_from=tmp_path / "a", show_progress=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "fp16", "device": "cpu"}, "fp16 needs CUDA"),
        ({"batch_size": 4096}, "batch_size 4096"),
        ({"encoder": {"name": "convnet-m"}}, "encoder"),
        ({"data": {"name": "digitz"}}, "did you mean 'digits'"),
    ],
)
def test_bad_input_writes_nothing(changes, words, tiny, tmp_path):
    with pytest.raises(UsageError, match=words):
        run(tiny(**changes), tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()


def test_bfloat16_trains(tiny, tmp_path, quick):
    result = run(tiny(method="directpred", precision="bf16"), tmp_path, show_progress=False)
    assert -1 <= result["loss"] < 0
    assert load_run(tmp_path).learner.predictor.correlation.dtype == torch.float32


def test_a_preflight_stops_at_a_fault_and_changes_nothing_else(tiny, tmp_path, quick, same_state):
    with pytest.raises(UsageError, match=r"preflight: weight-decay: weight decay 0\.9 is above"):
        run(tiny(optimizer={"weight_decay": 0.9}), tmp_path / "fault", show_progress=False, check=True)
    assert not (tmp_path / "fault").exists()
    for name, check in (("with", True), ("without", False)):
        run(tiny(method="byol"), tmp_path / name, show_progress=False, check=check)
    same_state(*(RunFolder(tmp_path / name).checkpoint for name in ("with", "without")))
    log = (tmp_path / "with" / "train.log").read_text()
    assert "frozen" not in log


@pytest.mark.parametrize("on_collapse", ["warn", "stop"])
def test_a_collapse_is_named_while_it_trains(on_collapse, tiny, tmp_path, quick):
    collapsing = tiny(
        method="byol-nosg", optimizer={"lr": 0.3}, epochs=8, schedule={"warmup_epochs": 0},
        on_collapse=on_collapse,
    )  # fmt: skip
    result = run(collapsing, tmp_path, show_progress=False)
    assert math.isfinite(result["loss"])
    log = (tmp_path / "train.log").read_text()
    assert "complete-collapse since step" in log
    assert "no stop-gradient" in log
    assert "first to change: stop the gradient" in log
    epochs = [row["epoch"] for row in RunFolder(tmp_path).rows() if row["kind"] == "epoch"]
    assert (epochs[-1] == 8) is (on_collapse == "warn")
    assert ("stopped after step" in log) is (on_collapse == "stop")
