"""A page that is one file, as the ledger's: opened from the disk, without a server."""

import pytest

from stopgrad.experiments.page import __main__ as ledger_page
from stopgrad.experiments.page import html

COUNTS = """() => {
    const all = [...document.querySelectorAll('.plot')];
    return [all.length, all.filter((one) => one.querySelector('.main-svg')).length];
}"""


@pytest.fixture(scope="module")
def ledger(store, tmp_path_factory):
    """The address of the ledger's page."""
    path = tmp_path_factory.mktemp("page") / "ledger.html"
    path.write_text(html.render(ledger_page.read(store)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser, ledger):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(ledger)
    yield page
    page.close()
    assert not said


def shown(page):
    return page.locator("main > div:visible").count()


def test_a_figure_is_drawn_as_it_comes_near(opened):
    every, drawn = opened.evaluate(COUNTS)
    assert every > 50
    assert drawn < 5  # the top of the page is its table
    opened.locator("#zhang2022-fig8").scroll_into_view_if_needed()
    opened.wait_for_function("() => document.querySelector('#zhang2022-fig8 .main-svg')")
    assert 0 < opened.evaluate(COUNTS)[1] < 20


def test_all_are_drawn_to_be_printed(opened):
    opened.pdf()
    every, drawn = opened.evaluate(COUNTS)
    assert drawn == every


def test_what_a_filter_hides_is_not_drawn_to_be_printed(opened):
    opened.get_by_label("does not hold here").check()
    opened.pdf()
    opened.get_by_role("radio", name="all").first.check()
    last = opened.locator("#zhang2022-infonce .plot")  # holds
    last.scroll_into_view_if_needed()
    opened.wait_for_function("() => document.querySelector('#zhang2022-infonce .main-svg')")
    drawn = last.locator(".main-svg").first.bounding_box()
    assert abs(drawn["width"] - last.bounding_box()["width"]) < 2


def test_a_verdict_and_a_paper_choose_what_is_shown(opened):
    all_of_it = shown(opened)
    opened.get_by_label("does not hold here").check()
    assert set(opened.locator("main .badge:visible").all_inner_texts()) == {"does not hold here"}
    fails = shown(opened)
    opened.get_by_label("Halvagal").check()
    assert 0 < shown(opened) < fails < all_of_it
    assert opened.locator("main > .is-fails.of-halvagal2023:visible").count() > 0
    assert opened.locator("main > .is-holds:visible, main > .of-raft2021:visible").count() == 0


def test_the_colours_follow_the_system(opened):
    opened.locator("#zhang2022-fig8").scroll_into_view_if_needed()
    first = opened.locator("#zhang2022-fig8 .main-svg text").first
    light = first.evaluate("(text) => text.style.fill")
    opened.emulate_media(color_scheme="dark")
    opened.wait_for_function(
        "(light) => document.querySelector('#zhang2022-fig8 .main-svg text').style.fill !== light", arg=light
    )
