"""Check that a folder holds a finished run. Nothing large is imported, so a wrong folder is refused at once."""

from __future__ import annotations

from pathlib import Path

from coft.core.errors import UserError
from coft.core.experiment import CONFIG


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
