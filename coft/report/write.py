"""Write `report.html` of a finished run."""

from __future__ import annotations

import logging
from pathlib import Path

from coft.core.exit_codes import as_user_error
from coft.core.files import replacing, write_table

from .page import least_sure, page
from .run_folder import read_run

log = logging.getLogger(__name__)
NAME, LEAST_SURE = "report.html", "least_sure.csv"
LISTED = 200  # images that are listed as the least sure ones


def write_report(folder: Path) -> Path:
    """Write the report of a finished run, and a list of the images that it is least sure of, into its folder.

    Earlier ones are replaced.

    Args:
        folder: Output folder of the run.

    Returns:
        Path of the page.

    Raises:
        UserError: If the folder holds no finished run, or a file in it is damaged.
    """
    run = read_run(folder)
    unsure = least_sure(run, LISTED)
    if len(unsure):  # first: the page names the files that are there
        write_table(unsure[["path", "class", "confidence"]], folder / LEAST_SURE, float_format="%.6f")
    content = page(run)
    with replacing(folder / NAME) as draft:
        draft.write_bytes(content)
    return folder / NAME


def warn_of_report(error: Exception) -> None:
    """Say that there is no report, and why: in a line where the user can mend it, else with the traceback."""
    mistake = as_user_error(error)
    reason = f" ({mistake.line})" if mistake else ""
    log.warning("The report could not be written%s; all other files are there", reason, exc_info=not mistake)
