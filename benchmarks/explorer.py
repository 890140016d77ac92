"""How quick the explorer is, in a real browser on this machine.

    python benchmarks/explorer.py               # about three minutes
    python benchmarks/explorer.py --write       # and benchmarks/results/explorer.md

Needs `pip install -e '.[explorer,report,browser]'` and a Chromium on the PATH, or named in BROWSER_PATH.

- `first paint`: from the start of `stopgrad explore`, a new process, until the first contentful paint;
- `first picture`: until plotly has drawn the first one, with all that the theory imports;
- `slider`: from a slider's event until every new picture is painted: of one mode, for a held and for a moving
  target (without the basin there, which is drawn once sliders rest, and has often not been when the next
  move comes), and of the other views that are one picture; `request` is the server's part of it;
- `long run`: until a run of 100,000 step rows is drawn. Clicked: on a new server, some seconds after the
  first picture, a click on Runs and one on the run. The others open its address: of a server that was started
  this moment and still imports what it needs; by a new browser, which has to evaluate plotly's script, of a
  server that has to read the run again since its file has changed; and by a browser that has shown it, of a
  file that has not.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, Page, sync_playwright

RESULTS = Path(__file__).parent / "results"
STARTS, MOVES, ROWS = 5, 8, 100_000
# row of the table -> view, a slider of it, and the first notch and the step of its moves
SLIDERS = {
    "slider, target held": ("mode", "eta", 150, 5),
    "slider, target moving": ("mode?fixed_tau=off", "eta", 150, 5),
    "slider, three weights": ("triplet", "l_d", 250, 5),
    "slider, two eigenvalues": ("eigenvalues", "exponent", 200, 5),
    "slider, matrices": ("matrices", "angle", 250, 5),
}
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
PLOT = ".plot .main-svg"
MOVE = """async ([id, notch]) => {
  const plots = [...document.querySelectorAll('.plot')];
  const late = new Promise((_, refuse) => { setTimeout(refuse, 60000, new Error('not drawn in 60 s')); });
  // a picture is drawn anew, or points of its lines are moved
  const ends = ['plotly_afterplot', 'plotly_transitioned'];
  const after = (plot) => Promise.race(ends.map((end) => new Promise((resolve) => plot.once(end, resolve))));
  const drawn = Promise.all(plots.map(after));
  const range = document.getElementById(id);
  const began = performance.now();
  range.value = notch;
  range.dispatchEvent(new Event('input'));
  await Promise.race([drawn, late]);
  await new Promise((resolve) => { requestAnimationFrame(() => { setTimeout(resolve); }); });
  const ours = (one) => one.startTime >= began && one.name.includes('/api/');
  const asked = performance.getEntriesByType('resource').find(ours);
  return [performance.now() - began, asked?.duration ?? 0];
}"""


class Server:
    """`stopgrad explore` of a folder of runs, started anew."""

    def __init__(self, runs: Path) -> None:
        self.began = time.time()
        command = [sys.executable, "-m", "stopgrad", "explore", str(runs), "--port", "0", "--no-browser"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[2]

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def cold_start(browser: Browser, runs: Path) -> tuple[float, float]:
    """Seconds until the first paint and until the first picture."""
    with Server(runs) as server:
        page = browser.new_page()
        page.goto(server.address)
        page.wait_for_function(PAINT)
        origin = page.evaluate("() => performance.timeOrigin") / 1000
        painted = origin + page.evaluate(PAINT) / 1000 - server.began
        page.wait_for_selector(PLOT)
        drawn = time.time() - server.began
        page.close()
    return painted, drawn


def moves(page: Page, address: str, slider: str, first: int, step: int) -> list[tuple[float, float]]:
    """Milliseconds of a slider's moves, and of the request in each."""
    page.goto(address)
    page.wait_for_selector(PLOT)
    page.wait_for_timeout(3000)
    found = []
    for i in range(MOVES + 3):
        found.append(page.evaluate(MOVE, [f"control-{slider}", first + step * i]))
        page.wait_for_timeout(1500)  # the basin of a moving target is drawn once sliders rest
    return found[3:]


