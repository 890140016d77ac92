"""The trainings at the papers' scale: settings, costs, missing data, and a small run of the real thing."""

import io
import json
import pickle
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from stopgrad.errors import UsageError
from stopgrad.experiments import ledger, papers, runner, scale
from stopgrad.experiments.papers import EXPERIMENTS
from stopgrad.experiments.rules import UNREACHABLE, Always
from stopgrad.experiments.scale import SCALES, cost, describe, gpu_bytes, operations
from stopgrad.experiments.schema import Arm, Experiment
from stopgrad.training.build import DataFacts, build_learner
from stopgrad.training.settings import resolve

TRAINING = [e for e in EXPERIMENTS.values() if e.kind == "training"]
BY_ITSELF = [e for e in EXPERIMENTS.values() if e.quick is not None]


def settings_of(experiment, where):
    """Of each arm's first seed."""
    trials = experiment.trials(1, scale=SCALES[where])
    return {arm: resolve(of_seed[1].arguments) for arm, of_seed in trials.items()}


@pytest.mark.parametrize("where", SCALES)
def test_every_training_experiment_resolves_and_nothing_of_digits_is_left(where):
    for experiment in TRAINING:
        recipe = resolve(SCALES[where].base(experiment.paper) | {"method": "byol"})
        for arm, settings in settings_of(experiment, where).items():
            assert settings.data.name == SCALES[where].data
            assert settings.encoder.name == ("resnet50" if where == "imagenet" else "resnet18")
            assert (settings.view_size, settings.batch_size) == (recipe.view_size, recipe.batch_size)
            assert settings.make_views().size == settings.view_size
            assert (settings.device, settings.precision, settings.threads) == ("auto",) * 3
            assert settings.optimizer.name == recipe.optimizer.name
            named = {"epochs": {100, 300} if experiment.id == "tian2021-tbl8" else {recipe.epochs}}
            still = settings.optimizer.lr == 1e-12
            assert settings.epochs in ({1} if still else named["epochs"])
            assert settings.optimizer.lr == recipe.optimizer.lr or still
            decays = {0.0, recipe.optimizer.weight_decay, 4e-4}
            own = settings.optimizer.predictor.weight_decay
            assert settings.optimizer.weight_decay in decays, arm
            assert own is None or own in decays, arm


def test_arms_at_a_scale_differ_where_they_do_on_digits():
    for experiment in TRAINING:
        here = experiment.trials(1)
        there = experiment.trials(1, scale=SCALES["cifar10"])
        assert len({of[1].identity for of in here.values()}) == len({of[1].identity for of in there.values()})


def test_the_papers_recipes():
    tian = settings_of(EXPERIMENTS["tian2021-tbl1"], "stl10")["learned"]
    assert (tian.optimizer.lr, tian.optimizer.weight_decay, tian.batch_size) == (0.03, 4e-4, 128)
    assert (tian.epochs, tian.target.tau, tian.views) == (100, 0.996, "simclr-96")
    assert (tian.projector.hidden, tian.projector.out, tian.projector.hidden_affine) == ((512,), 128, False)
    halvagal = settings_of(EXPERIMENTS["halvagal2023-isoloss"], "cifar10")["IsoLoss"]
    assert (halvagal.optimizer.lr, halvagal.batch_size, halvagal.target.schedule) == (0.1, 512, "cosine")
    assert (halvagal.views, halvagal.view_size, halvagal.schedule.warmup_epochs) == ("simclr-32", 32, 10)
    raft = settings_of(EXPERIMENTS["raft2021-tbl1"], "cifar10")["RAFT, MLP"]
    assert (raft.optimizer.name, raft.optimizer.lr, raft.batch_size) == ("adamw", 3e-4, 128)
    assert (raft.view_size, raft.epochs, raft.predictor.bn) == (96, 300, False)
    zhang = settings_of(EXPERIMENTS["zhang2022-tbl2"], "cifar100")["SimSiam"]
    assert (zhang.optimizer.lr, zhang.optimizer.weight_decay, zhang.batch_size) == (0.5, 1e-5, 256)
    assert (zhang.projector.hidden, zhang.projector.out, zhang.epochs) == ((2048, 2048), 2048, 1000)
    assert zhang.optimizer.predictor.constant_lr
    assert zhang.projector.final_bn == "plain"
    large = settings_of(EXPERIMENTS["tian2021-tbl9"], "imagenet")["two layers"]
    assert (large.optimizer.name, large.batch_size, large.epochs) == ("lars", 4096, 300)
    assert (large.projector.hidden, large.predictor.hidden, large.projector.out) == ((4096,), 4096, 256)


