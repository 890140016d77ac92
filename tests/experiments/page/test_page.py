import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

from stopgrad.experiments import counterpart, ledger
from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page import __main__ as command
from stopgrad.experiments.page import html, markdown, measures, tables
from stopgrad.experiments.page.figures import FIGURES, arms, draw
from stopgrad.experiments.papers import EXPERIMENTS
from stopgrad.experiments.rules import All, Always, Collapses, Greater, Survives, Under
from stopgrad.experiments.schema import Arm, Experiment, Result, Trial
from stopgrad.experiments.store import Record, Store

ROOT = Path(__file__).parents[3]
HOSTILE = "<script>alert(1)</script> [x](javascript:alert) | a & `b` *c*"


def trained(**changes) -> Experiment:
    """Two arms and two seeds, whose learned arm is better and whose plain one collapses."""
    fields = {
        "id": "zhang2022-made", "paper": "zhang2022", "section": "section 9", "title": "Two arms",
        "claim": "Learned beats plain, which collapses.",
        "arms": (Arm("learned", {"method": "simsiam"}), Arm("plain", {"method": "simsiam-np"})),
        "seeds": (1, 2),
        "paper_numbers": {"learned": {"linear_probe": 0.666, "z.collapsed": 0.0}},
        "rule": All(
            Greater("learned", "plain", "linear_probe"), Collapses("plain"), Survives("learned", node="p")
        ),
    }  # fmt: skip
    return Experiment(**(fields | changes))


def exact(**changes) -> Experiment:
    """One number that decides, once as it stands and once under a condition."""
    fields = {
        "id": "tian2021-made", "paper": "tian2021", "section": "Eq. 1", "title": "One number", "claim": "c",
        "function": "tian2021.integral", "arms": (Arm("less", {"c": "a"}), Arm("more", {"c": "a", "d": 1})),
        "rule": Under(
            "d is given",
            All(Always("less", "left", high=0.01), Always("more", "left", high=0.01)),
            Always("more", "left", high=0.01),
        ),
    }  # fmt: skip
    return Experiment(**(fields | changes))


NUMBERS = {
    ("learned", 1): {"linear_probe": 0.8, "z.std": 0.91, "z.collapsed": 0.0, "p.healthy": 1.0},
    ("learned", 2): {"linear_probe": 0.9, "z.std": 0.93, "z.collapsed": 0.0, "p.healthy": 1.0},
    ("plain", 1): {"linear_probe": 0.3, "z.std": 0.01, "z.collapsed": 1.0, "p.healthy": 0.0},
    ("plain", 2): {"linear_probe": 0.4, "z.std": 0.02, "z.collapsed": 1.0, "p.healthy": 0.0},
    ("less", None): {"left": 0.123456},
    ("more", None): {"left": 0.00789},
}


@pytest.fixture
def fill(store) -> Callable[..., None]:
    """Puts the made-up trials of experiments into the store, with some numbers changed or left out."""

    def put(*experiments: Experiment, numbers=NUMBERS, without=()):
        for experiment in experiments:
            for arm, trials in experiment.trials().items():
                for seed, trial in trials.items():
                    if (arm, seed) not in without:
                        store.put(trial, Result(numbers[arm, seed]), 90.0)
            for seed, trial in experiment.controls().items():
                store.put(trial, Result({"linear_probe": 0.5 + seed / 100, "knn": 0.6}), 1.0)

    return put


def read(store: Store, *experiments: Experiment) -> list[Row]:
    return ledger.rows(experiments, store, any_source=True)


def cells(page: str, first: str) -> list[str]:
    """Of the one line of a table that begins so, the cells."""
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {first} |")]
    return line[2:-2].split(" | ")