def long_run(folder: Path) -> Path:
    """A run folder of step rows, and an epoch row for each thousand."""
    folder.mkdir(parents=True)
    node = {"std": 0.9, "effective_rank": 20.0, "alignment": 0.3, "uniformity": -2.0, "m_o": 0.1, "m_r": 0.9}
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, ROWS + 1):
            row = {"kind": "step", "step": step, "epoch": step / 1000, "loss": -0.5, "lr": 0.1}
            file.write(json.dumps({**row, "images_per_second": 1500.0, "seconds": 0.04}) + "\n")
            if step % 1000 == 0:
                end = {**row, "kind": "epoch", "knn": 0.5, "z": {**node, "spectrum": [0.01] * 64}}
                file.write(json.dumps(end) + "\n")
    return folder


def opened(page: Page, address: str) -> float:
    """Seconds until a run is drawn."""
    began = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("#charts .main-svg")
    return time.perf_counter() - began


def long_runs(browser: Browser, runs: Path) -> tuple[float, float, float, float]:
    """Seconds until it is drawn: clicked, of a new server, in a new browser, and once more."""
    with Server(runs) as server:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(server.address)
        page.wait_for_selector(PLOT)
        page.wait_for_timeout(3000)
        began = time.perf_counter()
        page.click("a[href='/runs']")
        page.click("a[href='/runs/long']")
        page.wait_for_selector("#charts .main-svg")
        clicked = time.perf_counter() - began
        page.close()
    with Server(runs) as server:
        found = []
        for _ in range(2):
            (runs / "long" / "metrics.jsonl").touch()
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            found.append(opened(page, f"{server.address}/runs/long"))
            page.wait_for_timeout(3000)
            if len(found) == 2:
                found.append(opened(page, f"{server.address}/runs/long"))
            page.close()  # it follows the run for as long as it is open
        return clicked, found[0], found[1], found[2]


def measure() -> dict[str, list[float]]:
    """Name -> times."""
    path = os.environ.get("BROWSER_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        runs = Path(folder)
        long_run(runs / "long")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        starts = [cold_start(browser, runs) for _ in range(STARTS)]
        with Server(runs) as server:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            sliders = {
                name: moves(page, f"{server.address}/dynamics/{view}", *of)
                for name, (view, *of) in SLIDERS.items()
            }
            page.close()
        clicked, first, read, again = zip(*(long_runs(browser, runs) for _ in range(STARTS)), strict=True)
        browser.close()
    return {
        "first paint, s": [paint for paint, _ in starts],
        "first picture, s": [drawn for _, drawn in starts],
        **{
            f"{name}{part}, ms": [move[i] for move in times]
            for name, times in sliders.items()
            for i, part in enumerate(("", ": request"))
        },
        "long run, clicked, s": list(clicked),
        "– new server, s": list(first),
        "– new browser, s": list(read),
        "– same browser, s": list(again),
    }


def table(found: dict[str, list[float]]) -> str:
    """Median and spread of each."""
    lines = [
        "# How quick the explorer is", "",
        f"`python benchmarks/explorer.py`, {platform.machine()}, {os.cpu_count()} processors, "
        f"Python {platform.python_version()}. Targets: first paint under 3 s, a slider's move under 100 ms, "
        f"a run of {ROWS:,} rows under 2 s.", "",
        "| | median | smallest | largest | n |", "|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {k} | {median(v):.3g} | {min(v):.3g} | {max(v):.3g} | {len(v)} |" for k, v in found.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/explorer.md")
    chosen = parser.parse_args()
    page = table(measure())
    print(page)
    if chosen.write:
        (RESULTS / "explorer.md").write_text(page)


if __name__ == "__main__":
    main()
