"""A finished model on disk: `model.safetensors` holds the tensors that training changed, `model.json` the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from coft.backbones.frozen_bank import make_skippable
from coft.backbones.joint import members_of
from coft.backbones.layout import optimize_layout
from coft.backbones.load import architecture, backbone_names, fingerprint, load_clip
from coft.backbones.members import SEPARATOR, member_names
from coft.backbones.open_clip_names import is_open_clip_name, local_path
from coft.backbones.stages import freeze_stages
from coft.backbones.tower import width_of
from coft.core.errors import UserError, remedy
from coft.core.experiment import write_json
from coft.core.files import replacing
from coft.core.finite import check_finite
from coft.core.paths import expanded
from coft.core.precision import PRECISIONS, faster_precision
from coft.core.schemas import Record
from coft.core.tensors import Array, floats, load_safetensors
from coft.core.untrusted import digest_of
from coft.images.reading import Decoding
from coft.images.views import Inputs
from coft.labelling.classifier import CLEAN_RULES, SCORES
from coft.labelling.predictor import FinalClassifier, Predictor

from .encoders import WHOLE, Tensors, changed_tensors, module_of, origin_of, rebuild, stored, visual_at
from .locate_model import DESCRIPTION, FORMAT, damaged, description_of, find_model, with_checksum
from .model import AdaptedModel, BackboneRef

WEIGHTS = "model.safetensors"
TENSORS = Record(others=Array())


# -------------------------------------------------------------------- writing


def save(model: AdaptedModel, folder: Path) -> None:
    """Write a model to a folder. A model in the folder is replaced.

    Args:
        model: The model.
        folder: Model folder.

    Raises:
        UserError: If the folder cannot be written to.
    """
    tensors, description = _parts(model)
    try:
        with replacing(folder / WEIGHTS) as draft:
            draft.touch()
            mode = draft.stat().st_mode
            save_file(tensors, draft, metadata={"format": FORMAT})
            draft.chmod(mode)  # save_file creates a file that only its owner may read
            description["weights"] = {"file": WEIGHTS, "sha256": digest_of(draft)}
        write_json(folder / DESCRIPTION, with_checksum(description))
    except (OSError, SafetensorError) as error:
        raise UserError(f"the model cannot be written to {folder} ({error}); {remedy(error)}") from error


def _parts(model: AdaptedModel) -> tuple[Tensors, dict[str, Any]]:
    """Return the tensors of a model by name, and everything else as JSON-compatible values."""
    tensors: Tensors = {}
    predictor, visual = model.predictor, model.clip_model.visual
    origins = [origin_of(encoder, visual) for encoder in predictor.encoders]
    pairs = [(encoder, visual_at(visual, origin)) for encoder, origin in zip(predictor.encoders, origins, strict=True)]
    for number, pair in enumerate(pairs):
        tensors |= {f"encoders.{number}.{name}": tensor for name, tensor in changed_tensors(*pair).items()}
    classifier_entries = []
    for (name, classifier), number in zip(predictor.classifiers.items(), predictor.numbers(), strict=True):
        vectors = {"positive": classifier.positive, "clean": classifier.clean}
        for key, tensor in vectors.items():
            if tensor is not None:
                tensors[f"classifiers.{name}.{key}"] = stored(tensor)
        classifier_entries.append({"name": name, "encoder": number, "scale": classifier.scale})
    description = {
        "format": FORMAT,
        "classes": list(model.classes),
        "templates": list(model.templates),
        "backbone": asdict(model.backbone),
        "inputs": asdict(model.inputs),
        "decoding": asdict(model.decoding),
        "precision": model.precision,
        "encoders": [module_of(*pair) for pair in pairs],
        **({"members": origins} if len(members_of(visual)) > 1 else {}),
        "classifiers": classifier_entries,
        "score": predictor.score,
        "clean_rule": predictor.clean_rule,
        "temperature": predictor.temperature,
        "about": model.about,
    }
    return tensors, description


def portable_name(name: str) -> str:
    """Return a backbone's name in a form that is independent of the working directory: a path becomes absolute."""
    if len(names := member_names(name)) > 1:
        return SEPARATOR.join(map(portable_name, names))
    path = local_path(name) if is_open_clip_name(name) else expanded(name)
    if name in backbone_names() or path is None or not path.exists():
        return name
    prefix = name[: name.index(":") + 1] if is_open_clip_name(name) else ""
    return f"{prefix}{path.resolve()}"


# -------------------------------------------------------------------- reading


def load(
    path: Path,
    device: str | torch.device = "cpu",
    backbone: str = "",
    trust_jit: bool = False,
    precision: str = "",
) -> AdaptedModel:
    """Load the model of a run.

    Args:
        path: Output folder of a run, or its model folder.
        device: Device of the weights.
        backbone: Name or path of the backbone, if it has moved since the run.
        trust_jit: Whether a TorchScript file, which can hold code, may be loaded as the backbone.
        precision: A key of `PRECISIONS`, in place of the run's precision.

    Raises:
        UserError: If there is no model, if it is damaged or of another version, or if the backbone is not the same.
    """
    folder = find_model(path)
    description = description_of(folder)
    description["precision"] = precision or description["precision"]
    tensors = _tensors(folder, description)
    try:
        return _build(description, tensors, torch.device(device), backbone, trust_jit)
    except (KeyError, ValueError, IndexError) as error:
        raise damaged(folder / DESCRIPTION, f"{type(error).__name__}: {error}") from error


