"""Lookup of a finished model on disk. Nothing large is imported, so a wrong path is refused at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.experiment import CONFIG, plain
from coft.core.run_settings import INTERPOLATIONS
from coft.core.schemas import Anything, List, Number, PathText, Record, SchemaError, Text, mapping, numbers, whole
from coft.core.untrusted import read_json

FORMAT = "coft-model/1"
FOLDER = "model"  # name of the model folder in the output folder of a run
DESCRIPTION = "model.json"  # name of the description in the model folder
MAX_BYTES = 1 << 28  # upper bound of the size of the description
ABOUT = Record(  # facts about the run, shown in reports and model cards; predictions do not depend on them
    optional={
        **{"trainer": Text(), "dataset": Text(10_000), "unlabeled_images": whole(0), "labels_used": whole(0)},
        **{"seed": whole(-1), "versions": mapping(Text()), "not_default": mapping(Anything())},
        "results": Record(optional={"accuracy_test": Number(0, 100)}, others=Anything()),
    },
    others=Anything(),
)
SCHEMA = Record(
    {
        "format": Text(choices=(FORMAT,)),
        "classes": List(Text(10_000, least=1), least=1, key=str),
        "templates": List(Text(10_000), least=1, most=10_000),
        "backbone": Record({"name": PathText(), "fingerprint": Text(64)}, {"frozen_stages": whole(0, 1000)}),
        "inputs": Record(
            {"size": whole(1, 8192), "mean": numbers(-10, 10, 3), "std": numbers(0.001, 100, 3)},
            {"interpolation": Text(choices=INTERPOLATIONS), "augment": Text(100)},
        ),
        "decoding": Record(optional={"enough": whole(0, 65_536), "shorter": whole(0, 65_536)}),
        "precision": Text(20),
        "encoders": List(Text(100), 1, 16),
        "classifiers": List(
            Record({"name": Text(100, least=1), "encoder": whole(0, 15), "scale": Number(1e-6, 1e6)}),
            *(1, 16),
            key=itemgetter("name"),
        ),
        "score": Text(100),
        "clean_rule": Text(100),
        "weights": Record({"file": Text(255), "sha256": Text(64)}),
        "about": ABOUT,
    },
    {"members": List(whole(-1, 15), 1, 16), "temperature": Number(1e-6, 1e6), "sha256": Text(64)},
    others=Anything(),
)
CHECKSUM_KEY = "sha256"  # key of the checksum over all other keys; who edits the file removes it


def find_model(path: Path) -> Path:
    """Find the model folder of a run.

    Args:
        path: Output folder of a run, or its model folder.

    Raises:
        UserError: If neither folder holds a model.
    """
    for folder in (path, path / FOLDER):
        if (folder / DESCRIPTION).is_file():
            return folder
    if not path.exists():
        raise UserError(f"{path}: no such folder; check the path")
    if not (path / CONFIG).is_file():
        raise UserError(f"{path}: holds no model; give the output folder of a finished run")
    if (path / "summary.json").is_file() and not (path / "resume.pt").is_file():
        raise UserError(
            f"{path}: the run has left no model (an earlier version made it, or its trainer predicts by other means "
            f"than image classifiers); run it again, or take another trainer, such as CoFT"
        )
    raise UserError(f"{path}: the run is not finished; give its command again, and it goes on to the end")


def description_of(folder: Path) -> dict[str, Any]:
    """Read and check `model.json`.

    Args:
        folder: Model folder.

    Raises:
        UserError: If the file is damaged or has another format version.
    """
    path = folder / DESCRIPTION
    try:
        content = read_json(path, MAX_BYTES)
        Record({"format": Anything()}, others=Anything()).check(content)
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    if content["format"] != FORMAT:
        raise UserError(
            f"{path}: is of another version of the project ({str(content['format'])[:40]!r}, here {FORMAT!r}); "
            f"use that version, or run the training again"
        )
    if CHECKSUM_KEY in content and content != with_checksum(content):
        raise damaged(
            path, f"its checksum does not match; if you edited the file on purpose, remove the key {CHECKSUM_KEY!r}"
        )
    try:
        SCHEMA.check(content)
    except SchemaError as error:
        raise damaged(path, str(error)) from error
    return content


def with_checksum(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description with a checksum of its content, in place of any checksum that it has."""
    content = {key: value for key, value in description.items() if key != CHECKSUM_KEY}
    text = json.dumps(json.loads(json.dumps(plain(content))), sort_keys=True)
    return {**content, CHECKSUM_KEY: hashlib.sha256(text.encode()).hexdigest()}


def damaged(path: Path, reason: str) -> UserError:
    """Return the error for a damaged file of a model."""
    reason = " ".join(reason.split())[:160]
    return UserError(
        f"{path}: is damaged ({reason}); copy it again, or remove the folder {path.parent} and give the run's command"
    )
