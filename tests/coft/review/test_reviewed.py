"""Content of a review, and the effect of other class names."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from coft.core.errors import UserError
from coft.core.experiment import FILES, IN_MEMORY
from coft.engine.class_names import Classes, read_classes
from coft.report.names import Signals
from coft.review.app import classes_from_draft, write_new
from coft.review.rerun_command import command_with
from coft.review.reviewed import read_reviewed
from coft.review.server import zero_shot_of

from .reviewed_runs import CLASSES, HOSTILE, PER_CLASS

ROOT = Path(__file__).parents[3]


def names(**other: list[str]) -> list[list[str]]:
    """The classes as the page sends them, with changes."""
    return [other.get(name, [name, *CLASSES.synonyms.get(name, ())]) for name in CLASSES.names]


def test_a_review_has_classes_images_and_suggestions(run_folder: Path) -> None:
    reviewed = read_reviewed(run_folder)
    assert reviewed.classes == CLASSES and reviewed.notices == []
    assert reviewed.run.counts == [PER_CLASS, PER_CLASS, PER_CLASS, PER_CLASS, 0]
    shown = reviewed.shown_images()
    assert len(shown["sea"]) == 12 and all(PER_CLASS <= row < 2 * PER_CLASS for row in shown["sea"])
    assert shown["fog"] == []
    texts = {(suggestion.label, suggestion.other): suggestion.text for suggestion in reviewed.suggestions()}
    assert texts[4, -1] == "“fog” has 0 of 120 images."
    assert {label for label, _ in texts} == {2, 4}
    assert any("fits the images of “hill” better" in text for text in texts.values())


def test_other_names_change_the_shares_of_classes(run_folder: Path) -> None:
    reviewed = read_reviewed(run_folder)
    zero_shot = zero_shot_of(reviewed)
    before = zero_shot.effect(CLASSES)
    assert sum(before.shares) == pytest.approx(1) and before.shares[2] < 0.05 and before.shares[1] >= 0.25
    frozen = np.bincount(reviewed.evidence.zero_shot, minlength=5) / (4 * PER_CLASS)
    assert before.shares == pytest.approx(frozen, abs=0.02)  # features are stored in half precision
    after = zero_shot.effect(classes_from_draft(names(hill=["mountain"]), CLASSES))
    assert after.shares[2] > 0.2 and all(2 * PER_CLASS <= row < 3 * PER_CLASS for row in after.images[2])
    merged = zero_shot.effect(classes_from_draft([["forest"], ["sea", "ocean", "hill", "fog"], [HOSTILE]], CLASSES))
    assert len(merged.shares) == 3 and sum(merged.shares) == pytest.approx(1)
    with pytest.raises(UserError, match="the text encoder reads 77"):
        zero_shot.effect(classes_from_draft(names(hill=["1 " * 90]), CLASSES))


def test_a_class_is_split_into_similar_images(run_folder: Path) -> None:
    halves = read_reviewed(run_folder).halves(2)
    first = range(2 * PER_CLASS, 2 * PER_CLASS + PER_CLASS // 2)
    assert sorted(map(sorted, halves)) == [list(first), list(range(first.stop, 3 * PER_CLASS))]
    with pytest.raises(UserError, match="only 0 images; 8 are needed"):
        read_reviewed(run_folder).halves(4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a list of 2 to 30,000"),
        ([["a"], "b"], "classes[1] is 'b'; expected a list of 1 to 1,000"),
        ([["a"], ["b|c"]], "separates synonyms"),
        ([["a"], ["x" * 1001]], "0 to 1,000 characters"),
        ([["a"], ["b\nc"]], "without control characters"),
        ([["a"], [" "]], "name 2: a name is empty"),
        ([["a"], ["b", "A"]], "'A', is listed twice"),
        ([["a b"], ["A_B"]], "name 2, 'A_B', is listed twice (first: name 1); remove one"),
    ],
)
def test_bad_classes_are_refused(content: object, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        classes_from_draft(content, CLASSES)


def test_descriptions_stay_with_the_name() -> None:
    classes = classes_from_draft([["wood", "forest"], ["sea"], [HOSTILE]], CLASSES)
    assert classes == Classes(["wood", "sea", HOSTILE], {"wood": ("forest",)}, {"sea": CLASSES.descriptions["sea"]})


def test_an_existing_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "classes-2.txt").write_text("mine\n")
    assert write_new(tmp_path, CLASSES) == tmp_path / "classes-3.txt"
    assert read_classes(str(tmp_path / "classes-3.txt")) == CLASSES
    assert (tmp_path / "classes-2.txt").read_text() == "mine\n"


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_new(tmp_path, CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_the_command_repeats_the_run_with_other_classes(copied: Path) -> None:
    reviewed = read_reviewed(copied)
    command = command_with(reviewed, copied / "classes-2.txt")
    backbone = reviewed.config["MODEL.BACKBONE.NAME"]
    bash, script, *rest = shlex.split(command)
    assert bash == "bash" and Path(script).is_absolute() and Path(script).samefile(ROOT / "scripts" / "coft.sh")
    assert rest[:4] == ["folder", "--images", reviewed.config["DATASET.IMAGES"], "--classes"]
    assert f"--classes {copied}/classes-2.txt --backbone {backbone} --seed 3 --output-dir {copied}-2 " in command
    assert command.endswith("TRAINER.COFT.PHASE1.EPOCHS 7")
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["DATASET"] = {"NAME": "Folder", "DIGEST": "0", "NAMES": "forest"}
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    (copied.parent / "run-2").mkdir()
    images = Path(reviewed.config["DATASET.IMAGES"])
    add_to_summary(copied, images=str(images))
    assert command_with(read_reviewed(copied), Path("/a b")) == (
        f"coft adapt {images} --classes '/a b' --backbone {backbone} --seed 3 --output {copied}-3 --method coft "
        f"phase1__epochs=7"
    )
    add_to_summary(copied, images=FILES)
    assert command_with(read_reviewed(copied), Path("/a b")).startswith(
        f"coft.adapt(images, classes='/a b', backbone={str(backbone)!r}, seed=3, output='{copied}-3', method='coft', "
        f"phase1__epochs=7)"
    )


def add_to_summary(run: Path, **entries: str) -> None:
    path = run / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_changed_class_file_is_named(copied: Path, tmp_path: Path) -> None:
    (copied / "classes.txt").write_text("forest\nsea\n")
    source = tmp_path / "source.txt"
    source.write_text("wood\nsea\n")
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["DATASET"]["CLASSES"] = str(source)
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    reviewed = read_reviewed(copied)
    assert reviewed.classes == Classes(CLASSES.names)
    assert [line.split(" ")[0] for line in reviewed.notices] == [str(copied / "classes.txt"), str(source)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "summary.json").unlink(), "the run is not finished"),
        (lambda run: (run / "config.yaml").write_text("DATASET:\n  NAME: Digits\n"), "a run on Digits, whose classes"),
        (lambda run: shutil.rmtree(run / "report"), "has left no features"),
        (lambda run: add_to_summary(run, images=IN_MEMORY), "a run on images in memory"),
        (lambda run: (run / "report" / "frozen.safetensors").write_bytes(b"x" * 99), "damaged"),
        (lambda run: (run / "model" / "model.json").write_text('{"format": "old"}'), "of another version"),
        (lambda run: (run / "model" / "model.json").write_text('{"format": "coft-model/1"}'), "is damaged"),
        (lambda run: shutil.rmtree(run / "model"), "has left no model"),
    ],
)
def test_a_run_that_cannot_be_reviewed_is_refused(damage: object, message: str, copied: Path) -> None:
    damage(copied)  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as error:
        zero_shot_of(read_reviewed(copied))
    assert "\n" not in str(error.value)


def test_a_bad_name_points_to_a_class_of_two_kinds(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad, two = (
        Signals(20, 20, fit=0.3, rival=0, kinds=1.0),
        Signals(20, 20, fit=-0.1, rival=1),
        Signals(60, 60, kinds=3.0),
    )
    monkeypatch.setattr("coft.review.reviewed.measured", lambda run: [two, good, bad, good, good])
    texts = {(each.label, each.other): each.text for each in read_reviewed(run_folder).suggestions()}
    assert texts[2, 1].endswith(f"Images of “hill” may be in “{CLASSES.names[0]}”: try another word for it.")
    assert texts[0, 0] == f"“{CLASSES.names[0]}” may be two kinds of images: is a name missing?"
