"""What is run, in which order, how often, and what an error or an interrupt leaves."""

import json
import os
import subprocess
import sys
import time

import pytest

from stopgrad.errors import UsageError
from stopgrad.experiments import ledger, runner
from stopgrad.experiments.rules import FAILS, HOLDS, Always, Greater
from stopgrad.experiments.schema import DIGITS, Arm, Result, Trial, control
from stopgrad.experiments.store import Store
from stopgrad.training import results


def contents(store):
    """Everything but when, how long and in how much memory, by file."""
    found = {path.name: json.loads(path.read_text()) for path in store.folder.glob("*.json")}
    return {name: {**c, "seconds": 0, "finished": 0, "peak_gib": 0} for name, c in found.items()}


def test_a_trial_of_two_experiments_is_run_once(ran, store, experiment):
    other = experiment(id="tian2021-other", arms=(Arm("free", {"c": "free"}),))
    jobs = runner.plan([experiment(), other])
    assert [sorted(job.experiments) for job in jobs.values()] in (
        [["tian2021-example", "tian2021-other"], ["tian2021-example"]],
        [["tian2021-example"], ["tian2021-example", "tian2021-other"]],
    )
    runner.run(jobs, store)
    assert len(ran) == 2
    assert ledger.row(other, store).verdict.outcome == HOLDS


def test_a_finished_trial_is_never_run_again(ran, store, experiment):
    jobs = runner.plan([experiment()])
    first = runner.run(jobs, store)
    before = {path: path.stat().st_mtime_ns for path in store.folder.iterdir()}
    second = runner.run(jobs, store)
    assert (len(first.outcomes), len(second.outcomes), len(second.reused)) == (2, 0, 2)
    assert len(ran) == 2
    assert {path: path.stat().st_mtime_ns for path in store.folder.iterdir()} == before


def test_another_source_runs_it_again(ran, store, experiment):
    jobs = runner.plan([experiment()])
    runner.run(jobs, store)
    runner.run(jobs, Store(store.folder, store.sources | {"exact": "new"}, store.environment))
    assert len(ran) == 4


def test_an_interrupted_ledger_goes_on_where_it_stopped(ran, store, experiment):
    jobs = runner.plan([experiment()])

    def interrupt(progress, identity):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(jobs, store, tell=interrupt)
    assert len(ran) == 1
    assert len(ledger.row(experiment(), store).missing) == 1
    progress = runner.run(jobs, store)
    assert (len(progress.reused), len(progress.outcomes)) == (1, 1)
    assert len({trial.identity for trial in ran}) == len(ran) == 2
    assert len(ledger.row(experiment(), store).missing) == 0


def test_a_failing_trial_does_not_stop_the_others_and_is_not_stored(ran, store, experiment):
    arms = (Arm("zero", {"c": "zero", "t_end": "x"}), Arm("free", {"c": "free"}))
    jobs = runner.plan([experiment(arms=arms)])
    progress = runner.run(jobs, store, at_once=2)
    assert list(progress.failed) == ["tian2021-example zero"]
    assert "\n" not in progress.failed["tian2021-example zero"]
    assert len(list(store.folder.iterdir())) == 1
    row = ledger.row(experiment(arms=arms), store)
    assert (len(row.missing), row.verdict) == (1, None)
    runner.run(jobs, store)
    assert len(ran) == 3  # only the one that failed was tried again


def test_a_function_that_does_not_exist_is_a_failure(ran, store, experiment):
    for function in ("tian2021.nothing", "nobody.nothing"):
        assert runner.run(runner.plan([experiment(function=function)]), store).failed


def test_the_longest_start_first(experiment):
    short = experiment(cost_minutes=1, arms=(Arm("free", {"c": "free"}),))
    long = experiment(
        id="tian2021-long",
        function="tian2021.decoupled",
        cost_minutes=10,
        arms=(Arm("free"), Arm("b", {"t_end": 1})),
    )
    jobs = list(runner.plan([short, long]).values())
    assert [(job.name.split()[0], job.minutes) for job in jobs] == [
        ("tian2021-long", 5), ("tian2021-long", 5), ("tian2021-example", 1)
    ]  # fmt: skip


def test_the_untrained_encoder_of_a_seed_is_measured_once_for_all(store, experiment):
    def trained(name, **changes):
        arms = (Arm("a", {"method": "byol-lp"}), Arm("b", {"method": "simsiam"}))
        fields = {"function": None, "base": DIGITS, "arms": arms, "rule": Greater("a", "b", "knn")}
        return experiment(id=f"tian2021-{name}", **fields | changes)

    both = [trained("one", seeds=(1, 2)), trained("two", seeds=(2, 3)), experiment()]
    assert {job.trial.arguments["seed"]: job.experiments for job in controls(runner.plan(both))} == {
        1: {"tian2021-one"}, 2: {"tian2021-one", "tian2021-two"}, 3: {"tian2021-two"},
    }  # fmt: skip
    quick = controls(runner.plan(both, quick=True))
    limit = both[0].trials(quick=True)["a"][1].spec["settings"]["data"]["limit"]
    assert [(job.trial.arguments["seed"], job.trial.arguments["limit"]) for job in quick] == [
        (1, limit), (2, limit),
    ]  # fmt: skip
    elsewhere = trained("three", seeds=(1,), base={"data": {"name": "cifar10"}})
    assert controls(runner.plan([elsewhere])) == []
    # no verdict waits for it
    store.put(control(1), Result({"knn": 0.5}), 1.0)
    row = ledger.row(both[0], store)
    assert (len(row.missing), row.control.keys()) == (4, {1})
    for of_seed in both[0].trials().values():
        for trial in of_seed.values():
            store.put(trial, Result({"knn": 0.5}), 1.0)
    row = ledger.row(both[0], store)
    assert (len(row.missing), row.verdict.outcome, row.control.keys()) == (0, FAILS, {1})


