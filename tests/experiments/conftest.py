"""Trials that take no time: the frame is tested without training."""

import sys
from collections.abc import Callable

import pytest

from stopgrad import cli
from stopgrad.experiments import runner
from stopgrad.experiments.rules import Always
from stopgrad.experiments.schema import Arm, Experiment, Trial
from stopgrad.experiments.store import Store


class InThisProcess(runner.Workers):
    """Runs a trial when it is asked for, one at a time, in this process."""

    ran: list[Trial]

    def __exit__(self, *error):
        pass

    def submit(self, trial):
        self.ran.append(trial)
        return len(self.ran) - 1

    def ended(self, handles):
        return handles[:1]

    def outcome(self, handle):
        return runner.attempt(self.ran[handle])


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """The trials that were run, with an executor that needs no processes."""
    found: list[Trial] = []
    monkeypatch.setattr(InThisProcess, "ran", found, raising=False)
    monkeypatch.setitem(runner.EXECUTORS, "processes", InThisProcess)
    return found


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store", {"training": "a", "exact": "b"}, {"python": "3"})


@pytest.fixture
def experiment() -> Callable[..., Experiment]:
    """An exact experiment whose trials take milliseconds, with some fields changed."""

    def make(**changes):
        fields = {
            "id": "tian2021-example", "paper": "tian2021", "section": "1", "title": "t", "claim": "c",
            "function": "tian2021.integral",
            "arms": (Arm("zero", {"c": "zero"}), Arm("free", {"c": "free"})),
            "rule": Always("free", "drift", high=1e-8),
        }  # fmt: skip
        return Experiment(**(fields | changes))

    return make


@pytest.fixture
def reproduce(monkeypatch, capfd, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """`stopgrad reproduce` in an empty folder: exit status, output, errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["stopgrad", "reproduce", *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, *capfd.readouterr()

    return call