def test_the_page_has_each_verdict_and_number(store, fill):
    fill(trained(), exact())
    page = markdown.render(read(store, trained(), exact()))
    assert cells(page, "[zhang2022-made](#zhang2022-made)")[1:3] == ["Two arms", "holds"]
    assert cells(page, "[tian2021-made](#tian2021-made)")[2] == "holds under a condition"
    assert cells(page, "Tian et al. 2021 (DirectPred)")[1:] == ["0", "1", "0", "0", "1"]
    assert cells(page, "all")[1:] == ["1", "1", "0", "0", "2"]
    head = ["arm", "linear probe", "paper: linear probe", "std of z", "z collapsed", "paper: z collapsed"]
    assert cells(page, "arm | linear probe")[:6] == head
    assert cells(page, "learned") == [
        "learned", "85.0 ± 7.1 %", "66.6 %", "0.92 ± 0.014", "0 of 2", "no", "2 of 2",
    ]  # fmt: skip
    assert cells(page, "plain")[:3] == ["plain", "35.0 ± 7.1 %", "–"]
    assert cells(page, tables.CONTROL)[1] == "51.5 ± 0.7 %"
    assert cells(page, "less") == ["less", "0.123"]
    assert cells(page, "more") == ["more", "0.00789"]
    assert "left of less \\<= 0.01, every trial: 0.1235: **does not hold here**" in page
    assert "left of more \\<= 0.01, every trial: 0.00789: **holds**" in page
    assert "- trials: 8\n" in page
    assert "- seeds of training: 1, 2\n" in page
    assert f"- time: {(6 * 90 + 2) / 3600:.3g} hours of a core" in page


def test_what_theory_says_stands_in_the_row(store, fill):
    arms = (Arm("learned", {"method": "byol-lp"}), Arm("plain", {"method": "simsiam-mirror"}))
    experiment = trained(arms=arms, base={"data": {"name": "digits"}})
    fill(experiment)
    (row,) = read(store, experiment)
    assert "theory" not in markdown.render([row])
    for seed, trial in counterpart.trials(experiment)["learned"].items():
        said = {"reached": 1.0, "collapsed": float(seed == 2), "rank": 10.0 * seed, "epochs": 12.0}
        store.put(trial, Result(said), 1.0)
    (row,) = read(Store(store.folder), experiment)
    assert row.to_dict()["predicted"]["learned"]["rank"]["mean"] == 15.0
    page = markdown.render([row])
    assert cells(page, "learned")[-3:] == ["1 of 2", "15 ± 7.1", "12 ± 0"]
    assert cells(page, "plain")[-3:] == ["–"] * 3  # its pairing has no counterpart
    assert cells(page, tables.CONTROL)[-3:] == ["–"] * 3


def test_html_says_what_markdown_says(store, fill):
    fill(trained(), exact())
    rows = read(store, trained(), exact())
    page = html.render(rows)
    for row in rows:
        assert f'<section id="{row.experiment.id}">' in page
        for line in tables.arms(row).rows:
            assert all(f">{escape(cell)}</td>" in page for cell in line)
    assert '<span class="badge good">holds</span>' in page
    assert '<span class="badge open">holds under a condition</span>' in page
    assert page.count('class="plot"') == 1  # the exact one has no picture of its own


def test_a_rule_is_read_so_far_on_the_seeds_that_all_arms_have(store, fill):
    third = {("learned", 3): NUMBERS["learned", 2], ("plain", 3): {"linear_probe": 1.0, "z.collapsed": 0.0}}
    fill(trained(seeds=(1, 2, 3)), numbers=NUMBERS | third, without=[("learned", 3)])
    (row,) = read(store, trained(seeds=(1, 2, 3)))
    assert row.verdict is None
    assert row.so_far.outcome == "holds"  # seed 3 of the plain arm, which would refute it, has no pair yet
    page = markdown.render([row])
    assert "5 of 6 trials are there; on the seeds that all arms have: holds (all 3 parts hold)" in page


def test_missing_trials_are_told_and_what_is_there_is_shown(store, fill):
    fill(trained(), without=[("plain", 2)])
    rows = read(store, trained())
    page = markdown.render(rows)
    assert cells(page, "[zhang2022-made](#zhang2022-made)")[2:4] == [
        "not finished",
        "3 of 4 trials are there",
    ]
    assert "Verdict: **not finished**: 3 of 4 trials are there" in page
    assert cells(page, "plain")[1] == "30.0 %"
    assert cells(page, "all")[1:] == ["0", "0", "0", "0", "1", "1"]
    assert "3 of 4 trials are there" in html.render(rows)


