"""A finished model on disk: `model.safetensors` has what training changed, `model.json` everything else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from coft.backbones.architecture import is_convolutional
from coft.backbones.load import backbone_names, fingerprint, load_clip
from coft.backbones.open_clip_names import is_open_clips, local_path
from coft.backbones.stages import freeze_stages, hold_frozen_in_bf16
from coft.core.errors import UserError
from coft.core.experiment import write_json
from coft.core.files import replacing, utf8_path
from coft.core.finite import check_finite
from coft.core.precision import PRECISIONS, PREDICTIONS, faster_precision
from coft.images.reading import Decoding
from coft.images.views import Inputs
from coft.labelling.predictor import FinalClassifier, Predictor
from coft.method.labeller import SCORES
from coft.method.negative_prompt import CLEAN_RULES

from .encoders import Tensors, changed_tensors, module_of, rebuilt
from .locate_model import DESCRIPTION, FORMAT, damaged, description_of, find_model, sealed
from .model import AdaptedModel, Origin

WEIGHTS = "model.safetensors"


# -------------------------------------------------------------------- writing


def save(model: AdaptedModel, folder: Path) -> None:
    """Write a model to a folder, whose model is replaced if it has one.

    Raises:
        UserError: If it cannot be written.
    """
    tensors, description = _parts(model)
    try:
        with replacing(folder / WEIGHTS) as draft:
            draft.touch()
            mode = draft.stat().st_mode
            save_file(tensors, draft, metadata={"format": FORMAT})
            draft.chmod(mode)  # it makes a file that nobody else may read
            description["weights"] = {"file": WEIGHTS, "sha256": checksum(draft)}
        write_json(folder / DESCRIPTION, sealed(description))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"the model cannot be written to {folder} ({error}); see to the disk, and give the command again"
        ) from error


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _parts(model: AdaptedModel) -> tuple[Tensors, dict[str, Any]]:
    """Tensors by name, and the rest as JSON has it."""
    tensors: Tensors = {}
    predictor, visual = model.predictor, model.clip_model.visual
    for number, encoder in enumerate(predictor.encoders):
        tensors |= {f"encoders.{number}.{name}": value for name, value in changed_tensors(encoder, visual).items()}
    heads = []
    for (name, own), number in zip(predictor.classifiers.items(), predictor.numbers(), strict=True):
        vectors = {"positive": own.positive, "clean": own.clean}
        tensors |= {f"classifiers.{name}.{key}": _plain(value) for key, value in vectors.items() if value is not None}
        heads.append({"name": name, "encoder": number, "scale": own.scale})
    description = {
        "format": FORMAT,
        "classes": list(model.classes),
        "templates": list(model.templates),
        "backbone": asdict(model.origin),
        "inputs": asdict(model.inputs),
        "decoding": asdict(model.decoding),
        "precision": model.precision,
        "encoders": [module_of(encoder, visual) for encoder in predictor.encoders],
        "classifiers": heads,
        "score": predictor.score,
        "clean_rule": predictor.clean_rule,
        "about": model.about,
    }
    return tensors, description


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().clone()


def portable_name(name: str) -> str:
    """A backbone's name that does not depend on the working directory: paths become absolute."""
    path = local_path(name) if is_open_clips(name) else Path(name).expanduser()
    if name in backbone_names() or path is None or not path.exists():
        return name
    prefix = name[: name.index(":") + 1] if is_open_clips(name) else ""
    return f"{prefix}{path.resolve()}"


# -------------------------------------------------------------------- reading


def load(
    place: Path,
    device: str | torch.device = "cpu",
    backbone: str = "",
    trust_jit: bool = False,
    precision: str = "",
) -> AdaptedModel:
    """Load the model of a run.

    Args:
        place: See `find_model`.
        device: Where it computes.
        backbone: Where the backbone is now, if not where the run had it.
        trust_jit: See `load_clip`.
        precision: In the place of the run's: a name of `PRECISIONS`.

    Raises:
        UserError: If there is no model, it is of another version or damaged, or the backbone is another one.
    """
    folder = find_model(place)
    description = description_of(folder)
    description["precision"] = precision or description.get("precision")
    tensors = _tensors(folder, description)
    try:
        return _built(description, tensors, torch.device(device), backbone, trust_jit)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise damaged(folder / DESCRIPTION, f"{type(error).__name__}: {error}") from error