def controls(jobs):
    return [job for job in jobs.values() if job.trial.function == "control.untrained"]


def test_the_time_that_is_left_follows_what_trials_took():
    jobs = {str(i): runner.Job(Trial("exact", {"i": i}, "f"), "f", {"e"}, 2.0) for i in range(5)}
    progress = runner.Progress(jobs, reused={"0"}, at_once=2)
    assert progress.seconds_left == pytest.approx(4 * 120 / 2)
    progress.outcomes["1"] = runner.Outcome(60.0)
    assert progress.seconds_left == pytest.approx(3 * 60 / 2)


@pytest.mark.parametrize(
    ("options", "name"), [({"at_once": 0}, "--jobs"), ({"executor": "threads"}, "--executor")]
)
def test_bad_options_are_named(store, experiment, options, name):
    with pytest.raises(UsageError, match=f"^{name}: "):
        runner.run(runner.plan([experiment()]), store, **options)


TINY = {
    "method": "directpred", "recipe": "digits-smoke", "device": "cpu", "threads": 1, "epochs": 1,
    "data": {"name": "digits", "limit": 128}, "evaluation": {"images": 32, "control": False},
}  # fmt: skip


def test_one_process_and_two_give_the_same_bits_and_failures_stop_neither(tmp_path, experiment):
    arms = (Arm("zero", {"c": "zero"}), Arm("free", {"c": "free"}), Arm("bad", {"c": "free", "t_end": -1}))
    trained = experiment(
        id="tian2021-trained", function=None, base=TINY, seeds=(1,), arms=(Arm("free"),),
        rule=Always("free", "knn", low=0, high=1),
    )  # fmt: skip
    jobs = runner.plan([trained, experiment(arms=arms)])
    stores = []
    for count in (1, 2):
        stores.append(Store(tmp_path / str(count)))
        progress = runner.run(jobs, stores[-1], at_once=count)
        assert list(progress.failed) == ["tian2021-example bad"]
    one, two = map(contents, stores)
    assert len(one) == 5  # with the untrained encoder and what theory predicts
    assert one == two
    peaks = [json.loads(path.read_text())["peak_gib"] for path in stores[0].folder.glob("*.json")]
    assert all(0.05 < peak < 16 for peak in peaks)
    row = ledger.row(trained, stores[0])
    assert row.control[1].result.numbers.keys() == set(results.PROBES)
    assert row.to_dict()["untrained"]["knn"]["mean"] == row.control[1].result.numbers["knn"]
    assert row.verdict.outcome == HOLDS
    first = row.records["free"][1].result
    assert {"linear_probe", "z.std", "p.effective_rank", "z.collapsed", "diverged"} <= first.numbers.keys()
    assert not {"seed", "images_per_second"} & first.numbers.keys()
    assert first.series["epoch"] == [0, 1]
    assert len(first.series["z.spectrum"][1]) == 32


KILLED = """
import os, time
from stopgrad.experiments.runner import Processes

if __name__ == "__main__":
    workers = Processes(1)
    print(workers._pool.submit(os.getpid).result(), flush=True)
    workers._pool.submit(time.sleep, 600)
    time.sleep(600)
"""


def test_no_worker_outlives_a_ledger_that_is_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    ledger = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    worker = int(ledger.stdout.readline())
    ledger.kill()
    ledger.communicate()
    deadline = time.monotonic() + 60
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_that_dies_is_a_failure_and_a_new_one_goes_on(tmp_path, experiment, monkeypatch):
    """By a stub that dies at its first trial: the pool of the library is what is tested."""
    from concurrent.futures import ProcessPoolExecutor

    with runner.Processes(1) as workers:
        workers._pool.shutdown()
        workers._pool = ProcessPoolExecutor(1)
        dead = workers._pool.submit(os._exit, 1)
        assert "died" in workers.outcome(workers.ended([dead])[0]).error
        monkeypatch.setattr(workers, "_new", lambda: ProcessPoolExecutor(1))
        trial = Trial("exact", {"c": "zero"}, "tian2021.integral")
        handle = workers.submit(trial)
        assert workers.outcome(workers.ended([handle])[0]).result.numbers["drift"] < 1e-8


def test_a_row_reports_numbers_beside_the_papers(ran, store, experiment):
    made = experiment(paper_numbers={"free": {"drift": 0.5}}, rule=Always("free", "drift_text", high=1e-8))
    runner.run(runner.plan([made]), store)
    row = ledger.row(made, store)
    assert row.verdict.outcome == FAILS
    said = row.to_dict()
    assert said["paper"] == {"free": {"drift": 0.5}}
    assert said["numbers"]["free"]["drift"]["n"] == 1
    assert said["numbers"]["free"]["drift"]["mean"] == row.numbers["free"][None]["drift"]
    assert said["verdict"]["outcome"] == FAILS
    # of a source that is gone
    later = Store(store.folder, store.sources | {"exact": "new"}, store.environment)
    assert ledger.row(made, later).verdict is None
    assert ledger.row(made, later, any_source=True).verdict == row.verdict


@pytest.mark.slow
def test_two_ray_workers_give_the_same_bits_as_two_processes(tmp_path, experiment):
    jobs = runner.plan(
        [experiment(), experiment(id="tian2021-bad", arms=(Arm("free", {"c": "free", "t_end": -1}),))]
    )
    stores = [Store(tmp_path / name) for name in runner.EXECUTORS]
    for name, store in zip(runner.EXECUTORS, stores, strict=True):
        assert list(runner.run(jobs, store, at_once=2, executor=name).failed) == ["tian2021-bad free"]
    one, two = map(contents, stores)
    assert len(one) == 2
    assert one == two