def test_a_run_that_diverged_is_counted(store, fill):
    numbers = NUMBERS | {("plain", 2): {"diverged": 1.0, "z.collapsed": 0.0}}
    fill(trained(), numbers=numbers)
    page = markdown.render(read(store, trained()))
    assert cells(page, "plain")[1] == "30.0 % (n = 1)"
    assert cells(page, "plain")[-1] == "1 of 1 (n = 1)"
    assert "the run diverged, it has no linear_probe" in page


def test_arguments_that_say_less_do_not_stand_for_those_that_say_more(store, fill):
    fill(exact(), without=[("more", None)])
    (row,) = read(store, exact())
    assert len(row.missing) == 1
    assert not row.records["more"]


def test_a_setting_newer_than_a_record_does_not_part_them(store, fill):
    fill(trained())
    for path in store.folder.glob("*.json"):
        content = json.loads(path.read_text())
        if content["spec"]["kind"] == "training":
            del content["spec"]["settings"]["accumulate"]
            path.write_text(json.dumps(content))
    (row,) = read(Store(store.folder), trained())
    assert len(row.missing) == 0


def test_the_newest_of_equal_trials_counts(store, fill):
    fill(exact())
    (path,) = [p for p in store.folder.glob("*.json") if "0.00789" in p.read_text()]
    content = json.loads(path.read_text())
    content["result"]["numbers"]["left"] = 0.5
    for name, finished in (("f", "2001-01-01"), ("0", "2999-01-01")):  # its name says nothing of its age
        (store.folder / f"{name}.json").write_text(json.dumps(content | {"finished": finished}))
        (row,) = read(Store(store.folder), exact())
        assert row.numbers["more"][None]["left"] == (0.00789 if name == "f" else 0.5)


def test_two_builds_give_equal_bytes(store, fill):
    fill(trained(), exact())
    first, second = (read(Store(store.folder), trained(), exact()) for _ in range(2))
    assert markdown.render(first) == markdown.render(second)
    assert html.render(first) == html.render(second)


def test_hostile_text_is_shown_and_does_nothing(store, fill):
    experiment = trained(title=HOSTILE, claim=HOSTILE, section=HOSTILE)
    fill(experiment)
    (row,) = read(store, experiment)
    records = {
        arm: {seed: replace(r, commit=HOSTILE, environment={HOSTILE: HOSTILE}) for seed, r in of_seed.items()}
        for arm, of_seed in row.records.items()
    }
    row = replace(row, records=records)
    page, text = html.render([row]), markdown.render([row])
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in text.replace("\\<", "")
    assert not re.search(r"(?<!\\)\[x\]", text)
    assert cells(text, "[zhang2022-made](#zhang2022-made)")[2] == "holds"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("W_p^T W_p, tr(U U^T)", "W_p^T W_p, tr(U U^T)"),
        ("_a_ __b", "\\_a\\_ \\_\\_b"),
        ("a < b >= c", "a \\< b >= c"),
        ("x | y\nz", "x \\| y z"),
        ("&lt; \\ `c` *d* ~e~", "&amp;lt; \\\\ \\`c\\` \\*d\\* \\~e\\~"),
    ],
)
def test_plain_markdown(text, expected):
    assert markdown.plain(text) == expected


@pytest.mark.parametrize(
    ("measure", "values", "said"),
    [
        ("linear_probe", [0.8123], "81.2 %"),
        ("linear_probe", [0.8, 0.9], "85.0 ± 7.1 %"),
        ("z.std", [0.012345], "0.0123"),
        ("z.std", [1.0, 2.0], "1.5 ± 0.71"),
        ("z_train.collapsed", [1.0, 0.0, 1.0], "2 of 3"),
        ("diverged", [0.0], "0 of 1"),
        ("collapsed", [0.4321], "0.432"),  # of starts of one trial, a share
        ("bound", [123456.0], "1.23e+05"),
    ],
)
def test_how_numbers_are_rounded(measure, values, said):
    assert measures.spread(measure, ledger.summarise(values)) == said


def test_the_measures_of_a_rule():
    rule = Under("x", trained().rule, Always("plain", "left", low=0))
    assert measures.read_by(rule) == ("linear_probe", "z.collapsed", "p.healthy", "left")


# the command