def _tensors(folder: Path, description: Mapping[str, Any]) -> Tensors:
    path = folder / WEIGHTS
    try:
        found = checksum(path)
        with utf8_path(path) as named:
            tensors = load_file(named)
    except (OSError, SafetensorError) as error:
        raise damaged(path, str(error)) from error
    weights = description.get("weights")
    if not isinstance(weights, dict) or found != weights.get("sha256"):
        raise damaged(path, f"its checksum is not the one in {DESCRIPTION}")
    check_finite(tensors, str(path), "run the training again with a lower OPTIM.LR")
    return tensors


def _built(
    description: Mapping[str, Any], tensors: Tensors, device: torch.device, backbone: str, trust_jit: bool
) -> AdaptedModel:
    origin = Origin(**description["backbone"])
    clip_model = load_origin(origin, backbone, trust_jit).to(device)
    precision = usable_precision(description["precision"], device.type)
    if precision == PREDICTIONS:
        hold_frozen_in_bf16(clip_model.visual)
    visual, parts = clip_model.visual, _grouped(tensors)
    encoders = [
        rebuilt(visual, module, parts.get(f"encoders.{number}", {}))
        for number, module in enumerate(description["encoders"])
    ]
    classifiers = {}
    for head in description["classifiers"]:
        vectors = {key: value.to(device) for key, value in parts[f"classifiers.{head['name']}"].items()}
        encoder, scale = encoders[head["encoder"]], float(head["scale"])
        classifiers[head["name"]] = FinalClassifier(encoder, vectors["positive"], vectors.get("clean"), scale)
    classes, score, clean_rule = tuple(description["classes"]), description["score"], description["clean_rule"]
    if score not in SCORES or clean_rule not in ("", *CLEAN_RULES):
        raise ValueError(f"score {score!r} or clean rule {clean_rule!r} is unknown")
    if not classifiers or any(len(own.positive) != len(classes) for own in classifiers.values()):
        raise ValueError("classes and vectors differ in number")
    inputs = description["inputs"] | {key: tuple(description["inputs"][key]) for key in ("mean", "std")}
    return AdaptedModel(
        classes,
        tuple(description["templates"]),
        origin,
        Inputs(**inputs),
        Decoding(**description["decoding"]),
        precision,
        Predictor(classifiers, score, clean_rule),
        clip_model,
        dict(description["about"]),
    )


def load_origin(origin: Origin, name: str = "", trust_jit: bool = False) -> Any:
    """Load the frozen CLIP that a model was made from.

    Args:
        origin: The backbone.
        name: Where it is now, if not where the run had it.
        trust_jit: See `load_clip`.

    Raises:
        UserError: If it is another one.
    """
    clip_model: Any = load_clip(name or origin.name, trust_jit)
    found = fingerprint(clip_model)
    if found != origin.fingerprint:
        raise UserError(
            f"backbone {name or origin.name}: is another one than the model was trained with (fingerprint {found}, "
            f"expected {origin.fingerprint}); give the one it was trained with by --backbone"
        )
    freeze_stages(clip_model.visual, origin.frozen_stages)
    if is_convolutional(clip_model.visual):
        clip_model.visual.to(memory_format=torch.channels_last)  # as in training: faster, and the same bits
    return clip_model


def usable_precision(precision: str, device: str) -> str:
    """The precision of a run, or fp32 on a device that is no faster with less.

    Args:
        precision: A name of `PRECISIONS`.
        device: "cpu" or "cuda".
    """
    if device == "cpu" and (PRECISIONS[precision] is torch.float16 or faster_precision(device) == "fp32"):
        return "fp32"
    return precision


def _grouped(tensors: Mapping[str, Tensor]) -> dict[str, Tensors]:
    """Tensors by what they belong to: "encoders.0.conv1.weight" is "conv1.weight" of "encoders.0"."""
    parts: dict[str, Tensors] = {}
    for name, value in tensors.items():
        kind, owner, rest = name.split(".", 2)
        parts.setdefault(f"{kind}.{owner}", {})[rest] = value
    return parts
