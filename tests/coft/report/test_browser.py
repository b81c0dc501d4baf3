"""The report in a browser. Needs Chromium (`apt-get install chromium`) and `pip install playwright`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from coft.report.write import write_report
from tests.coft import browsers

from .runs import HOSTILE, write_csv, write_images, write_run

pytest.importorskip("playwright.sync_api", reason="needs a browser: pip install playwright")
browser, new_page, pytestmark = browsers.browser, browsers.new_page, browsers.needs_chromium
CLASSES = ["forest", "sea", *HOSTILE]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    paths = write_images(folder / "images", [f"{i} <img src=x>.png" for i in range(160)])
    run = write_run(folder / "run", paths, CLASSES)
    write_csv(run / "skipped.csv", [["path", "problem"], ["<u>x</u>.png", "the file is empty"]])
    write_csv(run / "duplicates.csv", [["group", "path"], ["1", paths[0]], ["1", paths[1]]])
    Path(paths[7]).unlink()
    return write_report(run)


@pytest.fixture
def open_file(new_page: Callable[..., Any], report: Path) -> Callable[..., Any]:
    """Open the page: open_file(width, "dark")."""

    def start(width: int = 1280, scheme: str = "light") -> Any:
        page = new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("dialog", lambda dialog: (page.problems.append("dialog"), dialog.dismiss()))
        page.goto(report.as_uri())
        return page

    return start


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_without_an_error(open_file: Callable[..., Any], width: int, scheme: str) -> None:
    page = open_file(width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
    page.wait_for_function("[...document.images].every(element => element.complete)")
    assert page.evaluate("document.images.length") > 100
    assert page.evaluate("[...document.images].filter(element => !element.naturalWidth).length") == 0
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert page.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(open_file: Callable[..., Any], scheme: str) -> None:
    page = open_file(1280, scheme)
    for selector in ("body", "small", ".warnings li", "figcaption", "nav a", "dt", "table.map td"):
        ratio = page.evaluate(CONTRAST, selector)
        assert ratio >= 4.5, (selector, ratio)


CONTRAST = """selector => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const numbers = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = rgb => rgb.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  return Math.min(...[...document.querySelectorAll(selector)].map(element => {
    let back = numbers(getComputedStyle(document.body).backgroundColor);
    const shown = numbers(getComputedStyle(element).backgroundColor), share = shown[3] / 255;
    back = back.map((v, i) => v * (1 - share) + shown[i] * share);
    const pair = [light(numbers(getComputedStyle(element).color)), light(back)].sort((a, b) => b - a);
    return (pair[0] + .05) / (pair[1] + .05); })); }"""


def test_images_and_figures_have_a_text(open_file: Callable[..., Any]) -> None:
    page = open_file()
    assert page.evaluate("[...document.images].filter(element => !element.alt.includes(',')).length") == 0
    named = page.evaluate("[...document.querySelectorAll('svg, .broken, .scroll')].map(element => element.ariaLabel)")
    assert len(named) > 5 and all(named)
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(element => +element.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.get_by_role("navigation").count() == 1 and page.get_by_role("main").count() == 1
