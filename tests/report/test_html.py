import base64
import hashlib
import io
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs_version

from stopgrad.diagnostics.diagnosis import Diagnosis, Evidence, Fix
from stopgrad.diagnostics.series import Series
from stopgrad.errors import UsageError
from stopgrad.report import page as frame
from stopgrad.report import write_report
from stopgrad.report.figures import Eigenvalues
from stopgrad.report.figures.eigenvalues import Path
from stopgrad.report.html import render
from stopgrad.report.run_files import read_run
from stopgrad.report.sections import png_data_uri

SECTIONS = ["header", "key-figures", "evidence", "charts", "neighbours", "map", "settings"]
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page: tags with attributes, scripts with their text, the visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.open, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"unclosed {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def figures(self):
        kinds = [attributes.get("type") for attributes in self.attributes("script")]
        return [
            json.loads(s) for kind, s in zip(kinds, self.scripts, strict=True) if kind == "application/json"
        ]


def page_of(run):
    target = write_report(run)
    assert target == run / "report.html"
    return Page(target.read_text(encoding="utf-8"))


def assert_complete(page):
    assert [a["id"] for _, a in page.tags if "id" in a] == SECTIONS


def assert_harmless(page):
    """Nothing is fetched, and nothing runs but the two scripts whose hashes the page's policy names."""
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form", "a", "svg"}
        assert not [name for name in attributes if name.startswith("on")], attributes
        for name in {"src", "href", "srcset", "action", "data", "poster"} & set(attributes):
            assert attributes[name].startswith("data:image/png;base64,")
    (policy,) = [
        a["content"] for a in page.attributes("meta") if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none';")
    runs = [
        text
        for text, attributes in zip(page.scripts, page.attributes("script"), strict=True)
        if attributes.get("type") != "application/json"
    ]
    hashes = [f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}" for text in runs]
    assert re.findall(r"sha256-[^']+", policy) == hashes
    assert len(hashes) == 2


def test_the_script_of_the_pages_is_of_the_version_that_the_figures_are_made_for():
    first = frame._asset("plotly-cartesian.min.js")[:200]
    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}\n" in first


def test_report_of_a_whole_run(make_run):
    run = make_run()
    page = page_of(run)
    assert_complete(page)
    assert_harmless(page)
    assert len(page.figures) == 12  # 11 charts and the map
    assert (run / "report.html").stat().st_size < 8e6
    for words in (
        "directpred",
        "healthy",
        "std of z: 0.9",
        "threshold 0.1",
        "z is spread out",
        "90.0",
        "+30.0",
    ):
        assert words in page.words
    assert "eps: 0.1" in page.words
    assert "stopgrad pretrain --config runs/demo/config.yaml --out runs/demo-again" in page.words
    assert sorted(os.listdir(run)) == [
        "config.yaml",
        "evaluation.npz",
        "metrics.jsonl",
        "report.html",
        "summary.json",
    ]


def test_the_same_run_gives_the_same_report(make_run):
    run = make_run()
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_the_style_fetches_nothing():
    style = frame._asset("page.css")
    assert "url(" not in style
    assert "@import" not in style


def test_grid_has_twelve_queries_with_eight_neighbours_marked_by_label(make_run):
    run = make_run()
    images = page_of(run).attributes("img")
    assert len(images) == 12 * 9
    assert [image["class"] for image in images].count("query") == 12
    labels = np.load(run / "evaluation.npz")["labels"]
    for start in range(0, len(images), 9):
        query, *others = images[start : start + 9]
        assert query["class"] == "query"
        own = labels[int(re.search(r"test/(\d+)", query["title"])[1])]
        for other in others:
            same = labels[int(re.search(r"test/(\d+)", other["title"])[1])] == own
            assert other["class"] == ("same" if same else "other")
            assert re.search(r"cosine similarity -?[01]\.\d{3}", other["alt"])


def test_run_without_labels_without_predictor_in_colour(make_run):
    page = page_of(make_run(labels=False, predictor=False, channels=3))
    assert_complete(page)
    assert "No accuracy was measured" in page.words
    assert "no predictor" in page.words
    assert {image["class"] for image in page.attributes("img")} == {"query", "plain"}
    assert len(page.figures) == 10
    assert not any(trace.get("name", "").startswith("p") for f in page.figures for trace in f["data"])


@pytest.mark.parametrize("lost", [float("nan"), None])
def test_diverged_run(make_run, lost):
    def diverge(rows, summary, arrays):
        for row in rows[40:]:
            row |= {"loss": lost, **{n: dict.fromkeys(row[n], lost) for n in ("z", "p") if n in row}}
        summary |= {"verdict": "diverged", "loss": lost, "z": None, "knn": lost}
        summary["evidence"] = [{"measure": "loss", "of": "step 41", "value": lost, "says": "not finite"}]
        arrays["h"][:] = np.nan

    page = page_of(make_run(change=diverge))
    assert_complete(page)
    assert "diverged" in page.words
    assert "no neighbours to show" in page.words
    assert "NaN" not in json.dumps(page.figures)
    assert "Infinity" not in json.dumps(page.figures)


