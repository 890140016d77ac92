import json
import math
import re
import sys

import numpy as np
import pytest

from stopgrad.diagnostics.diagnosis import Reading
from stopgrad.errors import UsageError
from stopgrad.postmortem import diagnose as module
from stopgrad.postmortem.diagnose import diagnose, diagnose_run


def node(std, rank=20.0):
    return {"std": std, "effective_rank": rank}


READINGS = [Reading(20 * i + 20, {"z": node(0.8 if i < 4 else 1e-4 / i)}, -1.0) for i in range(8)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder that is a run whose z collapses at step 100."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("")
    monkeypatch.setattr(module, "read_readings", lambda *_: list(READINGS))
    monkeypatch.setattr(module, "read_measures", lambda *_: {}, raising=False)
    return folder


def figures_of(page):
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return [json.loads(text, parse_constant=pytest.fail) for text in found]


def words_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", re.sub(r"<script.*?</script>", "", page, flags=re.S)))


def test_the_page_of_a_run_says_and_draws_what_the_document_says(run, tmp_path, command):
    page = tmp_path / "why.html"
    result = command(run, "--plot", page, "--json")
    found = result.json
    assert (result.status, found["verdict"], found["first_bad_step"]) == (0, "complete-collapse", 100)
    text = page.read_text()
    words = words_of(text)
    for fix in found["fixes"]:
        assert fix["change"] in words.replace("&#x27;", "'")
        assert fix["source"] in words
    for phrase in ("complete-collapse, since step 100", "std of z", "&lt; 0.05", "all z point nearly"):
        assert phrase in words
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:http|//)", text.split("<script>")[0])
    (figure,) = figures_of(text)
    std, loss = figure["data"]
    assert std["x"] == [r.step for r in READINGS]
    assert loss["y"] == [-1.0] * 8
    assert figure["layout"]["yaxis"]["type"] == "log"
    lines = [s for s in figure["layout"]["shapes"] if s["type"] == "line"]
    assert [s["x0"] for s in lines if s["x0"] == s["x1"]] == [100, 100]


def test_the_course_of_a_run_is_that_of_its_readings(run):
    found = diagnose_run(run)
    assert found.series[0].values == tuple(r.nodes["z"]["std"] for r in READINGS)
    assert found.document["verdict"] == found.diagnosis.verdict == "complete-collapse"


def test_the_page_of_vectors_shows_spectrum_and_thresholds(tmp_path, rng):
    np.save(tmp_path / "x.npy", rng.normal(size=(500, 3)) @ rng.normal(size=(3, 128)))
    found = diagnose(tmp_path / "x.npy", plot=tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text()
    bars, spectrum = figures_of(text)
    assert len(bars["data"][0]["x"]) == 2
    shares = found["measures"]["spectrum"]
    assert spectrum["data"][0]["y"][1:] == pytest.approx([100 * s for s in np.cumsum(shares)])
    assert spectrum["data"][0]["y"][3] == pytest.approx(100)
    assert "dimensional-collapse" in words_of(text)
    assert "effective_rank of x" in words_of(text)


@pytest.mark.parametrize("value", [math.nan, 0.0, 1.0])
def test_vectors_without_any_spread_have_a_page_too(tmp_path, value):
    np.save(tmp_path / "x.npy", np.full((20, 8), value, np.float32))
    diagnose(tmp_path / "x.npy", plot=tmp_path / "x.html")
    assert figures_of((tmp_path / "x.html").read_text())


def test_the_page_of_a_folder_is_that_of_the_worst(tmp_path, rng, command):
    np.save(tmp_path / "a.npy", rng.normal(size=(200, 16)))
    np.save(tmp_path / "b.npy", np.ones((40, 16), np.float32))
    out = command(tmp_path, "--plot", tmp_path / "page.html").out
    words = words_of((tmp_path / "page.html").read_text())
    assert "b.npy" in words
    assert "a.npy" not in words
    assert f"2 in {tmp_path}" in words
    assert f"page        {tmp_path / 'page.html'}" in out


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("page.pdf", "page.pdf: the page ends in .html, not '.pdf'"),
        ("page", "ends in .html"),
        ("absent/page.html", "no folder absent"),
        ("folder.html", "is a folder"),
    ],
)
def test_a_page_that_cannot_be_written_is_one_line_before_any_work(
    tmp_path, monkeypatch, command, target, says
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    monkeypatch.setattr(module, "_find", lambda *_: pytest.fail("measured first"))
    result = command("x.npy", "--plot", target)
    assert (result.status, result.out) == (2, "")
    assert says in result.err
    assert result.err.count("\n") == 1


def test_without_the_report_extra_the_line_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(UsageError, match=r"pip install 'stopgrad\[report\]'"):
        diagnose(tmp_path / "x.npy", plot=tmp_path / "x.html")
