"""`make demo` as a process: how it is stopped. What it shows is tried whenever it is run."""

import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_what_it_has_started(asked, tmp_path):
    command = [sys.executable, "-m", "stopgrad.experiments.demo", "--out", str(tmp_path)]
    log = tmp_path / "directpred" / "metrics.jsonl"
    with subprocess.Popen(command, start_new_session=True) as demo:
        ends = time.monotonic() + 120
        while not (log.is_file() and log.stat().st_size) and time.monotonic() < ends:
            time.sleep(0.1)
        if asked == signal.SIGINT:
            os.killpg(demo.pid, asked)  # as a terminal does
        else:
            demo.send_signal(asked)
        assert demo.wait(30) == 128 + signal.SIGINT
    with pytest.raises(ProcessLookupError):
        os.killpg(demo.pid, 0)
