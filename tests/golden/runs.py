"""Golden runs: every trainer for a few steps on digits, and a description of its weights and labels.

Hashes show whether two runs are bit-identical, norms whether they agree up to rounding. Names of weights are not
compared.
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
TOLERANCE = 1e-3  # relative tolerance of norms on another machine
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
    "TrainingFree": ("TrainingFree", COMMON),
    "ZeroshotCLIP": ("ZeroshotCLIP", COMMON),
    "UPL": _quick(_run("UPL", SEEDS_PER_CLASS=3, ENSEMBLE=2)),
    "GRIP": _quick(_run("GRIP", ROUNDS=2)),
    "CoOp": _quick(_run("CoOp")),
}


def cases() -> list[tuple[str, str]]:
    """List all runs on both CLIPs of drawings, and one on an open_clip backbone with frozen stages."""
    return [*((name, backbone) for name in RUNS for backbone in BACKBONES), ("CoFT", "photo")]


def write_data(root: Path) -> Path:
    """Write digits with fewer test images.

    Returns:
        The data root.
    """
    write_digits(root / "digits")
    path = root / "digits" / "split_digits.json"
    split = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(split | {"test": split["test"][:TEST_IMAGES]}), encoding="utf-8")
    return root


def run(name: str, backbone: str, data: Path, folder: Path) -> dict[str, Any]:
    """Do a run and describe it.

    Args:
        name: A key of `RUNS`.
        backbone: One of `BACKBONES`, or "photo".
        data: Data root.
        folder: Output folder.
    """
    trainer, settings = RUNS[name]
    settings = settings | ({"INPUT.SIZE": "(64, 64)", "TRAIN.GUARD": False} if backbone == "photo" else {})
    opts = [str(word) for pair in settings.items() for word in pair]
    shots = ["--shots", "1"] if trainer == "CoOp" else []
    flags = ["--backbone", backbone, "--seed", "1", "--data", str(data), "--output-dir", str(folder), *shots]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # one for each peer
    try:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            code = launch.main([trainer, *flags, "digits", *opts])
    finally:
        torch.set_num_threads(threads)
    if code:
        raise AssertionError(f"{name}, {backbone}: exit code {code}\n{output.getvalue()[-2000:]}")
    return describe(folder)


def describe(folder: Path) -> dict[str, Any]:
    """Describe the weights, labels and accuracies of a run.

    Returns:
        "bits": hashes of weights and of pseudo_labels.csv; "numbers": norms of weights by model, accuracies.
    """
    tensors = dict(sorted(_tensors(folder)))
    hashes = sorted(map(_hash, tensors.values()))
    squares: dict[str, list[float]] = {}
    for key, tensor in tensors.items():
        squares.setdefault(key.split("/")[0], []).append(float(tensor.double().square().sum()))
    norms = {
        f"norm of {model}": math.fsum(values) ** 0.5 for model, values in squares.items()
    }  # fsum does not depend on the order
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
    """Yield all trained weights of the last checkpoints."""
    for pointer in folder.glob("*/checkpoint"):
        last = pointer.with_name(pointer.read_text(encoding="utf-8").strip())
        for name, value in torch.load(last, weights_only=True)["state_dict"].items():
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 1:
                yield f"{pointer.parent.name}/{name}", value


def _hash(tensor: torch.Tensor) -> str:
    kind = f"{tensor.dtype}{tuple(tensor.shape)}".encode()
    return hashlib.sha256(kind + tensor.contiguous().numpy().tobytes()).hexdigest()


def _rows(path: Path) -> str:
    """Return a table without the folders of its paths, as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return json.dumps([[Path(row[0]).name, *row[1:]] for row in csv.reader(file)])


def _accuracies(results: dict[str, Any], prefix: str = "") -> dict[str, float]:
    accuracies: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, dict):
            accuracies |= _accuracies(value, f"{prefix}{key}, ")
        elif "accuracy" in key or "precision" in key or key == "kept":
            accuracies[f"{prefix}{key}"] = value
    return accuracies


def differences(result: dict[str, Any] | str, golden: dict[str, Any] | None, exact: bool) -> list[str]:
    """List the differences between a run and the golden one. New numbers are ignored.

    Args:
        result: Description of the run, or an error.
        golden: Description in the golden file; None if it has no such run.
        exact: Whether hashes must agree. On another machine rounding differs: norms may then differ by `TOLERANCE`, and
            accuracies and counts by one image.

    Returns:
        A line for each difference.
    """
    if isinstance(result, str) or golden is None:
        return [f"was {golden}, is {result}"]
    pairs = [(part, key, golden[part][key], result[part].get(key)) for part in golden for key in golden[part]]
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
        return abs(now - was) <= TOLERANCE * abs(was)
    return abs(now - was) <= 1.01 / TEST_IMAGES  # a share of labels


def machine() -> str:
    """Return what the bits of results depend on, besides the code."""
    capability = torch.backends.cpu.get_cpu_capability()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if info.is_file() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    model = " ".join(fields.get(key, "?") for key in ("model name", "cpu family", "model", "stepping"))
    return f"torch {torch.__version__}, {platform.machine()} {capability}, {model}"


def load() -> dict[str, Any]:
    """Read the golden file."""
    return json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {"machine": "", "runs": {}}
