from __future__ import annotations

from pathlib import Path

from trainers.parts.checkpoints import agree_on_epoch, remove_earlier, saved_epochs


def write(folder: Path, **epochs: list[int]) -> None:
    for name, saved in epochs.items():
        (folder / name).mkdir()
        for epoch in saved:
            (folder / name / f"model.pth.tar-{epoch}").touch()
        (folder / name / "checkpoint").write_text(f"model.pth.tar-{saved[-1]}\n")


def pointers(folder: Path) -> list[str]:
    return [path.read_text().strip() for path in sorted(folder.glob("*/checkpoint"))]


def test_models_go_on_from_the_last_epoch_that_all_have(tmp_path: Path) -> None:
    write(tmp_path, a=[2, 3, 4], b=[2, 3])
    agree_on_epoch(tmp_path, ["a", "b"])
    assert pointers(tmp_path) == ["model.pth.tar-3"] * 2


def test_nothing_changes_where_one_has_none(tmp_path: Path) -> None:
    write(tmp_path, a=[1])
    agree_on_epoch(tmp_path, ["a", "b"])
    assert pointers(tmp_path) == ["model.pth.tar-1"]


def test_earlier_checkpoints_go_but_for_those_to_keep(tmp_path: Path) -> None:
    write(tmp_path, a=[1, 2, 3, 4, 10])
    (tmp_path / "a" / "model-best.pth.tar").touch()
    remove_earlier(tmp_path, ["a"], 4, {2})
    assert saved_epochs(tmp_path / "a") == {2, 4, 10}
    assert (tmp_path / "a" / "model-best.pth.tar").exists()
