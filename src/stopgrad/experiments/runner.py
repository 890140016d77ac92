"""Runs the trials that are not in the store yet, several at a time.

One trial is one process with one thread. The executors share everything but where the processes are:
``processes`` has them on this machine, ``ray`` on the machines of a Ray cluster (optional extra). What a
process computes is `stopgrad.experiments.trials.run_trial` alone, so that both give the same numbers.
"""

import multiprocessing
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stopgrad.errors import UsageError, require, unknown
from stopgrad.experiments import counterpart
from stopgrad.experiments.schema import Experiment, Result, Trial
from stopgrad.experiments.store import THREADS, Store
from stopgrad.experiments.trials import run_trial

if TYPE_CHECKING:
    from stopgrad.experiments.scale import Scale

CONTROL_MINUTES = 0.15
"""Of one probe of the untrained encoder on one core."""
PREDICTION_MINUTES = 0.02
"""Of what theory says of one training, on one core."""


@dataclass
class Job:
    """A trial to run: who needs it, and how long it should take.

    Attributes:
        trial: what to run.
        name: experiment, arm and seed of the first that needs it.
        experiments: ids of all that need it.
        minutes: expected time, 0 for one that is in the store.
    """

    trial: Trial
    name: str
    experiments: set[str]
    minutes: float


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: with a result, or with an error in one line.

    ``peak_gib`` is the largest memory of its process so far, of earlier trials in it too.
    """

    seconds: float
    result: Result | None = None
    error: str | None = None
    peak_gib: float | None = None


@dataclass
class Progress:
    """Where a run of the ledger stands.

    Attributes:
        jobs: all trials, by `Trial.identity`.
        reused: of those in the store before.
        outcomes: of those that were run, by identity, in the order in which they ended.
        at_once: trials that run at a time.
    """

    jobs: dict[str, Job]
    reused: set[str]
    at_once: int = 1
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """Name of each trial that raised, and its error."""
        return {self.jobs[i].name: o.error for i, o in self.outcomes.items() if o.error is not None}

    @property
    def seconds_left(self) -> float:
        """Expected time to the end: the experiments' figures, corrected by what the trials took so far."""
        left = 60 * sum(
            j.minutes for i, j in self.jobs.items() if i not in self.reused | self.outcomes.keys()
        )
        planned = 60 * sum(self.jobs[i].minutes for i in self.outcomes)
        took = sum(outcome.seconds for outcome in self.outcomes.values())
        return left * (took / planned if planned else 1.0) / self.at_once


Needed = tuple[str, Trial, float]
"""A trial that an experiment needs: its name, the trial, and the minutes that it should take."""


def plan(
    experiments: Iterable[Experiment],
    seeds: int | None = None,
    quick: bool = False,
    scale: "Scale | None" = None,
) -> dict[str, Job]:
    """The trials of experiments, each once, longest expected first; those of one length in their order.

    Experiments that cannot be run at the scale have none.
    """
    jobs: dict[str, Job] = {}
    for experiment in experiments:
        if not experiment.runs_at(scale):
            continue
        needed = [*_arms(experiment, seeds, quick, scale)]
        if scale is None:
            needed += [*_controls(experiment, seeds, quick), *_predictions(experiment, seeds, quick)]
        for name, trial, minutes in needed:
            job = jobs.setdefault(trial.identity, Job(trial, name, set(), 0.0))
            job.experiments.add(experiment.id)
            job.minutes = max(job.minutes, minutes)
    return dict(sorted(jobs.items(), key=lambda item: -item[1].minutes))


def _arms(experiment: Experiment, seeds: int | None, quick: bool, scale: "Scale | None") -> Iterator[Needed]:
    """The trials of an experiment's arms."""
    arms = experiment.trials(seeds, quick, scale)
    minutes = experiment.cost_minutes / max(1, len(experiment.arms) * max(1, len(experiment.seeds)))
    if scale is not None and experiment.kind == "training":
        from stopgrad.experiments.scale import cost

        there = cost(experiment, scale, seeds)
        minutes = 60 * there.gpu_hours / max(1, there.trials)
    for arm, trials in arms.items():
        for seed, trial in trials.items():
            yield _name(f"{experiment.id} {arm}", seed), trial, minutes


def _controls(experiment: Experiment, seeds: int | None, quick: bool) -> Iterator[Needed]:
    """The untrained encoders that an experiment's trained ones stand beside."""
    for seed, trial in experiment.controls(seeds, quick).items():
        yield _name("untrained encoder", seed), trial, CONTROL_MINUTES


def _predictions(experiment: Experiment, seeds: int | None, quick: bool) -> Iterator[Needed]:
    """What theory says of an experiment's trainings, where it has a word on them."""
    for arm, trials in counterpart.trials(experiment, seeds, quick).items():
        for seed, trial in trials.items():
            yield _name(f"{experiment.id} {arm}, predicted", seed), trial, PREDICTION_MINUTES


def _name(what: str, seed: int | None) -> str:
    return what if seed is None else f"{what}, seed {seed}"


