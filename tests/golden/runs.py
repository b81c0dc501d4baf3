"""Golden runs: every trainer for a few steps on digits, and what its weights and labels then are.

Hashes say whether two runs are the same to the bit, norms whether they are the same but for rounding. Names of weights
are no part of either: code may move, results may not.

    python -m tests.golden                  # compare all runs with golden.json
    python -m tests.golden --only CoFT      # those whose name has this in it
    python -m tests.golden --write          # after a change of the method: write golden.json
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from datasets.digits import write_digits
from scripts import launch

GOLDEN = Path(__file__).with_name("golden.json")
RELATIVE = 1e-3  # of norms, on another machine than that of the golden file
BACKBONES = ("embedded", "embedded-vit")
TEST_IMAGES = 40
COMMON = {
    "DATASET.NUM_UNLABELED": 36,
    "DATALOADER.TRAIN_X.BATCH_SIZE": 4,
    "DATALOADER.NUM_WORKERS": 0,
    "TRAIN.EVAL_FREQ": 0,
}
PHASES = {
    **{"SEEDS_PER_CLASS": 4, "PHASE1.EPOCHS": 2, "PHASE1.MIN_STEPS": 16, "PHASE2.EPOCHS": 2},
    "LABEL_VIEWS": 2,
}
TUNING = {"EPOCHS": 2, "REFRESH": 1}


def _run(trainer: str, section: str = "", /, **settings: Any) -> tuple[str, dict[str, Any]]:
    pairs = {f"TRAINER.{section or trainer.upper()}.{key}": value for key, value in settings.items()}
    return trainer, COMMON | {f"TRAINER.{section or trainer.upper()}.PREC": "fp32"} | pairs


def _phases(trainer: str, **settings: Any) -> tuple[str, dict[str, Any]]:
    return _run(trainer, **(PHASES | settings))


def _quick(run: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return run[0], run[1] | {"OPTIM.MAX_EPOCH": 1}


RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "CoFT": _phases("CoFT"),
    "CoFT, filter own": _phases("CoFT", FILTER="own"),
    "CoFT, LoRA": _phases("CoFT", VISUAL="lora", FILTER="min-softmax"),
    "CoFT, one negative vector": _phases(
        "CoFT", NEGATIVE="prompt", CLEAN_RULE="sigmoid", FILTER="partner", **{"N_CTX": 4}
    ),
    "CoFTPlus": _phases("CoFTPlus", ROUNDS=2, **{"CONTRAST.WEIGHT": 0.5}),
    "DeFT": _run("DeFT", **{"PHASE1.EPOCHS": 4, "PHASE1.MIN_STEPS": 16, "PHASE2.EPOCHS": 2}),
    "SelfTraining": _run("SelfTraining", **TUNING),
    "LaFTer": _run("LaFTer", **TUNING, TEXT_STEPS=20),
    "Supervised": _run("Supervised", EPOCHS=2),
    "NormAdaptation": ("NormAdaptation", COMMON),
    "TrainingFree": ("TrainingFree", COMMON),
    "ZeroshotCLIP": ("ZeroshotCLIP", COMMON),
    "UPL": _quick(_run("UPL", SEEDS_PER_CLASS=3, ENSEMBLE=2)),
    "GRIP": _quick(_run("GRIP", ROUNDS=2)),
    "CoOp": _quick(_run("CoOp")),
}


def cases() -> list[tuple[str, str]]:
    """Every run on every backbone that knows drawings, and one of open_clip's kind, with frozen stages."""
    return [*((name, backbone) for name in RUNS for backbone in BACKBONES), ("CoFT", "photo")]


def write_data(root: Path) -> Path:
    """Write digits, with fewer test images.

    Returns:
        The folder of all data sets.
    """
    write_digits(root / "digits")
    path = root / "digits" / "split_digits.json"
    split = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(split | {"test": split["test"][:TEST_IMAGES]}), encoding="utf-8")
    return root


