"""Pictures of the explorer for the documentation: `make screenshots`.

python tests/browser/screenshots.py RUNS_FOLDER
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from conftest import executable_path, served

OUT = Path(__file__).parents[2] / "docs" / "img"
DESKTOP, PHONE = (1280, 900), (390, 844)
SHOTS = {  # name -> address, size, scheme
    "mode": ("/dynamics/mode?eta=0.1", DESKTOP, "light"),
    "mode-dark": ("/dynamics/mode?eta=0.1", DESKTOP, "dark"),
    "mode-phone": ("/dynamics/mode?eta=0.1", PHONE, "light"),
    "triplet": ("/dynamics/triplet", DESKTOP, "light"),
    "eigenvalues": ("/dynamics/eigenvalues?loss=cosine", DESKTOP, "light"),
    "matrices": ("/dynamics/matrices", DESKTOP, "light"),
    "phase": ("/dynamics/phase", DESKTOP, "light"),
    "runs": ("/runs", DESKTOP, "light"),
    "run": ("/runs/{run}", DESKTOP, "light"),
    "run-phone": ("/runs/{run}", PHONE, "dark"),
    "ledger": ("/ledger", DESKTOP, "light"),
    "claim": ("/ledger/tian2021-phase-encoder-beta", DESKTOP, "dark"),
}


def main(folder: Path) -> None:
    """Take every picture of `SHOTS`; the run that is shown is the folder's first."""
    OUT.mkdir(exist_ok=True)
    run = min(path.parent.name for path in folder.glob("*/metrics.jsonl"))
    with served(folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable_path(), args=["--no-sandbox"])
        for name, (path, (width, height), scheme) in SHOTS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(address + path.format(run=run))
            page.wait_for_selector("tbody tr" if path == "/ledger" else ".plot .main-svg", timeout=120_000)
            page.wait_for_load_state("networkidle" if "{run}" not in path else "load")
            page.wait_for_function("() => !document.body.textContent.includes('Being computed')")
            page.wait_for_timeout(1000)
            page.screenshot(path=OUT / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
