"""The explorer as a person uses it."""

import json
import time

import pytest
from axe_playwright_python.sync_playwright import Axe

PLOT = ".plot .main-svg"


def set_slider(page, label, value):
    """By the number beside it."""
    page.get_by_label(f"{label}, as a number").fill(str(value))
    page.get_by_label(f"{label}, as a number").press("Enter")


def regime(page):
    return page.locator(".regime")


def solution(page):
    """The line of the first picture that is the solution: x and y of its start and end."""
    return page.evaluate(
        "() => { const t = document.querySelector('.plot').data.find((one) => one.name === 'start');"
        " return [t.x[0], t.y[0]]; }"
    )


def test_moving_a_slider_changes_the_regime_in_words(open_page):
    page = open_page("/")
    page.wait_for_selector(PLOT)
    assert "A feature can be kept" in regime(page).inner_text()
    set_slider(page, "η, weight decay", 0.1)
    regime(page).get_by_text("Alignment window").wait_for()
    set_slider(page, "η, weight decay", 0.3)
    regime(page).get_by_text("Collapse is unavoidable: η = 0.3 > τ² / (4 (1 + σ²)) = 0.1667").wait_for()
    assert "This start collapses" in regime(page).inner_text()


def test_a_click_into_the_plane_starts_a_solution_there(open_page):
    page = open_page("/dynamics/mode")
    page.wait_for_selector(PLOT)
    box = page.locator(".plot .nsewdrag").first.bounding_box()
    page.mouse.click(box["x"] + 0.1 * box["width"], box["y"] + 0.9 * box["height"])
    regime(page).get_by_text("This start collapses").wait_for()
    assert solution(page) == pytest.approx([-0.75, 0.15], abs=0.05)
    assert (
        float(page.get_by_label("p(0), predictor's eigenvalue at the start, as a number").input_value())
        < -0.6
    )


def test_an_address_is_the_whole_state(open_page):
    page = open_page("/dynamics/mode")
    page.wait_for_selector(PLOT)
    set_slider(page, "η, weight decay", 0.12)
    page.get_by_label("it follows the network").check()
    set_slider(page, "p(0), predictor's eigenvalue at the start", 0.7)
    page.wait_for_function(
        "() => document.querySelector('.plot').data.find((t) => t.name === 'start').x[0] === 0.7"
    )
    page.wait_for_function("() => document.querySelector('.plot').data.some((t) => t.type === 'heatmap')")
    path = page.evaluate("() => location.pathname + location.search")
    assert path == "/dynamics/mode?eta=0.12&fixed_tau=off&p0=0.7"
    again = open_page(path)
    again.wait_for_function("() => document.querySelector('.plot')?.data?.some((t) => t.type === 'heatmap')")
    data = "() => JSON.stringify(document.querySelector('.plot').data)"
    assert json.loads(again.evaluate(data)) == json.loads(page.evaluate(data))
    assert again.get_by_label("it follows the network").is_checked()


def test_views_by_keyboard_alone(open_page):
    page = open_page("/dynamics/mode")
    page.wait_for_selector(PLOT)
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        element = page.evaluate(
            "() => { const a = document.activeElement;"
            " return [a.tagName, a.id || a.textContent, getComputedStyle(a).outlineStyle]; }"
        )
        seen.add(element[1])
        if element[0] in ("A", "INPUT", "SELECT", "BUTTON"):
            assert element[2] != "none", f"{element} has the focus, and does not show it"
        if element[1] == "control-eta":
            before = page.locator("#control-eta").input_value()
            page.keyboard.press("ArrowRight")
            assert page.locator("#control-eta").input_value() != before
    assert {"Runs", "Ledger", "Two eigenvalues", "control-eta", "control-t_end", "Copy link", "Reset"} <= seen


@pytest.mark.parametrize("name", ["triplet", "eigenvalues", "matrices", "phase"])
def test_every_view_draws_and_follows_its_first_slider(name, open_page):
    page = open_page(f"/dynamics/{name}")
    page.wait_for_selector(PLOT)
    data = "() => JSON.stringify([...document.querySelectorAll('.plot')].map((one) => one.data))"
    before = page.evaluate(data)
    number = page.locator(".slider input[type=number]:not([disabled])").nth(1)
    number.fill("2" if name in ("triplet", "matrices") else "0.9")
    number.press("Enter")
    page.wait_for_function(f"(before) => ({data})() !== before", arg=before)


def test_the_axes_of_a_phase_diagram_exclude_each_other(open_page):
    page = open_page("/dynamics/phase")
    page.wait_for_selector(PLOT)
    chosen = page.get_by_label("horizontal axis").input_value()
    disabled = page.get_by_label("vertical axis").locator("option[disabled]")
    assert [option.get_attribute("value") for option in disabled.all()] == [chosen]


def test_runs_are_listed_compared_and_shown(open_page):
    page = open_page("/runs")
    page.wait_for_selector(PLOT)
    assert page.locator("tbody tr").count() == 2
    page.get_by_label("compare byol").uncheck()
    page.wait_for_function("() => document.querySelector('.plot').data.length === 1")
    page.get_by_label("measure").select_option("effective_rank")
    page.wait_for_function("() => location.search.includes('measure=effective_rank')")
    page.get_by_role("link", name="byol", exact=True).click()
    page.wait_for_selector("#charts .main-svg")
    page.wait_for_selector("#neighbours img")
    assert page.locator("#neighbours img").count() > 50
    page.wait_for_selector("#map .main-svg")
    page.get_by_text("the run has ended").wait_for()


