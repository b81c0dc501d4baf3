"""The review in a browser. Needs Chromium (`apt-get install chromium`) and `pip install playwright`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coft.engine.class_names import Classes, read_classes
from coft.review.server import Server
from tests.coft import browsers

from .reviewed_runs import CLASSES, HOSTILE

playwright = pytest.importorskip("playwright.sync_api", reason="needs a browser: pip install playwright")
browser, new_page, pytestmark = browsers.browser, browsers.new_page, browsers.needs_chromium


@pytest.fixture
def open_file(start_server: Callable[[], Server], new_page: Callable[..., Any]) -> Callable[..., Any]:
    """Open the page of a review: open_file(width)."""

    def start(width: int = 1280) -> Any:
        page = new_page(viewport={"width": width, "height": 900})
        page.server = start_server()
        page.on(
            "request", lambda request: request.url.startswith((page.server.url, "data:")) or page.problems.append("x")
        )
        page.goto(page.server.url)
        page.wait_for_selector("#cards article")
        return page

    return start


def card(page: Any, name: str) -> Any:
    return page.locator("#cards article").filter(has=page.get_by_role("heading", name=name, exact=True))


def wait_for_changes(page: Any, times: int) -> None:
    """Wait until the page counts `times` changes."""
    page.locator("#status").filter(has_text=f"{times} change").wait_for()


@pytest.mark.parametrize("width", [1280, 390])
def test_classes_are_edited_and_saved(width: int, open_file: Callable[..., Any], run_folder: Path) -> None:
    page = open_file(width)
    assert page.locator("#suggestion-list li").count() >= 2
    name = card(page, "hill").get_by_label("Name", exact=True)
    name.fill("mountain")
    name.press("Enter")
    wait_for_changes(page, 1)
    shares = card(page, "mountain").locator(".share").inner_text()
    shares_shown = re.search(r"30 images after training · zero-shot (\S+) % → (\S+) %", shares)
    assert shares_shown and float(shares_shown[1]) < 5 and float(shares_shown[2]) > 20
    card(page, "mountain").get_by_text("What zero-shot CLIP assigns").click()
    playwright.expect(card(page, "mountain").locator("details img")).to_have_count(8)
    synonyms = card(page, "forest").get_by_label("Synonyms")
    synonyms.fill(" woods |  big wood| ")
    synonyms.press("Tab")
    page.get_by_role("button", name="Drop “fog”").click()
    card(page, HOSTILE).get_by_role("button", name="Merge").click()
    page.get_by_label("into").select_option(label="sea")
    page.keyboard.press("Enter")
    wait_for_changes(page, 4)
    assert page.locator("#cards article").count() == 3 and card(page, "sea").locator("img").count() == 16
    assert "60 images after training" in card(page, "sea").locator(".share").inner_text()
    page.get_by_role("button", name="Save classes").click()
    page.wait_for_selector("#saved:not([hidden])")
    assert str(run_folder / "classes-2.txt") in page.locator("#saved-command").inner_text()
    expected = Classes(
        ["forest", "sea", "mountain"],
        {"forest": ("woods", "big wood"), "sea": ("ocean", HOSTILE)},
        CLASSES.descriptions,
    )
    assert read_classes(str(run_folder / "classes-2.txt")) == expected
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    page.wait_for_load_state("networkidle")
    page.get_by_role("button", name="Done").click()
    page.get_by_role("heading", name="The review has ended").wait_for()
    assert page.server.ended.is_set() and page.problems == []


def test_a_class_is_split_by_keyboard_and_the_split_undone(open_file: Callable[..., Any]) -> None:
    page = open_file()
    order = []
    for _ in range(4):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.textContent"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert order[0] == "Skip to the classes" and order[2:] == ["Rename “hill”", "Keep"]
    card(page, "hill").get_by_role("button", name="Split").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#split[open]")
    assert page.evaluate("document.activeElement.id") == "split-1"
    assert page.locator("#split img").count() == 24
    page.keyboard.press("Enter")
    assert page.locator("#split-problem").inner_text() == "Both groups need a name."
    page.keyboard.type("snow")
    page.keyboard.press("Enter")
    wait_for_changes(page, 1)
    names = [heading.inner_text() for heading in page.locator("#cards h3").all()]
    assert names[names.index("hill") + 1] == "snow" and len(names) == 6
    assert page.evaluate("document.activeElement.value") == "hill"
    page.get_by_role("button", name="Undo").focus()
    page.keyboard.press("Enter")
    assert page.locator("#cards article").count() == 5 and card(page, "snow").count() == 0
    card(page, "hill").get_by_role("button", name="Split").click()
    page.wait_for_selector("#split[open]")
    page.keyboard.press("Escape")
    assert not page.locator("#split").is_visible() and page.problems == []


def test_a_class_is_added_and_the_addition_undone(open_file: Callable[..., Any], run_folder: Path) -> None:
    page = open_file()
    page.get_by_role("button", name="Add a class").click()
    page.keyboard.press("Enter")
    assert page.locator("#add-problem").inner_text() == "A class needs a name."
    page.keyboard.type(" snow  field ")
    page.keyboard.press("Enter")
    wait_for_changes(page, 1)
    assert page.locator("#cards h3").first.inner_text() == "snow field"
    assert page.evaluate("document.activeElement.value") == "snow field"
    assert "0 images after training" in card(page, "snow field").locator(".share").inner_text()
    assert card(page, "snow field").get_by_role("button", name="Split").count() == 0
    page.get_by_role("button", name="Save classes").click()
    page.wait_for_selector("#saved:not([hidden])")
    assert read_classes(str(run_folder / "classes-2.txt")).names[0] == "snow field"
    page.get_by_role("button", name="Undo").click()
    assert card(page, "snow field").count() == 0 and page.problems == []


def test_a_suggestion_is_accepted_or_rejected(open_file: Callable[..., Any]) -> None:
    page = open_file()
    before = page.locator("#suggestion-list li").count()
    page.get_by_role("button", name="Keep fog as it is").click()
    assert page.locator("#suggestion-list li").count() == before - 1 and card(page, "fog").count() == 1
    page.get_by_role("button", name=re.compile("Merge “hill” into")).first.click()
    assert card(page, "hill").count() == 0 and page.locator("#suggestion-list li").count() == 0
    assert page.locator("#no-suggestion").is_visible()
    page.get_by_role("button", name="Undo").click()
    assert card(page, "hill").count() == 1 and page.locator("#suggestion-list li").count() == before - 1
    assert page.problems == []


def test_names_are_escaped_and_bad_names_refused(open_file: Callable[..., Any], run_folder: Path) -> None:
    page = open_file()
    assert card(page, HOSTILE).count() == 1 and page.locator("img[src=x]").count() == 0
    name = card(page, "forest").get_by_label("Name", exact=True)
    name.fill("</script><b>x</b>")
    name.press("Enter")
    wait_for_changes(page, 1)
    assert page.locator("#cards b").count() == 0
    for wrong, message in (("sea", "'sea', is listed twice"), ("a|b", "separates synonyms")):
        name = page.locator("#cards article").nth(2).get_by_label("Name", exact=True)
        name.fill(wrong)
        name.press("Enter")
        page.locator("#problem").filter(has_text=re.compile(message)).wait_for()
    page.problems.clear()  # the browser logs refused requests
    page.get_by_role("button", name="Save classes").click()
    page.wait_for_timeout(100)
    assert not (run_folder / "classes-2.txt").exists() and page.locator("#saved").is_hidden()


def test_images_and_fields_have_a_label(open_file: Callable[..., Any]) -> None:
    page = open_file()
    assert page.evaluate("[...document.images].every(element => element.alt.startsWith('image '))")
    fields = "[...document.querySelectorAll('input, select')].every(element => element.labels.length === 1)"
    assert page.evaluate(fields)
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(element => +element.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert page.get_by_role("main").count() == 1 and page.get_by_role("status").count() == 1