def run(
    jobs: Mapping[str, Job],
    store: Store,
    *,
    at_once: int = 1,
    executor: str = "processes",
    tell: Callable[[Progress, str], None] = lambda progress, identity: None,
) -> Progress:
    """Run the trials that the store does not hold, and put them there as each one ends.

    A trial that raises is not stored; the others go on. An interrupt leaves what is finished.

    Args:
        jobs: by identity, in the order in which to start (see `plan`).
        store: where finished trials are, and go.
        at_once: trials at a time, >= 1.
        executor: where they run, a key of `EXECUTORS`.
        tell: called after each trial that ended, with its identity.

    Raises:
        UsageError: for a number of trials below 1, an unknown executor, or one that is not installed.
    """
    if at_once < 1:
        raise UsageError(f"--jobs: {at_once} is outside its domain [1, inf)")
    if executor not in EXECUTORS:
        raise unknown("--executor", executor, list(EXECUTORS))
    reused = {identity for identity, job in jobs.items() if store.get(job.trial) is not None}
    progress = Progress(dict(jobs), reused, at_once)
    waiting = [identity for identity in jobs if identity not in reused]
    if waiting:
        with EXECUTORS[executor](min(at_once, len(waiting))) as workers:
            for identity, outcome in workers.all(waiting, jobs):
                if outcome.result is not None:
                    store.put(jobs[identity].trial, outcome.result, outcome.seconds, outcome.peak_gib)
                progress.outcomes[identity] = outcome
                tell(progress, identity)
    return progress


def attempt(trial: Trial) -> Outcome:
    """Run a trial in this process; an error is an outcome."""
    start = time.perf_counter()
    try:
        result = run_trial(trial)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(time.perf_counter() - start, error=said)
    return Outcome(time.perf_counter() - start, result, peak_gib=_peak_gib())


def _peak_gib() -> float | None:
    """Largest memory of this process so far; None on systems that do not tell in this way."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 3)


class Workers(ABC):
    """Processes that take one trial after the other; a context."""

    def __init__(self, count: int):
        self.count = count

    def __enter__(self) -> "Workers":
        return self

    @abstractmethod
    def __exit__(self, *error: object) -> None: ...

    @abstractmethod
    def submit(self, trial: Trial) -> Any:
        """Start a trial; what it gives stands for it."""

    @abstractmethod
    def ended(self, handles: list[Any]) -> list[Any]:
        """Wait until at least one has ended; those that have."""

    @abstractmethod
    def outcome(self, handle: Any) -> Outcome:
        """Of one that has ended; a worker that died is an error."""

    def all(self, waiting: Iterable[str], jobs: Mapping[str, Job]) -> Iterator[tuple[str, Outcome]]:
        """Run trials, never more than ``count`` at a time, and give each as it ends.

        No more are handed out, so that an interrupt has none to wait for that have not begun.
        """
        queue = iter(waiting)
        running: dict[Any, str] = {}
        while True:
            while len(running) < self.count and (identity := next(queue, None)) is not None:
                running[self.submit(jobs[identity].trial)] = identity
            if not running:
                return
            for handle in self.ended(list(running)):
                yield running.pop(handle), self.outcome(handle)


class Processes(Workers):
    """On this machine, spawned anew: none inherits this process's state."""

    def __init__(self, count: int):
        super().__init__(count)
        self._pool = self._new()

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:  # interrupted: trials that are running are given up
            for child in multiprocessing.active_children():
                child.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, trial: Trial) -> Future[Outcome]:
        """See `Workers.submit`."""
        with _threads():
            try:
                return self._pool.submit(attempt, trial)
            except BrokenProcessPool:
                self._pool = self._new()
                return self._pool.submit(attempt, trial)

    def ended(self, handles: list[Future[Outcome]]) -> list[Future[Outcome]]:
        """See `Workers.ended`."""
        done = wait(handles, return_when=FIRST_COMPLETED).done
        return [handle for handle in handles if handle in done]

    def outcome(self, handle: Future[Outcome]) -> Outcome:
        """See `Workers.outcome`."""
        try:
            return handle.result()
        except BrokenProcessPool:
            return Outcome(0.0, error="the worker process died; too little memory?")

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.count, multiprocessing.get_context("spawn"), _begin)


class Ray(Workers):
    """On a Ray cluster, that of ``RAY_ADDRESS`` or else a new one of ``count`` workers on this machine."""

    def __init__(self, count: int):
        super().__init__(count)
        self._ray = require("ray", "ray")
        self._mine = not self._ray.is_initialized()
        if self._mine:
            size = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": count}
            self._ray.init(**size, runtime_env={"env_vars": _ENVIRONMENT}, log_to_driver=False)
        self._attempt = self._ray.remote(num_cpus=1, max_retries=0)(attempt)

    def __exit__(self, *error: object) -> None:
        if self._mine:
            self._ray.shutdown()

    def submit(self, trial: Trial) -> Any:
        """See `Workers.submit`."""
        return self._attempt.remote(trial)

    def ended(self, handles: list[Any]) -> list[Any]:
        """See `Workers.ended`."""
        return list(self._ray.wait(handles, num_returns=1)[0])

    def outcome(self, handle: Any) -> Outcome:
        """See `Workers.outcome`."""
        try:
            found: Outcome = self._ray.get(handle)
        except self._ray.exceptions.RayError as error:
            return Outcome(0.0, error=f"the worker died: {' '.join(str(error).split())}")
        return found


EXECUTORS: dict[str, type[Processes] | type[Ray]] = {"processes": Processes, "ray": Ray}

_ENVIRONMENT = {name: str(THREADS) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def _begin() -> None:
    """Begin a worker, which ends with the process that started it, however that one ends.

    Warnings of every run would tear the table on stderr.
    """
    import warnings

    warnings.simplefilter("ignore")
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _threads() -> Iterator[None]:
    """The environment of processes that are started here: the libraries read it when they are loaded."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
