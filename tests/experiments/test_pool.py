"""`make demo` and `make results` as processes: how they are stopped."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("module", "asked"), [("demo", signal.SIGINT), ("main_job", signal.SIGTERM)])
def test_a_signal_ends_it_and_what_it_has_started(module, asked, tmp_path):
    command = [sys.executable, "-m", f"stopgrad.experiments.{module}", "--out", str(tmp_path)]
    log = tmp_path / {"demo": "directpred", "main_job": "directpred-1"}[module] / "metrics.jsonl"
    # what a shell starts in the background ignores SIGINT, and so would what these tests start
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, start_new_session=True, preexec_fn=heed) as started:
        ends = time.monotonic() + 120
        while not (log.is_file() and log.stat().st_size) and time.monotonic() < ends:
            time.sleep(0.1)
        if asked == signal.SIGINT:
            os.killpg(started.pid, asked)  # as a terminal does
        else:
            started.send_signal(asked)
        assert started.wait(30) == 128 + signal.SIGINT
    with pytest.raises(ProcessLookupError):
        os.killpg(started.pid, 0)