def test_colours_of_stl10_are_at_full_strength_and_blur_is_for_96_pixels():
    def ops(where):
        views = settings_of(EXPERIMENTS["halvagal2023-isoloss"], where)["IsoLoss"].make_views()
        return {op.op: op for op in views.second}

    assert (ops("stl10")["color_jitter"].brightness, ops("cifar10")["color_jitter"].brightness) == (0.8, 0.4)
    assert ["gaussian_blur" in ops(where) for where in ("stl10", "tiny-imagenet", "cifar10")] == [
        True, False, False,
    ]  # fmt: skip


def test_what_was_fitted_to_digits_has_the_papers_value():
    decayed = settings_of(EXPERIMENTS["tian2021-tbl2"], "stl10")
    assert decayed["EMA, eta 0"].optimizer.weight_decay == 0
    assert decayed["EMA, eta 0.003"].optimizer.weight_decay == 4e-4
    rescued = settings_of(EXPERIMENTS["tian2021-tbl5"], "stl10")
    own = rescued["no EMA, bias, symmetric, decay predictor"].optimizer
    assert (own.weight_decay, own.predictor.weight_decay) == (0, 4e-4)
    longer = settings_of(EXPERIMENTS["tian2021-tbl8"], "stl10")
    assert (longer["learned, 100 epochs"].epochs, longer["learned, 300 epochs"].epochs) == (100, 300)


def test_the_rule_of_imagenet_is_decidable_there():
    table = EXPERIMENTS["tian2021-tbl9"]
    assert "not decided here" in table.rule_here().describe()
    assert "not decided here" in table.rule_here(SCALES["cifar10"]).describe()
    assert "not decided here" not in table.rule_here(SCALES["imagenet"]).describe()


def test_a_function_that_trains_by_itself_is_not_run_and_says_so(store):
    there = SCALES["cifar10"]
    assert runner.plan(BY_ITSELF, scale=there) == {}
    for experiment in BY_ITSELF:
        row = ledger.row(experiment, store, scale=there)
        assert row.verdict.outcome == UNREACHABLE
        assert "not at this scale" in row.verdict.why
        with pytest.raises(ValueError, match="cannot be run"):
            experiment.trials(scale=there)


def test_exact_trials_are_the_same_and_no_untrained_encoder_of_digits_is_planned():
    there = SCALES["stl10"]
    exact = [e for e in EXPERIMENTS.values() if not e.trains]
    assert runner.plan(exact, scale=there).keys() == runner.plan(exact).keys()
    planned = runner.plan([EXPERIMENTS["tian2021-tbl9"]], 2, scale=there)
    assert {job.trial.kind for job in planned.values()} == {"training"}
    assert len(planned) == 6
    assert all(job.minutes > 0 for job in planned.values())


