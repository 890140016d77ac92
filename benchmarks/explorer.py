"""How quick the explorer is, in a real browser on this machine.

    python benchmarks/explorer.py               # about three minutes
    python benchmarks/explorer.py --write       # and benchmarks/results/explorer.md

Needs `pip install -e '.[explorer,report,browser]'` and a Chromium on the PATH, or named in BROWSER_PATH.

- `first paint`: from the start of `stopgrad explore`, a new process, until the first contentful paint;
- `first picture`: until plotly has drawn the first one, with all that the theory imports;
- `slider`: from a slider's event until every new picture is painted: of one mode, for a held and for a moving
  target (without the basin there, which is drawn once sliders rest, and has often not been when the next
  move comes), and of the other views that are one picture; `request` is the server's part of it;
- `long run`: until every chart of a run of 100,000 step rows is drawn; the verdict and what else needs torch
  comes after them. Clicked: on a new server, some seconds after the first picture, a click on Runs and one on
  the run. The others open its address: of a server that was started this moment and still imports what it
  needs, and there `with its verdict` too; by a new browser, which has to evaluate plotly's script, of a
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
from random import Random
from statistics import median

from playwright.sync_api import Browser, Page, sync_playwright

RESULTS = Path(__file__).parent / "results"
STARTS, MOVES, ROWS = 5, 8, 100_000
QUIET = 8000  # ms after which a new server has imported what its pages may need
# row of the table -> view, a slider of it, and the first notch and the step of its moves
SLIDERS = {
    "slider, target held": ("mode", "eta", 150, 5),
    "slider, target moving": ("mode?fixed_tau=off", "eta", 150, 5),
    "slider, three weights": ("triplet", "l_d", 250, 5),
    "slider, two eigenvalues": ("eigenvalues", "exponent", 200, 5),
    "slider, matrices": ("matrices", "angle", 250, 5),
}
NODES = ("z", "p", "z_eval")
READ = {
    "norm": 5.0, "raw_std": 0.5, "std": 1.0, "m_o": 0.5, "m_r": 1.0, "effective_rank": 40.0, "rankme": 40.0,
    "participation_ratio": 6.0, "alpha_req": 2.0, "off_diagonal_covariance": 0.001, "alignment": 0.3,
    "uniformity": -2.5,
}  # fmt: skip
"""What the monitor reads of a node, and about how much of it there is."""
COUNTED = {"count": 64, "dim": 64, "finite": 1.0, "zero_rows": 0.0}
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
PLOT = ".plot .main-svg"
CHARTS = """() => {
  const plots = [...document.querySelectorAll('#charts .plot')];
  return plots.length > 0 && plots.every((plot) => plot.querySelector('.main-svg'));
}"""
WHOLE = "() => !document.body.textContent.includes('Being computed')"
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
    page.wait_for_timeout(QUIET)
    found = []
    for i in range(MOVES + 3):
        found.append(page.evaluate(MOVE, [f"control-{slider}", first + step * i]))
        page.wait_for_timeout(1500)  # the basin of a moving target is drawn once sliders rest
    return found[3:]


def long_run(folder: Path) -> Path:
    """A run folder of step rows as training writes them, 160 MB, and an epoch row for each thousand."""
    folder.mkdir(parents=True)
    random = Random(0)

    def about(values: dict[str, float]) -> dict[str, float]:
        return {key: value * random.uniform(0.9, 1) for key, value in values.items()}

    with (folder / "metrics.jsonl").open("w") as file:
        for i in range(1, ROWS + 1):
            nodes = {name: COUNTED | about(READ) for name in NODES}
            row = {"kind": "step", "step": 20 * i, "epoch": i / 1000, **about({"loss": -i / (i + 1000)})}
            row |= {"lr": 0.1, "images_per_second": 1500.0}
            own = {key: nodes["z"][key] for key in ("std", "effective_rank")}
            reading = {"nodes": nodes, "scalars": {}}
            file.write(json.dumps({**row, **own, "reading": reading}) + "\n")
            if i % 1000 == 0:
                ended = {name: {**nodes[name], "spectrum": [1 / 64] * 64} for name in ("z", "p")}
                file.write(json.dumps({**row, "kind": "epoch", "knn": 0.5, **ended}) + "\n")
    return folder


def opened(page: Page, address: str) -> float:
    """Seconds until a run is drawn."""
    began = time.perf_counter()
    page.goto(address)
    page.wait_for_function(CHARTS)
    return time.perf_counter() - began


def long_runs(browser: Browser, runs: Path) -> tuple[float, ...]:
    """Seconds until it is drawn, in the order of the table."""
    with Server(runs) as server:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(server.address)
        page.wait_for_selector(PLOT)
        page.wait_for_timeout(3000)
        began = time.perf_counter()
        page.click("a[href='/runs']")
        page.click("a[href='/runs/long']")
        page.wait_for_function(CHARTS)
        clicked = time.perf_counter() - began
        page.close()
    with Server(runs) as server:
        address = f"{server.address}/runs/long"
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        began = time.perf_counter()
        first = opened(page, address)
        page.wait_for_function(WHOLE)
        judged = time.perf_counter() - began
        page.close()  # it follows the run for as long as it is open
        (runs / "long" / "metrics.jsonl").touch()
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        read = opened(page, address)
        page.wait_for_function(WHOLE)
        page.wait_for_timeout(3000)
        again = opened(page, address)
        page.close()
    return clicked, first, judged, read, again


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
        clicked, first, judged, read, again = zip(
            *(long_runs(browser, runs) for _ in range(STARTS)), strict=True
        )
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
        "– new server, with its verdict, s": list(judged),
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