def do(name: str, backbone: str, data: Path, folder: Path) -> dict[str, Any]:
    """Make a run and describe it.

    Args:
        name: A key of `RUNS`.
        backbone: One of `BACKBONES`, or "photo".
        data: Folder of all data sets.
        folder: Where the run writes.
    """
    trainer, settings = RUNS[name]
    settings = settings | ({"INPUT.SIZE": "(64, 64)", "TRAIN.GUARD": False} if backbone == "photo" else {})
    words = [str(word) for pair in settings.items() for word in pair]
    shots = ["--shots", "1"] if trainer == "CoOp" else []
    flags = ["--backbone", backbone, "--seed", "1", "--data", str(data), "--output-dir", str(folder), *shots]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # one a peer
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = launch.main([trainer, *flags, "digits", *words])
    finally:
        torch.set_num_threads(threads)
    if code:
        raise AssertionError(f"{name}, {backbone}: exit code {code}\n{said.getvalue()[-2000:]}")
    return describe(folder)


def describe(folder: Path) -> dict[str, Any]:
    """What a run's weights, labels and accuracies are.

    Returns:
        "bits": hashes of weights and of pseudo_labels.csv; "numbers": norms of weights by model, accuracies.
    """
    tensors = dict(sorted(_tensors(folder)))
    hashes = sorted(map(_hash, tensors.values()))
    squares: dict[str, list[float]] = {}
    for key, tensor in tensors.items():
        squares.setdefault(key.split("/")[0], []).append(float(tensor.double().square().sum()))
    norms = {f"norm of {model}": math.fsum(values) ** 0.5 for model, values in squares.items()}  # in no order
    results = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["results"]
    labels = folder / "pseudo_labels.csv"
    return {
        "bits": {
            "weights": hashlib.sha256("".join(hashes).encode()).hexdigest()[:16],
            "tensors": len(hashes),
            "labels": hashlib.sha256(_rows(labels).encode()).hexdigest()[:16] if labels.is_file() else "",
        },
        "numbers": {**norms, **_accuracies(results)},
    }


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """All trained weights of the last checkpoints."""
    for pointer in folder.glob("*/checkpoint"):
        last = pointer.with_name(pointer.read_text(encoding="utf-8").strip())
        for name, value in torch.load(last, weights_only=True)["state_dict"].items():
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 1:
                yield f"{pointer.parent.name}/{name}", value


def _hash(tensor: torch.Tensor) -> str:
    kind = f"{tensor.dtype}{tuple(tensor.shape)}".encode()
    return hashlib.sha256(kind + tensor.contiguous().numpy().tobytes()).hexdigest()


def _rows(path: Path) -> str:
    """A table without the folders of its paths."""
    with path.open(newline="", encoding="utf-8") as file:
        return json.dumps([[Path(row[0]).name, *row[1:]] for row in csv.reader(file)])


def _accuracies(results: dict[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, dict):
            found |= _accuracies(value, f"{prefix}{key}, ")
        elif "accuracy" in key or "precision" in key or key == "kept":
            found[f"{prefix}{key}"] = value
    return found


def differences(found: dict[str, Any] | str, known: dict[str, Any] | None, exact: bool) -> list[str]:
    """What differs between a run and the golden one. Numbers that are new are no difference.

    Args:
        found: What `describe` says of the run; or an error.
        known: What the golden file says; None if it has no such run.
        exact: Whether bits have to be the same. On another machine rounding differs: then norms may by `RELATIVE`, and
            accuracies and counts by an image.

    Returns:
        A line for each difference.
    """
    if isinstance(found, str) or known is None:
        return [f"was {known}, is {found}"]
    pairs = [(part, key, known[part][key], found[part].get(key)) for part in known for key in known[part]]
    return [f"{key}: was {was}, is {now}" for part, key, was, now in pairs if not _same(part, key, was, now, exact)]


def _same(part: str, key: str, was: Any, now: Any, exact: bool) -> bool:
    if exact or was == now or now is None:
        return bool(was == now)
    if part == "bits":
        return key != "tensors"
    if "accuracy" in key and "pool" not in key:
        return abs(now - was) <= 1.01 * 100 / TEST_IMAGES
    if key.endswith("kept"):
        return abs(now - was) <= 1
    if key.startswith("norm"):
        return abs(now - was) <= RELATIVE * abs(was)
    return abs(now - was) <= 1.01 / TEST_IMAGES  # a share of labels


def machine() -> str:
    """What the bits of results depend on, beside the code."""
    capability = torch.backends.cpu.get_cpu_capability()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if info.is_file() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    model = " ".join(said.get(key, "?") for key in ("model name", "cpu family", "model", "stepping"))
    return f"torch {torch.__version__}, {platform.machine()} {capability}, {model}"


def load() -> dict[str, Any]:
    """The golden file."""
    return json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {"machine": "", "runs": {}}