def test_a_run_is_followed_while_it_goes_on(open_page, runs):
    page = open_page("/runs/no-predictor")
    page.wait_for_selector("#charts .main-svg")
    metrics = runs / "no-predictor" / "metrics.jsonl"
    last = [json.loads(line) for line in metrics.read_text().splitlines()][-1]
    points = (
        "() => document.querySelector('#charts .plot').calcdata.reduce((sum, one) => sum + one.length, 0)"
    )
    before = page.evaluate(points)
    with metrics.open("a") as file:
        for i in range(1, 6):
            row = {
                **last,
                "kind": "epoch",
                "step": last["step"] + i,
                "epoch": last["epoch"] + i,
                "loss": -0.9,
            }
            file.write(json.dumps(row) + "\n")
    page.wait_for_function(f"(before) => ({points})() > before", arg=before)
    assert page.get_by_role("button", name="Copy link").is_visible()


def test_the_ledger_is_narrowed_and_a_claim_opened(open_page):
    page = open_page("/ledger")
    page.wait_for_selector("tbody tr")
    assert page.locator("tbody tr").count() == 64
    page.get_by_label("paper").select_option(label="Shi et al. 2020 (RAFT)")
    assert page.get_by_role("status").filter(has_text="10 of 64 claims").count() == 1
    page.reload()
    page.wait_for_selector("tbody tr")
    assert page.locator("tbody tr").count() == 10
    page.get_by_role("link", name="raft2021-thm4.1").click()
    page.get_by_role("heading", name="raft2021-thm4.1").wait_for()
    page.go_back()
    page.wait_for_selector("tbody tr")
    assert page.locator("tbody tr").count() == 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "path", ["/dynamics/mode", "/dynamics/phase", "/runs", "/runs/byol", "/ledger", "/ledger/tian2021-fig3"]
)
def test_nothing_serious_for_screen_readers(path, scheme, open_page):
    page = open_page(path, color_scheme=scheme)
    page.wait_for_selector("tbody tr" if path == "/ledger" else PLOT)
    found = Axe().run(page).response["violations"]
    serious = [
        (one["id"], [node["html"][:200] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert not serious


@pytest.mark.parametrize("path", ["/dynamics/mode", "/dynamics/matrices", "/runs", "/ledger"])
def test_a_telephone_need_not_scroll_sideways(path, open_page):
    page = open_page(path)
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_selector("tbody tr" if path == "/ledger" else PLOT)
    page.wait_for_function("() => document.documentElement.scrollWidth <= 390")


def drawn_paths(page):
    """Every line on the page, as it is drawn."""
    return page.evaluate(
        "() => [...document.querySelectorAll('.plot .js-line')].map((e) => e.getAttribute('d'))"
    )


@pytest.mark.parametrize("query", ["", "?fixed_tau=off"])
def test_lines_that_moved_are_where_a_new_page_draws_them(query, open_page):
    page = open_page(f"/dynamics/mode{query}")
    page.wait_for_selector(PLOT)
    for value in (0.05, 0.06, 0.2, 0.07):  # at 0.2 there are fewer lines
        set_slider(page, "η, weight decay", value)
        regime(page).get_by_text(f"η = {value:.4g}").first.wait_for()
        time.sleep(0.3)
    page.wait_for_function("() => location.search.includes('eta=0.07')")
    again = open_page(page.evaluate("() => location.pathname + location.search"))
    for one in (page, again):
        regime(one).get_by_text("This start").first.wait_for()
        one.wait_for_load_state("networkidle")
        one.wait_for_timeout(500)
    assert drawn_paths(page) == drawn_paths(again)
    assert len(drawn_paths(page)) > 5


def test_a_move_does_not_wait_for_the_basin_of_the_one_before(open_page):
    """The basin of a small decay takes seconds; it is dropped by the page, and given up by the server."""
    page = open_page("/dynamics/mode?fixed_tau=off&eta=0.001")
    page.wait_for_selector(PLOT)
    answered = (
        "() => performance.getEntriesByType('resource').filter((e) => e.name.includes('basin=')).at(-1)"
    )
    for value in (0.0011, 0.0012, 0.0013):
        with page.expect_request("**basin=true**"):
            set_slider(page, "η, weight decay", value)
        time.sleep(0.1)  # it is under way
        with page.expect_response("**basin=false**") as answer:
            set_slider(page, "η, weight decay", value + 0.01)
        answer.value.finished()
        assert page.evaluate(answered)["duration"] < 600


def test_a_moved_slider_is_drawn_at_once(open_page):
    """One request is under way at a time, and the last state is what is drawn."""
    page = open_page("/dynamics/mode")
    page.wait_for_selector(PLOT)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(
        "() => { const r = document.getElementById('control-eta');"
        " for (let i = 0; i < 200; i++) { r.value = i; r.dispatchEvent(new Event('input')); } }"
    )
    shown = float(page.locator(".slider input[type=number]").first.input_value())
    regime(page).get_by_text(f"η = {shown:.4g}").first.wait_for()
    time.sleep(1)
    assert 1 <= len(asked) < 20