def _tensors(folder: Path, description: Mapping[str, Any]) -> Tensors:
    path = folder / WEIGHTS
    try:
        digest, tensors = digest_of(path), load_safetensors(path)[0]
        TENSORS.check(tensors)
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    if digest != description["weights"]["sha256"]:
        raise damaged(path, f"its checksum is not the one in {DESCRIPTION}")
    check_finite(tensors, str(path), "run the training again with a lower OPTIM.LR")
    return tensors


def _build(
    description: Mapping[str, Any], tensors: Tensors, device: torch.device, backbone: str, trust_jit: bool
) -> AdaptedModel:
    reference = BackboneRef(**description["backbone"])
    size = description["inputs"]["size"]
    if not architecture(backbone or reference.name, trust_jit).reads((size, size)):
        raise ValueError(f"inputs.size is {size}, which the backbone does not read")
    clip_model = load_backbone(reference, backbone, trust_jit).to(device)
    make_skippable(clip_model.visual, size)
    inputs = description["inputs"] | {key: tuple(description["inputs"][key]) for key in ("mean", "std")}
    return AdaptedModel(
        tuple(description["classes"]),
        tuple(description["templates"]),
        reference,
        Inputs(**inputs),
        Decoding(**description["decoding"]),
        usable_precision(description["precision"], device.type),
        _predictor(description, _grouped(tensors), clip_model),
        clip_model,
        dict(description["about"]),
    )


def _predictor(description: Mapping[str, Any], parts: Mapping[str, Tensors], clip_model: Any) -> Predictor:
    score, clean_rule = description["score"], description["clean_rule"]
    if score not in SCORES or clean_rule not in ("", *CLEAN_RULES):
        raise ValueError(f"score {score!r} or clean rule {clean_rule!r} is unknown")
    modules, device = description["encoders"], clip_model.logit_scale.device
    origins = description.get("members", [WHOLE] * len(modules))
    encoders = [
        rebuild(visual_at(clip_model.visual, origin), module, parts.get(f"encoders.{number}", {}))
        for number, (module, origin) in enumerate(zip(modules, origins, strict=True))
    ]
    classifiers = {}
    for entry in description["classifiers"]:
        vectors = parts[f"classifiers.{entry['name']}"]
        origin = origins[entry["encoder"]]
        member = clip_model if origin == WHOLE else members_of(clip_model)[origin]
        one_per_class = floats(len(description["classes"]), width_of(member))
        Record({"positive": one_per_class}, {"clean": one_per_class}).check(vectors, f"classifiers.{entry['name']}")
        vectors = {key: value.to(device, torch.float32) for key, value in vectors.items()}
        encoder, scale = encoders[entry["encoder"]], float(entry["scale"])
        classifiers[entry["name"]] = FinalClassifier(encoder, vectors["positive"], vectors.get("clean"), scale)
    owners = {f"encoders.{number}" for number in range(len(encoders))} | {f"classifiers.{name}" for name in classifiers}
    if strange := sorted(parts.keys() - owners):
        raise ValueError(f"{WEIGHTS} has {strange[0]}, which {DESCRIPTION} does not list")
    return Predictor(classifiers, score, clean_rule, float(description.get("temperature", 1.0)))


def load_backbone(reference: BackboneRef, name: str = "", trust_jit: bool = False) -> Any:
    """Load the frozen CLIP that a model was made from.

    Args:
        reference: Reference to the backbone.
        name: Name or path of the backbone, if it has moved since the run.
        trust_jit: Whether a TorchScript file, which can hold code, may be loaded as the backbone.

    Raises:
        UserError: If its fingerprint differs from that of the backbone that the model was trained with.
    """
    clip_model: Any = load_clip(name or reference.name, trust_jit)
    actual = fingerprint(clip_model)
    if actual != reference.fingerprint:
        raise UserError(
            f"backbone {name or reference.name}: is not the one that the model was trained with (fingerprint {actual}, "
            f"expected {reference.fingerprint}); give the one it was trained with by --backbone"
        )
    freeze_stages(clip_model.visual, reference.frozen_stages, f"{DESCRIPTION}: backbone.frozen_stages")
    size = architecture(name or reference.name, trust_jit).resolution
    optimize_layout(clip_model.visual, size)  # as in training, for bit-identical results
    return clip_model


def usable_precision(precision: str, device: str) -> str:
    """Return the precision to predict with: that of the run, but on a CPU fp32 in place of fp16 and non-native bf16.

    Args:
        precision: Precision of the run: a key of `PRECISIONS`.
        device: "cpu" or "cuda".
    """
    if device == "cpu" and (PRECISIONS[precision] is torch.float16 or faster_precision(device) == "fp32"):
        return "fp32"
    return precision


def _grouped(tensors: Mapping[str, Tensor]) -> dict[str, Tensors]:
    """Group tensors by the first two parts of their names, such as "encoders.0" in "encoders.0.conv1.weight"."""
    parts: dict[str, Tensors] = {}
    for name, value in tensors.items():
        kind, owner, rest = name.split(".", 2)
        parts.setdefault(f"{kind}.{owner}", {})[rest] = value
    return parts
