"""Write `report.html` of a finished run."""

from __future__ import annotations

import logging
from pathlib import Path

from coft.core.exit_codes import as_user_error
from coft.core.files import replacing

from .page import page
from .run_folder import read_run

log = logging.getLogger(__name__)
NAME = "report.html"


def write_report(folder: Path) -> Path:
    """Write the report of a finished run into its folder. An earlier report is replaced.

    Args:
        folder: Output folder of the run.

    Returns:
        Path of the page.

    Raises:
        UserError: If the folder holds no finished run, or a file in it is damaged.
    """
    content = page(read_run(folder))
    with replacing(folder / NAME) as draft:
        draft.write_bytes(content)
    return folder / NAME


def warn_of_report(error: Exception) -> None:
    """Say that there is no report, and why: in a line where the user can mend it, else with the traceback."""
    mistake = as_user_error(error)
    reason = f" ({mistake.line})" if mistake else ""
    log.warning("The report could not be written%s; all other files are there", reason, exc_info=not mistake)