@pytest.mark.parametrize("changes", [{"method": "byol"}, {"method": "simsiam-eoa", "target": {"views": 4}}])
def test_operations_and_kept_numbers_are_those_of_a_step(changes):
    base = {
        "data": {"name": "cifar10"}, "recipe": "zhang2022", "epochs": 1, "schedule": {"warmup_epochs": 0},
    }  # fmt: skip
    settings, rows = resolve(base | changes), 4
    saved = {}

    def keep(tensor):
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"):
        learner = build_learner(settings, DataFacts(3, (0.0,) * 3, (1.0,) * 3, None, rows))
        views = [torch.zeros(rows, 3, 32, 32) for _ in range(settings.sentence.views)]
        counter = FlopCounterMode(display=False)
        with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            learner(views).loss.backward()
    assert operations(settings, rows) == pytest.approx(counter.get_total_flops(), rel=0.01)
    own = {weight.untyped_storage()._cdata for weight in learner.parameters()}
    kept = sum(tensor.numel() for key, tensor in saved.items() if key not in own)
    wider = settings.but(batch_size=settings.batch_size + 2)
    assert gpu_bytes(wider, rows) - gpu_bytes(settings, rows) == pytest.approx(2 * kept * 2 / rows, rel=0.05)


def test_cost_counts_trials_epochs_and_images():
    table, there = EXPERIMENTS["tian2021-tbl9"], SCALES["cifar10"]
    whole, one = cost(table, there), cost(table, there, seeds=1)
    assert (whole.trials, one.trials) == (15, 3)
    assert whole.gpu_hours == pytest.approx(5 * one.gpu_hours)
    twice = replace(there, images=2 * there.images, labelled=3 * there.labelled)
    assert cost(table, twice).gpu_hours == pytest.approx(2 * whole.gpu_hours)
    assert cost(table, twice).probe_hours == pytest.approx(3 * whole.probe_hours)
    # forward and backward of two views and two through the target, 0.556e9 multiplications each (He et al.)
    per_trial = 45_000 * 100 * 8 * 2 * 0.556e9 / (0.1 * 312e12) / 3600
    assert one.gpu_hours == pytest.approx(3 * per_trial, rel=0.05)


@pytest.mark.parametrize("where", SCALES)
def test_time_and_memory_are_stated_for_each(where):
    for experiment in EXPERIMENTS.values():
        said = describe(experiment, SCALES[where])
        assert said["scale"] == where
        if experiment.kind == "training":
            assert {"gpu_hours", "gpu_memory_gib", "memory_gib"} <= said["cost"].keys()
            assert min(said["cost"][name] for name in ("gpu_hours", "probe_hours")) > 0
            assert 1 < said["cost"]["gpu_memory_gib"] < 80
            assert "estimate" in said["cost"]["basis"]
        else:
            assert (said["cost"] is None) == (experiment in BY_ITSELF)


def test_a_quick_run_is_of_digits():
    with pytest.raises(ValueError, match="quick"):
        EXPERIMENTS["tian2021-tbl9"].trials(quick=True, scale=SCALES["cifar10"])


