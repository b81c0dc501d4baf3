"""Finding a finished model on disk, before anything large is imported: a wrong path is answered at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.experiment import CONFIG, plain
from coft.core.files import read_json

FORMAT = "coft-model/1"
FOLDER = "model"  # in the output folder of a run
DESCRIPTION = "model.json"  # in that folder
SEAL = "sha256"  # key of the checksum of all other keys, which earlier versions did not write


def find_model(place: Path) -> Path:
    """The folder of the model of a run.

    Args:
        place: Output folder of a run, or its model folder.

    Raises:
        UserError: If there is none.
    """
    for folder in (place, place / FOLDER):
        if (folder / DESCRIPTION).is_file():
            return folder
    if not place.exists():
        raise UserError(f"{place}: no such folder; check the path")
    if not (place / CONFIG).is_file():
        raise UserError(f"{place}: holds no model; give the output folder of a finished run")
    if (place / "summary.json").is_file():
        raise UserError(
            f"{place}: the run has left no model (an earlier version made it, or its trainer predicts by other means "
            f"than image classifiers); run it again, or take another trainer, such as CoFT"
        )
    raise UserError(f"{place}: the run is not finished; give its command again, and it goes on to the end")


def description_of(folder: Path) -> dict[str, Any]:
    """What `model.json` has.

    Args:
        folder: Of the model.

    Raises:
        UserError: If it is damaged, or of another version.
    """
    path = folder / DESCRIPTION
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(content, dict) or "format" not in content:
        raise damaged(path, "no description of a model")
    if content["format"] != FORMAT:
        raise UserError(
            f"{path}: is of another version of the project ({str(content['format'])[:40]!r}, here {FORMAT!r}); "
            f"use that version, or run the training again"
        )
    if SEAL in content and content != sealed(content):
        raise damaged(path, f"its checksum is another one; who has changed it on purpose removes {SEAL!r} from it")
    return content


def sealed(description: Mapping[str, Any]) -> dict[str, Any]:
    """A description with the checksum of what it says, in the place of an earlier one."""
    content = {key: value for key, value in description.items() if key != SEAL}
    said = json.dumps(json.loads(json.dumps(plain(content))), sort_keys=True)
    return {**content, SEAL: hashlib.sha256(said.encode()).hexdigest()}


def damaged(path: Path, reason: str) -> UserError:
    """What is said of a file of a model that cannot be used."""
    return UserError(f"{path}: is damaged ({' '.join(reason.split())[:160]}); copy it again, or give the run's command")
