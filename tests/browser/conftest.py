"""A real browser on a real server; `make test-browser`. A request to any other address fails a test."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

STORE = Path(__file__).parents[2] / "results" / "ledger"
HOME = re.compile(r"http://127\.0\.0\.1:\d+")
NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable_path():
    found = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.exit("no Chromium on the PATH: apt-get install chromium, or name one in BROWSER_PATH", 1)
    return found


@contextmanager
def served(runs):
    """The address of a server of these runs and of the project's ledger."""
    command = [sys.executable, "-m", "stopgrad", "explore", str(runs), "--store", str(STORE), "--port", "0"]
    with subprocess.Popen([*command, "--no-browser"], stdout=subprocess.PIPE, text=True) as server:
        yield HOME.search(server.stdout.readline())[0]
        server.terminate()


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable_path(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def store():
    """The project's ledger."""
    return STORE


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in (("byol", []), ("no-predictor", ["--method", "simsiam-np"])):
        command = [sys.executable, "-m", "stopgrad", "pretrain", "--data", "digits", "--method", "byol"]
        command += ["--recipe", "digits-smoke", "--epochs", "2", "--set", "data.limit=256"]
        subprocess.run([*command, *changes, "--out", str(folder / name)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def address(runs):
    with served(runs) as found:
        yield found


@pytest.fixture
def open_page(browser, address):
    """Opens a page of an address; at the end nothing may have been asked elsewhere, nor gone wrong in it."""
    contexts, wrong = [], []

    def open_(path, **options):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))

        def only_home(route):
            if route.request.url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                wrong.append(route.request.url)
                route.abort()

        page.route("**/*", only_home)
        page.goto(address + path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not wrong