def packed(path, folder, files):
    """A tar of files in a folder."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def cifar10(place):
    random = np.random.default_rng(0)

    def part(count):
        data = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        return pickle.dumps({b"data": data, b"labels": [i % 10 for i in range(count)]}, protocol=2)

    names = pickle.dumps({b"label_names": [f"class {i}".encode() for i in range(10)]}, protocol=2)
    batches = {f"data_batch_{i}": part(20) for i in range(1, 6)}
    files = {**batches, "test_batch": part(20), "batches.meta": names}
    packed(place / "cifar-10-python.tar.gz", "cifar-10-batches-py", files)


def cifar100(place):
    packed(place / "cifar-100-python.tar.gz", "cifar-100-python", {"train": b""})


def stl10(place):
    packed(place / "stl10_binary.tar.gz", "stl10_binary", {"train_X.bin": b""})


def tiny_imagenet(place):
    with zipfile.ZipFile(place / "tiny-imagenet-200.zip", "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "n1")


def imagenet(place):
    for part in ("train", "val"):
        for label in ("n1", "n2"):
            (place / part / label).mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (8, 8), (i, 0, 0)).save(place / part / label / f"{i}.png")


WRITERS = {
    "cifar10": cifar10, "cifar100": cifar100, "stl10": stl10, "tiny-imagenet": tiny_imagenet,
    "imagenet": imagenet,
}  # fmt: skip


@pytest.mark.parametrize("where", SCALES)
def test_the_data_are_found_in_their_official_form_or_missed(where, tmp_path):
    with pytest.raises(UsageError, match="--data-dir"):
        SCALES[where].require()
    with pytest.raises(UsageError, match="nowhere"):
        SCALES[where].at(tmp_path / "nowhere").require()
    WRITERS[where](tmp_path)
    SCALES[where].at(tmp_path).require()


def test_missing_data_are_one_line_before_anything_runs(reproduce, ran, tmp_path):
    status, out, err = reproduce("tian2021-tbl9", "tian2021-integral", "--scale", "cifar10")
    assert (status, out, ran) == (2, "", [])
    assert "needs the place of cifar-10-python.tar.gz, --data-dir PATH" in err
    status, out, err = reproduce("tian2021-tbl9", "--scale", "stl10", "--data-dir", tmp_path)
    assert (status, out, ran) == (2, "", [])
    assert err.count("\n") == 1
    # what needs no data runs without
    status, out, _ = reproduce("tian2021-integral", "tian2021-fig2", "--scale", "stl10", "--json")
    assert status == 0
    assert [row["verdict"]["outcome"] for row in json.loads(out)["experiments"]][1] == UNREACHABLE
    assert len(ran) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tian2021-tbl9", "--scale", "cifar"], "did you mean 'cifar10'"),
        (["tian2021-tbl9", "--scale", "cifar10", "--quick"], "--quick"),
        (["tian2021-tbl9", "--data-dir", "."], "needs --scale"),
        (["tian2021-tbl9", "--download"], "needs --scale"),
    ],
)
def test_flags_that_do_not_go_together(reproduce, arguments, said):
    status, out, err = reproduce(*arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_the_list_at_a_scale(reproduce):
    status, out, _ = reproduce("list", "--scale", "cifar10", "--json")
    found = {e["id"]: e for e in json.loads(out)["experiments"]}
    assert (status, list(found)) == (0, list(EXPERIMENTS))
    assert found["tian2021-tbl2"]["arms"]["EMA, eta 0.003"]["optimizer"]["weight_decay"] == 4e-4
    status, out, _ = reproduce("list", "--scale", "cifar10")
    assert status == 0
    assert "not at this scale" in out


def test_a_trial_at_a_scale_is_run_and_found_again_wherever_the_data_lie(
    reproduce, ran, tmp_path, monkeypatch
):
    """The whole way, on an archive of 100 images, the encoder and the epochs cut down."""
    cut = {
        "encoder": {"name": "convnet-s"}, "epochs": 1, "batch_size": 30, "schedule": {"warmup_epochs": 0},
        "projector": {"hidden": (32,), "out": 16}, "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    bases = {paper: {**base, **cut} for paper, base in SCALES["cifar10"].bases.items()}
    monkeypatch.setitem(scale.SCALES, "cifar10", replace(SCALES["cifar10"], bases=bases))
    arms = (Arm("learned", {"method": "byol-lp"}),)
    small = Experiment(
        id="tian2021-small", paper="tian2021", section="s", title="t", claim="c", arms=arms, seeds=(1,),
        rule=Always("learned", "linear_probe", low=0, high=1),
    )  # fmt: skip
    monkeypatch.setitem(papers.EXPERIMENTS, small.id, small)
    for index, place in enumerate((tmp_path / "a", tmp_path / "b")):
        place.mkdir()
        cifar10(place)
        status, out, _ = reproduce(small.id, "--scale", "cifar10", "--data-dir", place, "--json")
        said = json.loads(out)
        assert (status, said["reused"], said["ran"]) == (0, index, 1 - index)
        assert said["experiments"][0]["verdict"]["outcome"] == "holds"
    assert len(ran) == 1
    (path,) = (tmp_path / "results/ledger").glob("*.json")
    assert str(tmp_path) not in path.read_text()
    assert json.loads(path.read_text())["spec"]["settings"]["data"]["name"] == "cifar10"
