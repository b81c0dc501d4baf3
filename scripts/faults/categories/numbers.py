"""Numbers that are none: they are never saved, tested or reported."""

from __future__ import annotations

from functools import partial

import torch

from ..case import Case, Right, Wrong
from ..scene import Scene

CATEGORY = "numbers"
REFUSED = Right.REFUSED
VALUES = (float("nan"), float("inf"), -float("inf"))
TENSORS = ("visual.conv1.weight", "text_projection", "logit_scale", "token_embedding.weight", "positional_embedding")


def cases(quick: bool) -> list[Case]:
    """All cases."""
    found = [
        Case(
            CATEGORY,
            f"{value} in {name} of a backbone",
            partial(backbone, name=name, value=value),
            REFUSED,
            ("bad.pt",),
        )
        for name in TENSORS
        for value in VALUES
    ]
    found += [
        Case(
            CATEGORY,
            f"{value} in a checkpoint, {how}",
            partial(checkpoint, how=how, value=value),
            REFUSED,
            ("run", "checkpoint"),
            60,
        )
        for how in ("--eval-only", "--resume")
        for value in VALUES[: 1 if quick else 2]
    ]
    found += [
        Case(CATEGORY, f"{value} in a finished model", partial(model, value=value), REFUSED, ("model",), 60)
        for value in VALUES[: 1 if quick else 3]
    ]
    rates = ("1e8", "1e20", "1e38")
    found += [
        Case(
            CATEGORY,
            f"{key} {rate}",
            partial(rate_of, key=key, rate=rate),
            names=("epoch", "learning rate", key, "PREC"),
            seconds=90,
        )
        for key in ("OPTIM.LR", "TRAINER.COFT.PHASE2.LR")
        for rate in (rates[:1] if quick else rates)
    ]
    return [*found, Case(CATEGORY, "a scale of 1e30", partial(backbone, name="logit_scale", value=70.0), seconds=60)]


def spoiled(state: dict[str, torch.Tensor], name: str, value: float) -> None:
    """Put a number into a tensor."""
    tensor = state[name].clone()
    tensor.view(-1)[0] = value
    state[name] = tensor


def backbone(scene: Scene, name: str, value: float) -> None:
    """Train with such a backbone."""
    state = torch.load(scene.clip, weights_only=True)
    spoiled(state, name, value)
    torch.save(state, scene.place / "bad.pt")
    no_nan(scene.train("--backbone", str(scene.place / "bad.pt")))


def no_nan(out: object) -> None:
    """Look for numbers that are none in what a run has left."""
    from pathlib import Path

    text = (Path(str(out)) / "predictions.csv").read_text().lower()
    if "nan" in text or "inf" in text:
        raise Wrong("predictions.csv has numbers that are none")


def checkpoint(scene: Scene, how: str, value: float) -> None:
    """Go on from, or evaluate, a checkpoint with such a number."""
    run = scene.copied_run()
    for path in [*run.glob("peer_*/model.pth.tar-*"), run / "resume.pth.tar"]:
        found = torch.load(path, weights_only=True)
        states = (
            [found["state_dict"]]
            if "state_dict" in found
            else [x["state_dict"] for x in found["models"].values() if isinstance(x, dict)]
        )
        for state in states:
            spoiled(state, next(name for name, x in state.items() if torch.is_tensor(x) and x.dim() > 1), value)
        torch.save(found, path)
    scene.train(*(("--eval-only", "--model-dir") if how == "--eval-only" else ("--resume",)), str(run))


def model(scene: Scene, value: float) -> None:
    """Predict with a finished model that has such a number, and a checksum that is right."""
    import json

    from safetensors.torch import load_file, save_file

    from coft.inference.locate_model import DESCRIPTION, FORMAT, sealed
    from coft.inference.store import WEIGHTS, checksum, load

    folder = scene.copied_run() / "model"
    tensors = load_file(folder / WEIGHTS)
    spoiled(tensors, next(iter(tensors)), value)
    save_file(tensors, folder / WEIGHTS, metadata={"format": FORMAT})
    description = json.loads((folder / DESCRIPTION).read_text())
    description["weights"]["sha256"] = checksum(folder / WEIGHTS)
    (folder / DESCRIPTION).write_text(json.dumps(sealed(description)))
    load(folder)


def rate_of(scene: Scene, key: str, rate: str) -> None:
    """Train with a rate that is far too high."""
    no_nan(scene.train(settings=(key, rate, "TRAINER.COFT.PHASE1.MIN_STEPS", "6")))
