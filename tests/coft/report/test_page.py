"""The page: hostile names, its size, files that are gone, runs that are none."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
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
from coft.report.page import LIMIT, UNSURE, measured, page
from coft.report.run_folder import read_run
from coft.report.summary import class_rows, figures
from coft.report.write import write_report

from .runs import HOSTILE, write_csv, write_images, write_run

CLASSES = ["forest", "sea", "street"]


class Seen(HTMLParser):
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


def seen(content: bytes) -> Seen:
    parsed = Seen(content.decode())
    assert parsed.open == []
    return parsed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    paths = write_images(folder / "images", [f"{i:02}.png" for i in range(60)])
    return write_run(folder / "run", paths, CLASSES)


def test_a_page_has_what_a_run_found(run: Path) -> None:
    shown = seen(write_report(run).read_bytes())
    titles = (
        "Warnings",
        "Names that may be wrong",
        "Classes",
        "Curves",
        "Confusion between classes",
        "Gallery",
        "Files of the run",
    )
    assert all(title in shown.text for title in titles)
    assert "80.0 %" in shown.text and "zero-shot: 60.0 %" in shown.text and "1 min 15 s" in shown.text
    assert "fewer seeds than wanted" in shown.text and "True and predicted classes" in shown.text
    assert all(kind in shown.text for kind in ("surest", "least sure", "not kept", "peers disagree", "changed since"))


def test_everything_is_inside_the_page(run: Path) -> None:
    shown = seen(write_report(run).read_bytes())
    assert all(source.startswith("data:image/webp;base64,") for source in shown.values("img", "src"))
    links = shown.values("a", "href")
    anchors = {value for _, key, value in shown.attributes if key == "id"}
    assert all(link[1:] in anchors for link in links if link.startswith("#"))
    assert all((run / unquote(link)).is_file() for link in links if not link.startswith("#"))
    assert not {"script", "iframe", "object"} & set(shown.tags) and shown.values("link", "href") == ["data:,"]
    assert all(shown.values("img", "alt")) and len(shown.values("img", "alt")) == shown.tags.count("img") > 20


def test_every_picture_leads_to_its_file(run: Path) -> None:
    shown = seen(page(read_run(run)))
    pictures = [link for link in shown.values("a", "href") if link.endswith(".png")]
    assert len(pictures) == shown.tags.count("img") and all((run / unquote(link)).is_file() for link in pictures)
    assert {Path(link).name for link in pictures} <= {f"{i:02}.png" for i in range(60)}
    assert all(path in shown.text for path in (Path(link).name for link in pictures))


def test_the_least_sure_images_of_all_classes_come_first(run: Path) -> None:
    content = write_report(run).read_bytes().decode()
    images = read_run(run).images.sort_values("confidence")
    section = content[content.index('id="unsure"') :].partition("</section>")[0]
    order = [unquote(link) for link in re.findall(r'href="([^"]+\.png)"', section)]
    assert [Path(link).name for link in order] == [Path(path).name for path in images["path"][:UNSURE]]
    with (run / "least_sure.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = list(zip(images["path"], images["class"], strict=True))[:UNSURE]
    assert [(row["path"], row["class"]) for row in rows] == expected and len(images) < 10 * UNSURE


def test_a_user_s_own_images_go_by_the_name_of_their_folder(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "pets", [f"{i}.png" for i in range(12)])
    folder = write_run(tmp_path / "run", paths, CLASSES, dataset="Folder", trainer="CoFT")
    assert "<title>CoFT on pets</title>" in write_report(folder).read_text()


def test_names_of_classes_and_files_stay_text(tmp_path: Path) -> None:
    names = [f"<i onclick=x> {i} \"'\n\t.png" for i in range(24)]
    paths = write_images(tmp_path / "<b>images & more", names)
    folder = write_run(tmp_path / "run", paths, HOSTILE, dataset="<svg onload=x>", trainer="</h1><hr>")
    write_csv(folder / "skipped.csv", [["path", "problem"], ["<u>x</u>.png\n", "<u>why</u>"]])
    write_csv(folder / "duplicates.csv", [["group", "path"], ["1", paths[0]], ["1", "<u>.png"]])
    with (folder / "log.txt").open("a") as file:
        file.write("Warning: <u>of the log</u>\n")
    content = write_report(folder).read_bytes()
    shown = seen(content)
    assert not {"script", "u", "i", "hr"} & set(shown.tags)
    assert not [key for _, key, _ in shown.attributes if key.startswith("on")]
    assert set(re.findall(r"<svg[^>]*>", content.decode())) == set(re.findall(r"<svg viewBox[^>]*>", content.decode()))
    for text in ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "'{{ 7*7 }}{% raw %}", "<u>why</u>"):
        assert text in shown.text
    assert "<u>of the log</u>" in shown.text and "\N{REPLACEMENT CHARACTER}" in shown.text and "49" not in shown.text


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_accuracy_is_estimated_where_confidence_is_calibrated(tmp_path: Path, calibrated: bool) -> None:
    paths = write_images(tmp_path / "images", [f"{i}.png" for i in range(12)])
    run = read_run(write_run(tmp_path / "run", paths, CLASSES, calibrated=calibrated))
    shown = {figure.title: figure for figure in figures(run)}
    title = "Estimated accuracy" if calibrated else "Mean confidence"
    assert shown[title].share == float(run.images["confidence"].mean())
    assert len({"Estimated accuracy", "Mean confidence"} & shown.keys()) == 1
    assert ("if no name is wrong or missing" in shown[title].meaning) == calibrated


def test_where_nothing_was_trained_nothing_was_kept_or_changed(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", [f"{i}.png" for i in range(12)])
    trained, kept = (
        write_run(tmp_path / name, paths, CLASSES, **more)
        for name, more in (("trained", {}), ("kept", {"kept": "zero-shot CLIP"}))
    )
    of_training = {"Labels kept", "Peers agree", "Changed"}
    shown = [{figure.title for figure in figures(read_run(folder))} for folder in (trained, kept)]
    assert of_training <= shown[0] and shown[1] == shown[0] - of_training
    texts = [seen(page(read_run(folder))).text for folder in (trained, kept)]
    words = ("not kept by the filter", "changed since", "From zero-shot to final classes")
    assert all(word in texts[0] and word not in texts[1] for word in words)
    untrained = "none: zero-shot CLIP predicts"
    assert untrained in texts[1] and untrained not in texts[0]


def test_a_run_that_went_on_is_shown_as_a_whole(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", [f"{i:02}.png" for i in range(12)])
    folder = write_run(tmp_path / "run", paths, CLASSES, seconds=59.5)
    (folder / "log.txt").write_text("Warning: of the first part\n")
    (folder / "log.txt-2026-01-02-03-04-05").write_text("Warning: of the second part\n")
    write_csv(folder / "metrics.csv", [["epoch", "stage", "seconds"], [1, "phase1", 100.0], [2, "phase2", 155.5]])
    text = seen(page(read_run(folder))).text
    assert "of the first part" in text and "of the second part" in text
    assert "log.txt-2026-01-02-03-04-05" in text
    assert "2 min 36 s" in text


def test_names_that_are_no_text_are_shown(tmp_path: Path) -> None:
    paths = write_images(tmp_path, [f"{i}.png" for i in range(8)])
    folder = write_run(tmp_path / "run", [*paths, str(tmp_path / "bad\udcff.png")], CLASSES)
    assert "bad\N{REPLACEMENT CHARACTER}.png" in page(read_run(folder)).decode()


def test_files_that_are_gone_leave_a_place(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", [f"{i:02}.png" for i in range(12)])
    folder = write_run(tmp_path / "run", paths, CLASSES)
    before = seen(page(read_run(folder)))
    for path in paths:
        Path(path).unlink()
    after = seen(page(read_run(folder)))
    assert after.tags.count("figure") == before.tags.count("figure") > 10 and "img" not in after.tags
    assert [label for label in after.values("div", "aria-label") if label.endswith("cannot be read")]


def test_a_page_of_many_classes_has_its_size(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", [f"{i:04}.png" for i in range(200)], side=96)
    many = [f"{path[:-8]}{'./' * turn}{path[-8:]}" for turn in range(10) for path in paths]
    folder = write_run(tmp_path / "run", many, [f"class number {i} {'of many ' * 20}" for i in range(100)])
    content = page(read_run(folder))
    shown = seen(content)
    assert LIMIT / 2 < len(content) <= LIMIT
    assert set(shown.values("details", "id")) >= {f"class-{label}" for label in range(100)}
    for part in content.decode().split('<details id="class-')[1:]:
        assert part.split("</details>")[0].count("<img") >= 5


PARTS = ("report", "pseudo_labels.csv", "predictions.csv", "metrics.csv", "test_predictions.csv")


@pytest.mark.parametrize("gone", PARTS)
def test_a_page_is_made_of_what_there_is(tmp_path: Path, gone: str) -> None:
    paths = write_images(tmp_path / "images", [f"{i:02}.png" for i in range(12)])
    folder = write_run(tmp_path / "run", paths, CLASSES)
    path = folder / gone
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
    else:
        path.unlink()
    shown = seen(page(read_run(folder)))
    assert "Gallery" in shown.text and ("wrong name" in shown.text) == (gone not in ("report", "pseudo_labels.csv"))


def test_a_run_of_one_table_has_a_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path, [], CLASSES, evidence=False, tested=False)
    for name in ("pseudo_labels.csv", "predictions.csv", "metrics.csv"):
        (folder / name).unlink()
    rows = [["a.png", "sea", "sea"], ["b.png", "sea", "street"]]
    write_csv(folder / "test_predictions.csv", [["image", "class", "end"], *rows])
    shown = seen(page(read_run(folder)))
    assert "True and predicted classes" in shown.text and "50.0 %" in shown.text and "Gallery" not in shown.text


@pytest.mark.parametrize(
    ("breaks", "message"),
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
def test_what_is_no_finished_run_is_named_in_one_line(
    tmp_path: Path, breaks: Callable[[Path], object], message: str
) -> None:
    run = write_run(tmp_path / "run", write_images(tmp_path / "images", ["a.png"] * 4), CLASSES)
    breaks(run)
    with pytest.raises(UserError, match=message) as error:
        report([str(run)])
    assert str(run) in str(error.value) and "\n" not in str(error.value).strip()
    assert not list(tmp_path.rglob("report.html")) and not list(tmp_path.rglob("*.tmp*"))


def test_numbers_of_classes_are_those_of_a_loop(run: Path) -> None:
    finished = read_run(run)
    records, tested = finished.images.to_dict("records"), finished.tested.to_dict("records")
    rows = class_rows(finished, measured(finished))
    assert [row.name for row in rows] == CLASSES
    for row in rows:
        members = [record for record in records if record["class"] == row.name]
        right = [line["predicted"] == line["class"] for line in tested if line["class"] == row.name]
        assert row.images == len(members)
        assert row.texts["By zero-shot"] == str(sum(record["zero_shot"] == row.name for record in records))
        assert row.texts["Mean confidence"] == percent(sum(r["confidence"] for r in members) / len(members))
        assert row.texts["Kept"] == percent(sum(r["kept_for"] != "" for r in members) / len(members))
        assert row.texts["Peers disagree"] == percent(sum(r["peer_a"] != r["peer_b"] for r in members) / len(members))
        assert row.texts["Accuracy"] == percent(sum(right) / len(right))
    shown = {figure.title: figure.value for figure in figures(finished)}
    assert shown["Peers agree"] == percent(sum(r["peer_a"] == r["peer_b"] for r in records) / len(records))
    assert shown["Changed"] == percent(sum(r["zero_shot"] != r["class"] for r in records) / len(records))
    assert shown["Labels kept"] == percent(sum(r["kept_for"] != "" for r in records) / len(records))


def test_axes_hold_their_values() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        low = float(rng.normal() * 10.0 ** rng.integers(-3, 3))
        high = low + float(rng.random() * 10.0 ** rng.integers(-3, 3))
        start, end, step = nice_range(low, high)
        assert start <= low and high <= end + 1e-9 and 1 <= round((end - start) / step) <= 6
    assert nice_range(0, 1) == (0, 1, 0.5) and nice_range(50, 80)[:2] == (50, 80)


def test_what_is_infinite_is_not_drawn() -> None:
    rows = {"epoch": ["0", "inf", "2"], "stage": "phase1", "accuracy_both": ["inf", "50", "60"]}
    (panel,) = panels(pd.DataFrame(rows))
    assert len(panel.lines[0].points) == 1
    assert panels(pd.DataFrame(rows).assign(epoch="1e999")) == []
