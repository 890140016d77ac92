"""The command line in this process, and vectors whose verdict is known."""

import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from stopgrad import cli


class Result(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one document on stdout; anything else there fails."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run ``stopgrad diagnose``."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["stopgrad", "diagnose", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert isinstance(stop.value.code, int)
        return Result(stop.value.code, *capfd.readouterr())

    return call


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