@pytest.fixture
def pages(store, fill, tmp_path, monkeypatch) -> Path:
    """A folder with the pages of two made-up experiments, written by the command."""
    made = {experiment.id: experiment for experiment in (trained(), exact())}
    monkeypatch.setattr(command, "EXPERIMENTS", made)
    monkeypatch.chdir(tmp_path)
    fill(*made.values())
    assert command.main(["--store", "store", "--write"]) == 0
    return tmp_path / "docs/results"


def change(store: Store, old: str, new: str) -> None:
    (path,) = [path for path in store.folder.glob("*.json") if old in path.read_text()]
    path.write_text(path.read_text().replace(old, new))


def test_check_passes_on_what_write_wrote(pages):
    assert command.main(["--store", "store", "--check"]) == 0
    assert (pages / "ledger.html").stat().st_size > 10**6


def test_check_names_the_first_difference_after_one_number_changed(pages, store, capsys):
    change(store, "0.00789", "0.00678")
    assert command.main(["--store", "store", "--check"]) == 1
    said = capsys.readouterr().err
    number = next(
        n for n, line in enumerate((pages / "ledger.md").read_text().splitlines(), 1) if "0.00789" in line
    )
    assert f"line {number} is" in said
    assert "0.00789" in said
    assert "0.00678" in said


def test_check_fails_where_the_page_is_not_there_or_ends_elsewhere(pages, capsys):
    page = (pages / "ledger.md").read_text()
    (pages / "ledger.md").write_text(page + "more\n")
    assert command.main(["--store", "store", "--check"]) == 1
    assert "the store gives\n  (nothing)" in capsys.readouterr().err
    (pages / "ledger.md").unlink()
    assert command.main(["--store", "store", "--check"]) == 1
    assert "not there" in capsys.readouterr().err


def test_a_papers_own_page_keeps_its_words_and_gets_the_verdicts(pages, store, capsys):
    own = pages.parents[1] / "docs" / "papers" / "zhang2022.md"
    own.parent.mkdir()
    own.write_text("# Words\n\nof mine\n\n## Its ledger\n\noutdated\n")
    assert command.main(["--store", "store", "--check"]) == 1
    assert "zhang2022.md: line 7 is\n  outdated" in capsys.readouterr().err
    for _ in range(2):
        assert command.main(["--store", "store", "--write"]) == 0
        assert own.read_text().startswith("# Words\n\nof mine\n\n## Its ledger\n")
        assert own.read_text().count("](../results/ledger.md#zhang2022-") == 1
        assert "outdated" not in own.read_text()
    assert command.main(["--store", "store", "--check"]) == 0


def test_a_papers_page_without_a_place_for_its_verdicts_is_one_line_and_status_2(pages, capsys):
    own = pages.parents[1] / "docs" / "papers" / "zhang2022.md"
    own.parent.mkdir()
    own.write_text("# Words\n")
    assert command.main(["--store", "store", "--write"]) == 2
    assert "zhang2022.md: no heading '## Its ledger'" in capsys.readouterr().err


