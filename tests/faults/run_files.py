"""Files that the project writes and reads again: checkpoints, run folders, models, journals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from coft.cli.main import main as coft
from coft.inference.locate_model import FORMAT as MODEL_FORMAT
from coft.inference.locate_model import SCHEMA as MODEL

from .backbones import NON_FINITE, WRONG_OBJECTS, train_with, with_number
from .formats import Format
from .mutations import (
    CHECKSUMMED,
    DAMAGE,
    GARBAGE,
    MISSING,
    NESTED_ALIASES,
    TRAILING,
    Mutation,
    flip_bit_of_member,
    flips,
    from_form,
    without,
)
from .verdict import WrongResult
from .workspace import Workspace, call

# -------------------------------------------------------------------- checkpoints


def mutate_checkpoints(run: Path, mutate: Mutation) -> None:
    """Apply a mutation to all checkpoints of a run, and to its state."""
    for path in [*run.glob("peer_*/model.pth.tar-*"), run / "resume.pth.tar"]:
        mutate(path)


def save_with_number(path: Path, value: float) -> None:
    torch.save(with_number(torch.load(path, weights_only=True), value), path)


def checkpoints() -> Iterator[Format]:
    """Checkpoints that are evaluated or resumed from."""
    damage = {**flips(12, flip_bit_of_member), **WRONG_OBJECTS, **without(GARBAGE, "nested deeply")}
    damage["truncated to 60%"] = DAMAGE["truncated to 60%"]
    non_finite = {f"{value}": partial(save_with_number, value=value) for value in NON_FINITE[:2]}
    for flags in ("--eval-only --model-dir", "--resume"):
        for category, mutations in (("checkpoints", damage), ("non-finite", non_finite)):
            refused = {
                f"{flags} of {name}": partial(mutate_checkpoints, mutate=mutate) for name, mutate in mutations.items()
            }
            read = partial(train_with, flags=flags)
            yield Format(category, "run", Workspace.copy_run, read, refused, input_names=("checkpoint",))


# -------------------------------------------------------------------- run folders

READ_BY_REPORT = (
    *("summary.json", "log.txt", "config.yaml", "classes.txt"),
    *("pseudo_labels.csv", "predictions.csv", "metrics.csv"),
)
READ_BY_RESUME = ("config.yaml", "metrics.csv", "resume.pth.tar", "peer_a/checkpoint")


def copied_file(name: str) -> Callable[[Workspace], Path]:
    return lambda workspace: workspace.copy_run() / name


def report(workspace: Workspace, path: Path) -> None:
    call(coft, "report", path.parent)


def resume(workspace: Workspace, path: Path) -> None:
    """Run the same command again: the predictions must not change."""
    run = workspace.folder / "run"
    (run / "summary.json").unlink()
    workspace.train(out=run)
    if (run / "predictions.csv").read_bytes() != (workspace.run / "predictions.csv").read_bytes():
        raise WrongResult("the resumed run has other predictions")


def predict(workspace: Workspace, path: Path) -> None:
    """Predict with a damaged model: the predictions must not change."""
    expected = workspace.shared / "predicted.csv"
    if not expected.exists():
        expected.write_bytes(workspace.predict(workspace.run))
    if workspace.predict(path.parent) != expected.read_bytes():
        raise WrongResult("a damaged model has other predictions")


def predict_finite(workspace: Workspace, path: Path) -> None:
    """Predict with an edited model: one row for each image, without NaN."""
    rows = workspace.predict(path.parent).splitlines()
    if len(rows) != 1 + len(list(workspace.images.iterdir())) or b"nan" in b"".join(rows):
        raise WrongResult(f"predicted {len(rows)} rows")


def generated_models() -> list[dict[str, Mutation]]:
    """Generate edits of model.json: those to be refused, and the others."""
    valid = {
        **{"format": MODEL_FORMAT, "classes": ["a", "b", "c"], "templates": ["a {}."], "precision": "fp32"},
        "backbone": {"name": "x", "fingerprint": "y", "frozen_stages": 0},
        "inputs": {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3},
        **{"decoding": {"enough": 0, "shorter": 0}, "encoders": ["none"], "score": "positive", "clean_rule": ""},
        **{"classifiers": [{"name": "x", "encoder": 0, "scale": 10.0}], "about": {}},
        **{"weights": {"file": "x", "sha256": "x"}},
    }
    return list(from_form(MODEL, valid, lambda value: partial(edit_model, valid=valid, edited=value), 120).values())


def edit_model(path: Path, valid: dict[str, Any], edited: Any) -> None:
    """Make the same edit in the model.json of a run as was made in a valid object."""
    if not isinstance(edited, dict):
        path.write_text(json.dumps(edited))
        return
    model = {key: part for key, part in json.loads(path.read_text()).items() if key != "sha256" and key in edited}
    changes = {key: part for key, part in edited.items() if part is not valid.get(key)}
    path.write_text(json.dumps(model | changes))


def edit_weights(path: Path, value: float) -> None:
    """Set a number in the weights of a model, and update the checksums as a user can do."""
    weights, description = path.parent / "model.safetensors", json.loads(path.read_text())
    save_file(with_number(load_file(weights), value), weights, metadata={"format": description["format"]})
    del description["sha256"]
    description["weights"]["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    path.write_text(json.dumps(description))


# -------------------------------------------------------------------- journals of moved images


def move_images(workspace: Workspace) -> Path:
    """Move images into class folders. Returns the journal."""
    workspace.predict(workspace.run, workspace.copy_images(), "--move", workspace.folder / "sorted")
    return next((workspace.folder / "sorted").glob("*.jsonl"))


def partly_done(argv: Sequence[str]) -> int:
    """Call coft. Exit code 1 is correct here: some files were not moved back."""
    code = coft(argv)
    return 0 if code == 1 else code


def undo(workspace: Workspace, path: Path) -> None:
    """Undo the moves of a journal: no image may be lost."""
    try:
        call(partly_done, "predict", "--undo", path)
    finally:
        folders = (workspace.folder / "photos", workspace.folder / "sorted")
        if image_contents(*folders) != image_contents(workspace.images):
            raise WrongResult("an image is lost")


def image_contents(*folders: Path) -> list[bytes]:
    return sorted(path.read_bytes() for folder in folders for path in folder.rglob("*.png"))


def run_files() -> Iterator[Format]:
    """Files of a finished run, by the command that reads them."""
    damage = {**GARBAGE, **DAMAGE, **MISSING, **NESTED_ALIASES}
    for name in READ_BY_REPORT:
        yield Format("folders", f"run/{name}", copied_file(name), report, either=damage, input_names=("run",))
    for name in READ_BY_RESUME:
        yield Format("folders", f"resume with {name}", copied_file(name), resume, either=damage, input_names=("run",))
    refused = {**GARBAGE, **CHECKSUMMED, **MISSING, **flips(3)}
    for name in ("model.json", "model.safetensors"):
        make = copied_file(f"model/{name}")
        yield Format("folders", name, make, predict, refused, TRAILING, input_names=("model",))
    make, names = copied_file("model/model.json"), ("model", "backbone")
    yield Format("folders", "model.json", make, predict_finite, *generated_models(), input_names=names)
    non_finite = {f"{value} in its weights": partial(edit_weights, value=value) for value in NON_FINITE}
    yield Format("non-finite", "model.json", make, predict, non_finite, input_names=("model",))
    yield Format("folders", "journal", move_images, undo, either=damage, input_names=("--undo", ".jsonl"))
