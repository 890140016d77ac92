"""Pictures of the theory as files: pages, PNG and SVG."""

import base64
import re
import struct
import sys

import numpy as np
import pytest

from stopgrad.errors import MissingExtra, UsageError
from stopgrad.theory.figures import make_figure, write_figure
from stopgrad.theory.fixed_points import roots

SMALL = {
    "tian2021-fig3": {"points": 21},
    "tian2021-fig4": {"points": 21},
    "tian2021-fig7": {"n": 3, "runs": 2, "points": 9},
}


@pytest.fixture(scope="module")
def drawn():
    return {name: make_figure(name, **parameters) for name, parameters in SMALL.items()}


def test_a_page_is_whole_and_asks_nothing_of_the_network(drawn, tmp_path):
    path = tmp_path / "new folder" / "picture.html"
    write_figure(drawn["tian2021-fig4"], path)
    page = path.read_text()
    assert list(path.parent.iterdir()) == [path]
    policy = re.search('Content-Security-Policy"\\s+content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.partition("* plotly.js ")[0])
    assert not [tag for tag in tags if "src=" in tag or "href=" in tag]
    assert "<script src" not in page
    assert "<title>Three fixed points or one: the flow on the parabola</title>" in page
    # the numbers are in it: p+ from 2 / 3 on
    assert (
        base64.b64encode(np.array([2 / 3, roots(1 / 120, 0.5, 1.0)[1].item()]).tobytes()).decode()[:12]
        in page
    )
    write_figure(drawn["tian2021-fig4"], path)
    assert path.read_text() == page
    write_figure(drawn["tian2021-fig7"], path)
    assert (
        "<title>The target stays proportional to the network: Wa = τ W holds nearly</title>"
        in path.read_text()
    )


def test_a_failed_write_leaves_the_old_file(drawn, tmp_path, monkeypatch):
    path = tmp_path / "picture.html"
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_figure(drawn["tian2021-fig4"], path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["picture.pdf", "picture", "picture.htm"])
def test_other_formats_are_refused(drawn, tmp_path, name):
    with pytest.raises(UsageError, match=rf"^out: {name} must end in .html, .png or .svg$"):
        write_figure(drawn["tian2021-fig4"], tmp_path / name)


def test_what_is_missing_is_named(drawn, tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    monkeypatch.setattr("choreographer.browsers.chromium.get_chrome_download_path", lambda **_: None)
    monkeypatch.setattr("choreographer.browsers.chromium.get_old_chrome_download_path", lambda: None)
    with pytest.raises(UsageError, match=r"^out: \.png needs Chrome or Chromium, and none was found"):
        write_figure(drawn["tian2021-fig4"], tmp_path / "picture.png")
    for module, extra in (("kaleido", "report"), ("plotly.graph_objects", "report")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtra, match=rf"pip install 'stopgrad\[{extra}\]'"):
            write_figure(make_figure("tian2021-fig4", points=10), tmp_path / "picture.svg")
    assert list(tmp_path.iterdir()) == []


def test_a_browser_that_fails_is_named(drawn, tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    broken = tmp_path / "browser"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(broken))
    monkeypatch.setattr("choreographer.browsers.chromium.get_chrome_download_path", lambda **_: None)
    monkeypatch.setattr("choreographer.browsers.chromium.get_old_chrome_download_path", lambda: None)
    with pytest.raises(UsageError, match=r"^out: \.svg needs Chrome or Chromium, which failed: The browser"):
        write_figure(drawn["tian2021-fig4"], tmp_path / "picture.svg")
    assert list(tmp_path.iterdir()) == [broken]


def browser() -> bool:
    chromium = pytest.importorskip("choreographer.browsers.chromium")
    return chromium.Chromium.find_browser(skip_local=False) is not None


def test_a_png_is_the_picture(drawn, tmp_path):
    if not browser():
        pytest.skip("no Chrome or Chromium")
    from PIL import Image

    path = tmp_path / "picture.PNG"
    write_figure(drawn["tian2021-fig3"], path)
    assert struct.unpack(">II", path.read_bytes()[16:24]) == (2400, 2 * drawn["tian2021-fig3"].layout.height)
    colours = {colour for _, colour in Image.open(path).convert("RGB").getcolors(1 << 24)}
    assert {(0xF5, 0xC6, 0xCB), (0xD8, 0xE9, 0xF9), (0xD9, 0x3A, 0x4A), (255, 255, 255)} <= colours


def test_an_svg_is_the_picture(drawn, tmp_path):
    if not browser():
        pytest.skip("no Chrome or Chromium")
    path = tmp_path / "picture.svg"
    write_figure(drawn["tian2021-fig4"], path)
    text = path.read_text()
    assert text.startswith("<svg")
    assert "Three fixed points or one" in text
    assert not re.search(r'(?:src|href)="http', text)