def test_check_fails_where_the_html_cannot_be_built(pages, monkeypatch, capsys):
    def broken(name, extra):
        raise command.UsageError("plotly is not installed")

    monkeypatch.setattr("stopgrad.experiments.page.html.require", broken)
    assert command.main(["--store", "store", "--check"]) == 1
    assert "plotly is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"left":0.00789', '"left":"high"', "cannot be read"),
        ('"left":0.00789', '"other":0.00789', "no measure 'left'"),
        ('{"spec"', '"spec"', "not a finished trial"),
    ],
)
def test_damaged_records_are_one_line_and_status_2(pages, store, capsys, old, new, says):
    path = next(path for path in store.folder.glob("*.json") if "0.00789" in path.read_text())
    text = re.sub(r"([:,{]) ", r"\1", path.read_text()).strip()
    assert old in text
    path.write_text(text.replace(old, new))
    capsys.readouterr()
    assert command.main(["--store", "store", "--check"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_no_store_is_one_line_and_status_2(tmp_path, capsys):
    assert command.main(["--store", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# all experiments


def empty(experiment: Experiment) -> Row:
    return Row(experiment, None, frozenset("1"), {arm.name: {} for arm in experiment.arms})


def test_every_experiment_has_a_section_a_line_and_no_picture_without_trials():
    rows = [empty(experiment) for experiment in EXPERIMENTS.values()]
    page, text = html.render(rows), markdown.render(rows)
    assert 'class="plot"' not in page
    for name in EXPERIMENTS:
        assert f'<section id="{name}">' in page
        assert text.count(f"\n### {name}\n") == 1
        assert f"[{name}](#{name.replace('.', '')})" in text


def test_the_papers_have_names():
    assert {experiment.paper for experiment in EXPERIMENTS.values()} == set(tables.NAMES)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_of_an_experiment_and_empty_without_arms(name):
    figure = FIGURES[name](Row(EXPERIMENTS[name], None, frozenset("1"), {}))
    assert figure.data == ()
    assert figure.layout.height > 0


SEED_FIGURES = [f"tian2021-fig{n}" for n in range(2, 11)] + ["halvagal2023-fig4", "halvagal2023-fig5"]


@pytest.mark.parametrize("name", SEED_FIGURES)
def test_the_seed_figures_are_drawn(name):
    assert name in FIGURES


def record(numbers: dict, series: dict | None = None) -> Record:
    return Record({}, "", {}, None, 1.0, "", Result(numbers, series or {}))


def test_a_table_is_drawn_as_arms_seeds_paper_and_control():
    numbers = {
        arm: {s: record(n) for (a, s), n in NUMBERS.items() if a == arm} for arm in ("learned", "plain")
    }
    control = {1: record({"linear_probe": 0.5}), 2: record({"linear_probe": 0.6})}
    figure = arms.draw(Row(trained(), None, frozenset(), numbers, control), ("linear_probe", "z.std", "none"))
    first = [trace for trace in figure.data if trace.xaxis == "x"]
    found = {name: [t for t in first if t.name == name] for name in {t.name for t in first}}
    assert [list(t.x) for t in found["a seed"]] == [[0.8, 0.9], [0.3, 0.4]]
    assert [t.x[0] for t in found["mean ± standard deviation"]] == pytest.approx([0.85, 0.35])
    assert found["mean ± standard deviation"][0].error_x.array[0] == pytest.approx(0.0707, abs=1e-4)
    assert list(found["the paper's number"][0].x) == [0.666]
    assert list(found["untrained encoder"][0].x) == pytest.approx([0.55, 0.55])
    assert {trace.xaxis for trace in figure.data} == {"x", "x2"}
    assert sum(bool(trace.showlegend) for trace in figure.data) == 4


def test_a_drawn_line_has_no_point_that_its_axis_cannot_show():
    from stopgrad.experiments.page.figures.series import drawn

    assert drawn([0, 1, 2, 3], [5, 0, None, 7], "xy") == ([1, 2, 3], [None, None, 7])
    assert drawn([0, 1], [5, -1], "") == ([0, 1], [5, -1])


def test_exact_figures_draw_their_series():
    experiment = EXPERIMENTS["tian2021-fig3"]
    p, s = [-1.0, 0.0, -1.0, 0.0], [0.1, 0.1, 1.0, 1.0]
    series = {"p": p, "s": s, "collapsed": [True, False, False, False]}
    row = Row(experiment, None, frozenset(), {"eta 0": {None: record({}, series)}})
    (drawn_map,) = [trace for trace in draw(row).data if trace.type == "heatmap"]
    assert drawn_map.z.tolist() == [[1, 0], [0, 0]]


def test_a_picture_leaves_the_white_ground_and_its_inks_behind():
    figure = draw(empty(EXPERIMENTS["tian2021-fig4"]))
    figure.add_scatter(x=[1], y=[2], marker={"color": html.style.INK})
    page = html.picture(figure)
    assert '"paper_bgcolor":"rgba(0,0,0,0)"' in page
    assert html.style.INK not in page
    assert "<h3>Fixed points of p on the parabola</h3>" in page
    assert "At half the threshold" in page


def test_the_committed_page_is_what_the_committed_store_gives(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert command.main(["--check"]) == 0, capsys.readouterr().err


def test_trials_of_one_spec_are_counted_once(store, fill):
    fill(trained())
    (row,) = read(store, trained())
    again = replace(row, experiment=trained(id="zhang2022-again"))
    assert dict(tables.facts([row, again]))["trials"] == "6"


def test_an_unknown_trial_is_not_in_the_store(store):
    store.folder.mkdir()
    assert store.latest(Trial("exact", {}, "tian2021.integral")) is None