def test_run_with_nothing_finite_at_all(make_run):
    def ruin(rows, summary, arrays):
        for row in rows:
            row |= dict.fromkeys([key for key in row if key not in ("kind", "step", "epoch")], float("nan"))

    page = page_of(make_run(change=ruin))
    assert_complete(page)
    assert page.words.count(frame.NOTHING) >= 8


def test_torn_last_line_is_counted_and_left_out(make_run):
    run = make_run(epochs=2)
    whole = write_report(run).read_text()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind":"step","st')
    page = page_of(run)
    assert "1 line of metrics.jsonl could not be read" in page.words
    assert page.figures == Page(whole).figures


def test_a_repeated_step_counts_once_with_its_last_row(make_run):
    run = make_run(epochs=1)
    expected = page_of(run).figures
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    old = [line.replace('"loss": -', '"loss": 9') for line in lines[2:5]]
    (run / "metrics.jsonl").write_text("".join([*lines[:2], *old, *lines[2:]]))
    assert page_of(run).figures == expected


@pytest.mark.parametrize("epochs", [0, 1])
def test_short_runs(make_run, epochs):
    page = page_of(make_run(epochs=epochs, count=5))
    assert_complete(page)
    names = [trace["name"] for figure in page.figures for trace in figure["data"] if "name" in trace]
    assert "z" in names


def test_unfinished_run_has_a_report_of_what_there_is(make_run):
    run = make_run(epochs=2)
    for name in ("summary.json", "evaluation.npz", "config.yaml"):
        (run / name).unlink()
    page = page_of(run)
    assert_complete(page)
    assert "unfinished" in page.words
    assert "has not been evaluated" in page.words
    assert len(page.figures) == 11


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\udcff${title}$style%{x}"


def test_hostile_names_are_shown_and_do_nothing(make_run):
    def poison(rows, summary, arrays):
        summary |= {"method": HOSTILE, "data": HOSTILE, "run": HOSTILE, "verdict": HOSTILE, "seed": [HOSTILE]}
        summary["evidence"] = [
            {"measure": HOSTILE, "of": HOSTILE, "value": HOSTILE, "threshold": HOSTILE, "says": HOSTILE},
            {"measure": "std", "of": HOSTILE, "value": 1, "threshold": 0.1, "says": HOSTILE},
        ]
        summary["skipped"] = [{"path": HOSTILE, "reason": HOSTILE}]
        arrays["ids"] = np.array([f"{HOSTILE}{i}" for i in range(60)])
        arrays["classes"] = np.array([f"{HOSTILE}{i}" for i in range(10)])

    run = make_run(change=poison)
    (run / "config.yaml").write_text(f"method: {HOSTILE[:40]}")
    page = page_of(run)
    assert_complete(page)
    assert_harmless(page)
    shown = HOSTILE.replace("\udcff", "\\udcff")
    assert page.words.count(shown) >= 8
    assert page.attributes("img")[0]["title"].count(shown) == 2


COLLAPSED = Diagnosis(
    "predictor-collapse", 0.93, 96,
    (Evidence("std", "p", 0.01, 0.05, True, "all p point nearly the same way"),),
    "a cause", (Fix("change this", "so that", "Someone 2021"),),
)  # fmt: skip
COURSE = [Series("std", "p", (20, 96, 192), (0.8, 0.03, 0.01), 0.05, True, "all p point nearly the same way")]


def test_a_diagnosis_stands_beside_the_verdict_with_its_course(make_run):
    run = make_run()
    plain = page_of(run)
    write_report(run, COLLAPSED, COURSE)
    page = Page((run / "report.html").read_text())
    assert_complete(page)
    assert_harmless(page)
    assert len(page.figures) == len(plain.figures) + 1
    drawn = [trace["x"] for figure in page.figures for trace in figure["data"] if trace.get("name") == "p"]
    assert [20, 96, 192] in drawn
    for words in (
        "predictor-collapse , since step 96, confidence 0.93", "Cause: a cause.", "std of p 0.01 < 0.05",
        "change this : so that (Someone 2021)", "summary.json says healthy", "At the end of the run",
    ):  # fmt: skip
        assert words in page.words, words
    assert '<span class="badge bad">predictor-collapse</span>' in (run / "report.html").read_text()


def test_eigenvalues_stand_in_two_panels_with_what_is_assumed_or_why_there_are_none(make_run):
    run = read_run(make_run())
    path = Path(np.arange(3.0), np.ones((3, 2)), np.ones((3, 2)))
    says = "Dashed: <b>theory</b>'s modes."
    page = Page(render(run, eigenvalues=Eigenvalues(path, path, True, (0.384, 0.9), says)))
    assert_harmless(page)
    assert len(page.figures) == 14
    for words in (says, "38% of F lay", "90% at last"):
        assert words in page.words
    assert "the predictor is no matrix" in Page(render(run)).words


def test_no_note_where_diagnosis_and_summary_agree(make_run):
    run = make_run()
    write_report(run, replace(COLLAPSED, verdict="healthy", first_bad_step=None))
    page = Page((run / "report.html").read_text())
    assert "summary.json says" not in page.words
    assert "since step" not in page.words


