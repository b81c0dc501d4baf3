"""Output folders: each belongs to one experiment, and its files are written atomically."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import coft
from coft.core.errors import UserError
from coft.core.files import IMAGE_SUFFIXES, check_disk_space, ensure_folder, replacing, writing
from coft.core.run_settings import FREE_KEYS
from coft.core.settings import flatten
from coft.core.untrusted import MISSING, read_text
from coft.core.yaml_text import parse_yaml

CONFIG = "config.yaml"
MOST_CONFIG = 1 << 24  # bytes: it may hold a list of classes
UNTRAINED_ENTRY = {"kept": "zero-shot CLIP"}  # entry of the summary of a run that trained nothing; reports read it
FILES, IN_MEMORY = "a list of files", "in memory"  # entries "images" of the summary, where that is not a folder
IDENTITY_KEYS = ("TRAINER.NAME", "DATASET.NAME", "MODEL.BACKBONE.NAME")  # differences of these keys are reported first


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically. NaN and infinity become null."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(plain(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def plain(content: Any) -> Any:
    """Return a copy that JSON can represent: NaN and infinity become None."""
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items()}
    if isinstance(content, list):
        return [plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def saved_config(folder: Path) -> dict[str, Any] | None:
    """Return the flattened settings of the experiment in an output folder; None if it has none.

    Raises:
        UserError: If the settings cannot be read.
    """
    path = folder / CONFIG
    try:
        return flatten(parse_yaml(read_text(path, MOST_CONFIG)) or {})
    except MISSING:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); choose another output folder") from error
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: no settings of a run; choose another output folder, or remove this one") from error


RESULTS = ("*.pth.tar*", "*/*.pth.tar*", "*/checkpoint", "resume.pt", "model", "summary.json", "*predictions.csv")
EARLY_FILES = ("metrics.csv", "pseudo_labels.csv", "skipped.csv", "duplicates.csv")  # written before any result
OUTPUT_FILES = (  # files and folders that a run writes, and would overwrite
    *(*EARLY_FILES, "labels.csv", "predictions.csv", "test_predictions.csv", "doubtful_names.csv", "least_sure.csv"),
    *("unlike_rest.csv", "classes.txt", "summary.json", "report.html", "report", "curves.png", "model", "resume.pt"),
)
BEFORE_RESULTS = ("log.txt", "tensorboard", "report", *EARLY_FILES, CONFIG)  # left by a run that stopped early
RUN_FILES = (CONFIG, "log.txt", "tensorboard", *OUTPUT_FILES)  # entries that may exist before the first checkpoint


def has_results(folder: Path) -> bool:
    """Return whether a folder holds results of a run: models, a state to resume from, a summary or predictions."""
    return any(next(folder.glob(pattern), None) for pattern in RESULTS)


def require_finished(folder: Path) -> None:
    """Refuse a folder that holds no finished run.

    Raises:
        UserError: If the folder, its config or its summary is missing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the output folder of a run")
    if not (folder / "summary.json").is_file():
        if not (folder / CONFIG).is_file():
            raise UserError(f"{folder}: no {CONFIG} in it, so it is no run; give the output folder of one")
        raise UserError(f"{folder}: the run is not finished (no summary.json); the same command goes on with it")


def claim(cfg: Any, flag: str = "--output-dir") -> None:
    """Claim an output folder for an experiment, or confirm that it already belongs to this one.

    A folder belongs to an experiment once the experiment has results. If another one left only settings, a log and
    tables, it was started by mistake, and they are removed.

    Args:
        cfg: All settings.
        flag: Option that names the folder, for error messages.

    Raises:
        UserError: If the folder holds another experiment or files that a run would overwrite, or cannot be created.
    """
    folder = Path(cfg.OUTPUT_DIR)
    ensure_folder(folder, flag)
    text = cfg.dump()
    saved, present = saved_config(folder), flatten(parse_yaml(text))
    if saved is not None and saved != present and saved.keys() >= set(IDENTITY_KEYS) and not has_results(folder):
        with writing(folder):
            for place in (folder / name for name in BEFORE_RESULTS):
                is_folder = place.is_dir() and not place.is_symlink()
                shutil.rmtree(place) if is_folder else place.unlink(missing_ok=True)
        saved = None
    if saved is not None:
        _check_same_experiment(saved, present, folder, flag)
        return
    check_unclaimed(folder, flag)
    check_disk_space(folder)
    with writing(folder), replacing(folder / CONFIG) as draft:
        draft.write_text(text, encoding="utf-8")


