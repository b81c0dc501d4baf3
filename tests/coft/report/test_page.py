"""The report page: content, hostile names, size, missing files and bad runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from coft.cli.main import report
from coft.core.errors import UserError
from coft.report.curves import nice_range, panels
from coft.report.formatting import percent
from coft.report.names import Signals
from coft.report.page import LIMIT, SHOWN_FIRST, measured, page, unlike_the_rest
from coft.report.run_folder import read_run
from coft.report.summary import class_rows, figures
from coft.report.write import write_report

from .runs import HOSTILE, write_csv, write_images, write_run

CLASSES = ["forest", "sea", "street"]


class ParsedPage(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text, self.open = "", list[str]()
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in ("meta", "link", "img", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "circle", "polyline"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def values(self, tag: str, key: str) -> list[str]:
        return [value for owner, name, value in self.attributes if (owner, name) == (tag, key)]


def parse(content: bytes) -> ParsedPage:
    parsed = ParsedPage(content.decode())
    assert parsed.open == []
    return parsed


def write_small_run(folder: Path, **summary: object) -> tuple[list[str], Path]:
    """Write a run on twelve images. Returns their paths and the folder of the run."""
    paths = write_images(folder / "images", [f"{i:02}.png" for i in range(12)])
    return paths, write_run(folder / "run", paths, CLASSES, **summary)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    paths = write_images(folder / "images", [f"{i:02}.png" for i in range(60)])
    return write_run(folder / "run", paths, CLASSES)


def test_a_page_has_all_sections(run: Path) -> None:
    parsed = parse(write_report(run).read_bytes())
    titles = (
        "Warnings",
        "Names that may be wrong",
        "Classes",
        "Curves",
        "Confusion between classes",
        "Gallery",
        "Files of the run",
    )
    assert all(title in parsed.text for title in titles)
    assert "80.0 %" in parsed.text and "zero-shot: 60.0 %" in parsed.text and "1 min 15 s" in parsed.text
    assert "fewer seeds than wanted" in parsed.text and "True and predicted classes" in parsed.text
    assert all(kind in parsed.text for kind in ("surest", "least sure", "not kept", "peers disagree", "changed since"))


def test_a_page_needs_no_other_resources(run: Path) -> None:
    parsed = parse(write_report(run).read_bytes())
    assert all(source.startswith("data:image/webp;base64,") for source in parsed.values("img", "src"))
    links = parsed.values("a", "href")
    anchors = {value for _, key, value in parsed.attributes if key == "id"}
    assert all(link[1:] in anchors for link in links if link.startswith("#"))
    assert all((run / unquote(link)).is_file() for link in links if not link.startswith("#"))
    assert not {"script", "iframe", "object"} & set(parsed.tags) and parsed.values("link", "href") == ["data:,"]
    assert all(parsed.values("img", "alt")) and len(parsed.values("img", "alt")) == parsed.tags.count("img") > 20


def test_every_image_links_to_its_file(run: Path) -> None:
    parsed = parse(page(read_run(run)))
    pictures = [link for link in parsed.values("a", "href") if link.endswith(".png")]
    assert len(pictures) == parsed.tags.count("img") and all((run / unquote(link)).is_file() for link in pictures)
    assert {Path(link).name for link in pictures} <= {f"{i:02}.png" for i in range(60)}
    assert all(path in parsed.text for path in (Path(link).name for link in pictures))


@pytest.mark.parametrize(("section_id", "table"), [("unsure", "least_sure.csv"), ("unlike", "unlike_rest.csv")])
def test_the_least_confident_images_and_those_unlike_the_rest_are_listed(
    section_id: str, table: str, run: Path
) -> None:
    content = write_report(run).read_bytes().decode()
    images = read_run(run).images.sort_values("confidence")[:SHOWN_FIRST]
    expected = images if section_id == "unsure" else unlike_the_rest(read_run(run), SHOWN_FIRST)
    section = content[content.index(f'id="{section_id}"') :].partition("</section>")[0]
    order = [unquote(link) for link in re.findall(r'href="([^"]+\.png)"', section)]
    assert [Path(link).name for link in order] == [Path(path).name for path in expected["path"]]
    rows = pd.read_csv(run / table)
    assert list(rows["path"]) == list(expected["path"]) and list(rows["class"]) == list(expected["class"])


def test_the_title_of_a_user_s_images_is_their_folder(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "pets", [f"{i}.png" for i in range(12)])
    folder = write_run(tmp_path / "run", paths, CLASSES, dataset="Folder", trainer="CoFT")
    assert "<title>CoFT on pets</title>" in write_report(folder).read_text()


def test_names_of_classes_and_files_are_escaped(tmp_path: Path) -> None:
    names = [f"<i onclick=x> {i} \"'\n\t.png" for i in range(24)]
    paths = write_images(tmp_path / "<b>images & more", names)
    folder = write_run(tmp_path / "run", paths, HOSTILE, dataset="<svg onload=x>", trainer="</h1><hr>")
    write_csv(folder / "skipped.csv", [["path", "problem"], ["<u>x</u>.png\n", "<u>why</u>"]])
    write_csv(folder / "duplicates.csv", [["group", "path"], ["1", paths[0]], ["1", "<u>.png"]])
    with (folder / "log.txt").open("a") as file:
        file.write("Warning: <u>of the log</u>\n")
    content = write_report(folder).read_bytes()
    parsed = parse(content)
    assert not {"script", "u", "i", "hr"} & set(parsed.tags)
    assert not [key for _, key, _ in parsed.attributes if key.startswith("on")]
    assert set(re.findall(r"<svg[^>]*>", content.decode())) == set(re.findall(r"<svg viewBox[^>]*>", content.decode()))
    for text in ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "'{{ 7*7 }}{% raw %}", "<u>why</u>"):
        assert text in parsed.text
    assert "<u>of the log</u>" in parsed.text and "\N{REPLACEMENT CHARACTER}" in parsed.text and "49" not in parsed.text


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_accuracy_is_estimated_only_from_calibrated_confidence(tmp_path: Path, calibrated: bool) -> None:
    run = read_run(write_small_run(tmp_path, calibrated=calibrated)[1])
    figures_by_title = {figure.title: figure for figure in figures(run)}
    title = "Estimated accuracy" if calibrated else "Mean confidence"
    assert figures_by_title[title].share == float(run.images["confidence"].mean())
    assert len({"Estimated accuracy", "Mean confidence"} & figures_by_title.keys()) == 1
    assert ("if no name is wrong or missing" in figures_by_title[title].meaning) == calibrated


def test_doubtful_names_come_before_the_least_sure_images(tmp_path: Path) -> None:
    run = read_run(write_small_run(tmp_path, calibrated=True)[1])
    good, bad = Signals(4, 4, fit=0.5, rival=0, believed=0.9), Signals(4, 4, fit=-0.2, rival=0, believed=0.9)
    plain, doubted = (page(run, [good] * (len(run.classes) - 1) + [last]).decode() for last in (good, bad))
    assert plain.index('id="unsure"') < plain.index('id="names"') and "Estimated accuracy" in plain
    assert doubted.index('id="names"') < doubted.index('id="unsure"') and "Estimated accuracy" not in doubted
    assert "1 name may be wrong, and then it is lower" in doubted and f"review.sh {run.folder}" in doubted
    alike = page(run, [good] * (len(run.classes) - 1) + [replace(bad, alike=0.5)]).decode()
    shares = ["neighbours are of the same class" in text for text in (doubted, alike)]
    assert shares == [False, True] and "50.0 % of its images" in alike


def test_an_untrained_run_has_no_figures_of_training(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", [f"{i}.png" for i in range(12)])
    trained, kept = (
        write_run(tmp_path / name, paths, CLASSES, **summary)
        for name, summary in (("trained", {}), ("kept", {"kept": "zero-shot CLIP"}))
    )
    training_figures = {"Labels kept", "Peers agree", "Changed"}
    titles = [{figure.title for figure in figures(read_run(folder))} for folder in (trained, kept)]
    assert training_figures <= titles[0] and titles[1] == titles[0] - training_figures
    texts = [parse(page(read_run(folder))).text for folder in (trained, kept)]
    words = ("not kept by the filter", "changed since", "From zero-shot to final classes")
    assert all(word in texts[0] and word not in texts[1] for word in words)
    untrained = "none: zero-shot CLIP predicts"
    assert untrained in texts[1] and untrained not in texts[0]


def test_a_resumed_run_is_reported_as_a_whole(tmp_path: Path) -> None:
    _, folder = write_small_run(tmp_path, seconds=59.5)
    write_csv(folder / "metrics.csv", [["epoch", "stage", "seconds"], [1, "phase1", 100.0], [2, "phase2", 155.5]])
    assert "2 min 36 s" in parse(page(read_run(folder))).text


def test_file_names_that_are_not_utf8_are_shown(tmp_path: Path) -> None:
    paths = write_images(tmp_path, [f"{i}.png" for i in range(8)])
    folder = write_run(tmp_path / "run", [*paths, str(tmp_path / "bad\udcff.png")], CLASSES)
    assert "bad\N{REPLACEMENT CHARACTER}.png" in page(read_run(folder)).decode()


def test_missing_images_have_a_placeholder(tmp_path: Path) -> None:
    paths, folder = write_small_run(tmp_path)
    before = parse(page(read_run(folder)))
    for path in paths:
        Path(path).unlink()
    after = parse(page(read_run(folder)))
    assert after.tags.count("figure") == before.tags.count("figure") > 10 and "img" not in after.tags
    assert [label for label in after.values("div", "aria-label") if label.endswith("cannot be read")]


def test_the_size_of_a_page_is_limited(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", [f"{i:04}.png" for i in range(200)], side=96)
    copies = [f"{path[:-8]}{'./' * turn}{path[-8:]}" for turn in range(10) for path in paths]
    folder = write_run(tmp_path / "run", copies, [f"class number {i} {'of many ' * 20}" for i in range(100)])
    content = page(read_run(folder))
    parsed = parse(content)
    assert LIMIT / 2 < len(content) <= LIMIT
    assert set(parsed.values("details", "id")) >= {f"class-{label}" for label in range(100)}
    for part in content.decode().split('<details id="class-')[1:]:
        assert part.split("</details>")[0].count("<img") >= 5


PARTS = ("report", "pseudo_labels.csv", "predictions.csv", "metrics.csv", "test_predictions.csv")


@pytest.mark.parametrize("missing", PARTS)
def test_a_page_is_written_without_some_of_the_files(tmp_path: Path, missing: str) -> None:
    _, folder = write_small_run(tmp_path)
    path = folder / missing
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
    else:
        path.unlink()
    parsed = parse(page(read_run(folder)))
    assert "Gallery" in parsed.text and ("wrong name" in parsed.text) == (
        missing not in ("report", "pseudo_labels.csv")
    )


def test_test_predictions_are_enough_for_a_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [], CLASSES, evidence=False, tested=False)
    for name in ("pseudo_labels.csv", "predictions.csv", "metrics.csv"):
        (folder / name).unlink()
    rows = [["a.png", "sea", "sea"], ["b.png", "sea", "street"]]
    write_csv(folder / "test_predictions.csv", [["image", "class", "end"], *rows])
    parsed = parse(page(read_run(folder)))
    assert "True and predicted classes" in parsed.text and "50.0 %" in parsed.text and "Gallery" not in parsed.text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: run.rename(run.with_name("other")), "no such folder"),
        (lambda run: [(run / name).unlink() for name in ("config.yaml", "summary.json")], "it is no run"),
        (lambda run: (run / "summary.json").unlink(), "is not finished"),
        (lambda run: (run / "summary.json").write_text("[]"), "cannot be read as the summary"),
        (lambda run: (run / "summary.json").write_text('{"results": 3}'), "cannot be read as the summary"),
        (lambda run: (run / "predictions.csv").write_text("a,b\n1,2\n"), "has no column 'path'"),
        (
            lambda run: (run / "predictions.csv").write_text("path,class,confidence\n,cat,0.5\n"),
            "has a row without path",
        ),
        (lambda run: (run / "predictions.csv").write_text('path,class\n"1'), "cannot be read as a table"),
        (lambda run: (run / "pseudo_labels.csv").write_bytes(b""), "cannot be read as a table"),
        (lambda run: (run / "report" / "frozen.safetensors").write_bytes(b"x"), "damaged"),
    ],
)
def test_a_bad_run_is_refused(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    run = write_run(tmp_path / "run", write_images(tmp_path / "images", ["a.png"] * 4), CLASSES)
    damage(run)
    with pytest.raises(UserError, match=message) as error:
        report([str(run)])
    assert str(run) in str(error.value) and "\n" not in str(error.value).strip()
    assert not list(tmp_path.rglob("report.html")) and not list(tmp_path.rglob("*.tmp*"))


def test_figures_equal_a_naive_loop(run: Path) -> None:
    finished = read_run(run)
    records, tested = finished.images.to_dict("records"), finished.tested.to_dict("records")
    rows = class_rows(finished, measured(finished))
    assert [row.name for row in rows] == CLASSES
    for row in rows:
        members = [record for record in records if record["class"] == row.name]
        correct = [line["predicted"] == line["class"] for line in tested if line["class"] == row.name]
        assert row.images == len(members)
        assert row.texts["By zero-shot"] == str(sum(record["zero_shot"] == row.name for record in records))
        assert row.texts["Mean confidence"] == percent(sum(r["confidence"] for r in members) / len(members))
        assert row.texts["Kept"] == percent(sum(r["kept_for"] != "" for r in members) / len(members))
        assert row.texts["Peers disagree"] == percent(sum(r["peer_a"] != r["peer_b"] for r in members) / len(members))
        assert row.texts["Accuracy"] == percent(sum(correct) / len(correct))
    values = {figure.title: percent(figure.share) for figure in figures(finished)}
    assert values["Peers agree"] == percent(sum(r["peer_a"] == r["peer_b"] for r in records) / len(records))
    assert values["Changed"] == percent(sum(r["zero_shot"] != r["class"] for r in records) / len(records))
    assert values["Labels kept"] == percent(sum(r["kept_for"] != "" for r in records) / len(records))


def test_copies_count_neither_for_the_filter_nor_for_the_peers(run: Path) -> None:
    before = class_rows(read_run(run), [])
    table = run / "predictions.csv"
    first, *rows = table.read_text().splitlines()
    table.write_text("\n".join([first, *rows, *(f"copy-of-{row}" for row in rows), ""]))
    after = class_rows(read_run(run), [])
    assert [row.images for row in after] == [2 * row.images for row in before]
    for name in ("By zero-shot", "Kept", "Peers disagree"):
        assert [row.texts[name] for row in after] == [row.texts[name] for row in before]


def test_axes_include_their_values() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        low = float(rng.normal() * 10.0 ** rng.integers(-3, 3))
        high = low + float(rng.random() * 10.0 ** rng.integers(-3, 3))
        start, end, step = nice_range(low, high)
        assert start <= low and high <= end + 1e-9 and 1 <= round((end - start) / step) <= 6
    assert nice_range(0, 1) == (0, 1, 0.5) and nice_range(50, 80)[:2] == (50, 80)


def test_infinite_values_are_not_drawn() -> None:
    rows = {"epoch": ["0", "inf", "2"], "stage": "phase1", "accuracy_both": ["inf", "50", "60"]}
    (panel,) = panels(pd.DataFrame(rows))
    assert len(panel.lines[0].points) == 1
    assert panels(pd.DataFrame(rows).assign(epoch="1e999")) == []


def test_curves_of_shares_are_in_percent() -> None:
    (panel,) = panels(pd.DataFrame({"epoch": [1, 2], "stage": "phase2", "coverage": [0.5, 0.9279]}))
    assert [line.last for line in panel.lines] == ["92.8"] and panel.ticks_y[-1][1] == "100"
