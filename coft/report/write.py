"""Writing `report.html` of a finished run."""

from __future__ import annotations

from pathlib import Path

from coft.core.files import replacing

from .page import page
from .run_folder import read_run

NAME = "report.html"


def write_report(folder: Path) -> Path:
    """Write the report of a finished run into its folder, in place of an earlier one.

    Args:
        folder: Output folder of the run.

    Returns:
        The page.

    Raises:
        UserError: If the folder holds no finished run, or a file in it is damaged.
    """
    content = page(read_run(folder))
    with replacing(folder / NAME) as draft:
        draft.write_bytes(content)
    return folder / NAME
