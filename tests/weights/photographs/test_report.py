"""The tables of the card, on a data folder of a few images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coft.core.errors import UserError
from weights.photographs import report

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    source = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in CLASSES:
            folder = tmp_path / "cifar10" / part / name
            folder.mkdir(parents=True)
            Image.fromarray(source.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "0.png")
    return tmp_path


def test_accuracies_of_the_sets_that_are_there(data: Path) -> None:
    found = report.zero_shot(["embedded"], data)
    assert list(found) == [("CIFAR-10", "embedded")]
    assert found["CIFAR-10", "embedded"] % 10 == pytest.approx(0)  # of ten images
    table = report.accuracy_table({("CIFAR-10", "a"): 53.04, ("CIFAR-10", "b"): 7.0}, ["a", "b"])
    assert [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]] == ["CIFAR-10", "53.0", "7.0"]


def test_a_run_that_fails_is_named_with_its_reason(data: Path) -> None:
    with pytest.raises(UserError, match=r"zero-shot on cifar10: .*no-such"):
        report.zero_shot(["no-such"], data)


def test_other_words_of_a_class_are_averaged_or_drawn(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def words(names: list[str], *_: object) -> torch.Tensor:  # "cat" is the fourth axis, "other cat" almost
        rows = [CLASSES.index(name.removeprefix("other ")) for name in names]
        own = torch.nn.functional.one_hot(torch.tensor(rows), 10).float()
        return own + 0.1 * torch.tensor([[float(name.startswith("other "))] for name in names])

    monkeypatch.setattr(report, "load_open_clip", lambda name: None)
    monkeypatch.setattr(report, "image_features", lambda model, files: torch.eye(10))
    monkeypatch.setattr(report, "template_features", lambda model, names, template: words(list(names)))
    monkeypatch.setattr(report, "other_lemmas", lambda name, lexicon: [f"other {name}", name])
    own, averaged, drawn = report.by_other_words(data, data, None)  # type: ignore[arg-type]
    assert own == averaged == 100 and drawn == [100] * report.DRAWS
    monkeypatch.setattr(report, "other_lemmas", lambda name, lexicon: [CLASSES[CLASSES.index(name) - 1]])
    assert report.by_other_words(data, data, None)[1:] == (0, [0] * report.DRAWS)  # type: ignore[arg-type]
