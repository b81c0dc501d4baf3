"""Write `report.html` of a finished run."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from coft.core.exit_codes import as_user_error
from coft.core.files import replacing, write_table

from .names import suspects
from .page import UNSURE, least_sure, measured, page
from .run_folder import read_run

log = logging.getLogger(__name__)
NAME, LEAST_SURE, DOUBTFUL = "report.html", "least_sure.csv", "doubtful_names.csv"
LISTED = 200  # most images that are listed as the least sure ones; of few images a tenth is


def write_report(folder: Path) -> Path:
    """Write the report of a finished run into its folder, and lists of least sure images and of doubtful names.

    Earlier ones are replaced.

    Args:
        folder: Output folder of the run.

    Returns:
        Path of the page.

    Raises:
        UserError: If the folder holds no finished run, or a file in it is damaged.
    """
    run = read_run(folder)
    unsure = least_sure(run, min(LISTED, max(UNSURE, len(run.images) // 10)))
    if len(unsure):  # first: the page names the files that are there
        write_table(unsure[["path", "class", "confidence"]], folder / LEAST_SURE, float_format="%.6f")
    signals = measured(run)
    doubtful = [(run.classes[suspect.label], "; ".join(suspect.reasons)) for suspect in suspects(signals or [])]
    (folder / DOUBTFUL).unlink(missing_ok=True)
    if doubtful:
        write_table(pd.DataFrame(doubtful, columns=["class", "reasons"]), folder / DOUBTFUL)
    content = page(run, signals)
    with replacing(folder / NAME) as draft:
        draft.write_bytes(content)
    return folder / NAME


def warn_of_report(error: Exception) -> None:
    """Say that there is no report, and why: in a line where the user can mend it, else with the traceback."""
    mistake = as_user_error(error)
    reason = f" ({mistake.line})" if mistake else ""
    log.warning("The report could not be written%s; all other files are there", reason, exc_info=not mistake)