def check_unclaimed(folder: Path, flag: str) -> None:
    """Refuse a folder with files that a run would overwrite, or with images.

    Args:
        folder: An output folder without the settings of a run.
        flag: Option that names the folder, for error messages.

    Raises:
        UserError: If it has any; the message names one.
    """
    if (folder / "log.txt").exists() or any(folder.glob("*/checkpoint")):
        raise UserError(f"output folder {folder} has a log or checkpoints and no {CONFIG}; choose another {flag}")
    if there := [name for name in OUTPUT_FILES if os.path.lexists(folder / name)]:
        raise UserError(
            f"output folder {folder} has {there[0]} and no {CONFIG}, so it is no run's, and a run would replace that; "
            f"choose another {flag}"
        )
    entries = chain(folder.glob("*"), folder.glob("*/*"))  # often in a folder for each class
    if picture := next((path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES), None):
        raise UserError(
            f"output folder {folder} has images, such as {picture.relative_to(folder)}, and no {CONFIG}; "
            f"choose another {flag}"
        )


def _check_same_experiment(saved: Mapping[str, Any], present: Mapping[str, Any], folder: Path, flag: str) -> None:
    other = sorted((saved.keys() ^ present.keys()) - FREE_KEYS)
    if other and all(saved.get(key) == present.get(key) for key in IDENTITY_KEYS):
        raise UserError(
            f"output folder {folder} was begun by another version of the project ({other[0]} is known to one of them "
            f"alone); choose another {flag}, or remove the folder"
        )
    for key in dict.fromkeys((*IDENTITY_KEYS, *sorted(saved.keys() | present.keys()))):
        if key not in FREE_KEYS and saved.get(key) != present.get(key):
            if key == "DATASET.DIGEST":
                raise UserError(
                    f"output folder {folder} holds a run on other images, or one was added, removed or changed since; "
                    f"choose another {flag}, or restore the images"
                )
            raise UserError(
                f"output folder {folder} holds another experiment ({key} is {saved.get(key)!r} there, "
                f"{present.get(key)!r} here); choose another {flag}, or remove the folder"
            )


def versions(toolbox: str) -> dict[str, str]:
    """Return the versions of all software that results may depend on.

    Args:
        toolbox: Version of `dassl` in use.
    """
    packages = ("torch", "torchvision", "numpy", "pillow", "clip-anytorch", "scikit-learn")
    versions_of = {"coft": coft.__version__, "commit": commit(), "python": platform.python_version(), "dassl": toolbox}
    for name in packages:
        try:
            versions_of[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions_of[name] = "not installed"
    return versions_of


def commit() -> str:
    """Return the abbreviated hash of the project's commit.

    Returns:
        The hash, with the suffix "-dirty" if tracked files differ from the commit; empty outside a checkout, or without
        git.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed package, perhaps within a checkout of another project
        return ""
    call = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(call, cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


HASH = re.compile(r"[0-9a-f]{16,}")  # values that mean nothing to a user


class OtherRunError(UserError):
    """Error of a checkpoint that belongs to another run."""


def check_identity(saved: Mapping[str, str], present: Mapping[str, str]) -> None:
    """Check that a checkpoint was made with the same backbone, classes and images as this run.

    Raises:
        OtherRunError: If not; the message names the first difference.
    """
    for key, value in present.items():
        if saved.get(key) != value:
            values = "" if HASH.fullmatch(value) else f" ({saved.get(key)}, here {value})"
            raise OtherRunError(f"it was made with another {key}{values}; use the {key} it was made with")