def test_a_hostile_diagnosis_does_nothing(make_run):
    run = make_run()
    item = Evidence(HOSTILE, HOSTILE, 1.0, 2.0, True, HOSTILE)
    series = Series(HOSTILE, HOSTILE, (1, 2), (1.0, 3.0), 2.0, True, HOSTILE)
    diagnosis = Diagnosis("diverged", 1.0, 1, (item,), HOSTILE, (Fix(HOSTILE, HOSTILE, HOSTILE),))
    write_report(run, diagnosis, [series])
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert_complete(page)
    assert_harmless(page)


def test_a_long_course_stays_small(make_run):
    steps = tuple(range(50_001))
    series = Series("std", "z", steps, tuple(float(s) for s in steps), 0.05, True, "")
    run = make_run(epochs=1)
    write_report(run, COLLAPSED, [series])
    figures = Page((run / "report.html").read_text()).figures
    (trace,) = (t for f in figures for t in f["data"] if t["type"] == "scatter" and len(t["x"]) > 1000)
    assert len(trace["x"]) == len(trace["y"]) <= 2001
    assert trace["x"][-1] == 50_000


def test_a_figure_cannot_end_its_script_early():
    figure = Figure({"data": [{"type": "scatter", "y": [1], "name": HOSTILE}], "layout": {"height": 100}})
    page = Page(frame.panel(HOSTILE, figure, HOSTILE))
    assert [tag for tag, _ in page.tags] == ["figure", "h3", "div", "script", "figcaption"]
    assert page.figures[0]["data"][0]["name"] == HOSTILE


def test_skipped_files_are_listed_up_to_a_bound(make_run):
    def skip(rows, summary, arrays):
        summary["skipped"] = [{"path": f"bad/{i}.png", "reason": "truncated"} for i in range(5000)]

    words = page_of(make_run(epochs=1, change=skip)).words
    assert "5000 files skipped" in words
    assert "bad/0.png" in words
    assert "4800 more" in words


def test_long_runs_stay_small(make_run):
    def stretch(rows, summary, arrays):
        steps = [row for row in rows if row["kind"] == "step"]
        rows[:] = [row for row in rows if row["kind"] == "epoch"]
        rows += [{**steps[i % len(steps)], "step": i, "epoch": i / 1000} for i in range(24_001)]

    run = make_run(change=stretch)
    page = page_of(run)
    assert (run / "report.html").stat().st_size < 8e6
    assert "Of every 24 steps the lowest and the highest are drawn" in page.words


def test_a_line_of_fewer_points_keeps_its_extremes():
    values = np.random.default_rng(0).normal(size=30_011)
    values[[7, 20_000]] = 50.0, -40.0
    values[10_000:10_050] = np.nan
    kept = frame.lowest_and_highest(values.tolist(), 1000)
    assert len(kept) <= 1003
    assert kept == sorted(set(kept))
    assert {0, 7, 10_000, 20_000, 30_010} <= set(kept)
    for part in np.array_split(np.arange(30_011), 500):
        of, inside = values[part], values[[i for i in kept if part[0] <= i <= part[-1]]]
        if np.isfinite(of).any():
            assert (np.nanmin(inside), np.nanmax(inside)) == (np.nanmin(of), np.nanmax(of))
    assert frame.lowest_and_highest([float("nan")] * 9, 4) == [0, 8]
    assert frame.lowest_and_highest([1.0, 2.0], 2) == [0, 1]


@pytest.mark.parametrize(("length", "most"), [(0, 5), (5, 5), (6, 5), (99, 10), (100, 10), (101, 10)])
def test_thinning_keeps_order_ends_and_bound(length, most):
    rows = [{"step": i} for i in range(length)]
    kept = [row["step"] for row in frame.thin(rows, most)]
    assert len(kept) <= most + 1
    assert kept == sorted(set(kept))
    assert kept[:1] + kept[-1:] == [0, length - 1][: 2 * bool(length)]


def test_a_failed_write_leaves_the_old_report_and_nothing_else(make_run, monkeypatch):
    run = make_run(epochs=1)
    before = write_report(run).read_bytes()
    names = sorted(os.listdir(run))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (run / "summary.json").write_text('{"method": "other"}')
    with pytest.raises(OSError, match="No space"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert sorted(os.listdir(run)) == names


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", b"{torn"),
        ("summary.json", b"[1]"),
        ("evaluation.npz", b"PK torn"),
        ("evaluation.npz", b""),
    ],
)
def test_damaged_file_is_one_line_that_names_it(make_run, name, content):
    run = make_run(epochs=1)
    (run / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        write_report(run)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_arrays_are_refused(make_run):
    run = make_run(epochs=1)
    np.savez(run / "evaluation.npz", h=np.array([{}], dtype=object), ids=[], thumbnails=[])
    with pytest.raises(UsageError, match=r"evaluation\.npz"):
        write_report(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a run folder"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_every_pixel(channels):
    image = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    head, data = png_data_uri(image).split(",")
    assert head == "data:image/png;base64"
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).reshape(5, 7, channels)
    assert np.array_equal(np.moveaxis(read, -1, 0), image)
