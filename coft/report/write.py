"""Writer of a finished run's `report.html`, and of the CSV files beside it."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from coft.core.errors import UserError
from coft.core.exit_codes import as_user_error
from coft.core.files import replacing, write_or_remove

from .names import suspects
from .page import SHOWN_FIRST, least_sure, measured, page, unlike_the_rest
from .run_folder import read_run

log = logging.getLogger(__name__)
NAME, LEAST_SURE, UNLIKE, DOUBTFUL = "report.html", "least_sure.csv", "unlike_rest.csv", "doubtful_names.csv"
MAX_LISTED = 200  # upper bound of the images in a list; below it, a tenth of all images, but at least `SHOWN_FIRST`


def write_report(folder: Path) -> Path:
    """Write a finished run's report into its folder, with lists of images and names to look at.

    Existing files are replaced.

    Args:
        folder: Output folder of the run.

    Returns:
        Path of `report.html`.

    Raises:
        UserError: If the folder holds no finished run, a file in it is damaged, or the new report would have no
            picture because all images are gone.
    """
    run = read_run(folder)
    if notice := run.missing_notice():
        if (folder / NAME).exists() and len(run.missing_images()) == len(run.images):
            raise UserError(f"{notice} A new {NAME} would have no pictures; to write it, remove the old one")
        log.warning("%s", notice)
    count, columns = min(MAX_LISTED, max(SHOWN_FIRST, len(run.images) // 10)), ["path", "class", "confidence"]
    unsure, unlike = least_sure(run, count), unlike_the_rest(run, count)
    signals = measured(run)
    doubtful = [(run.classes[suspect.label], "; ".join(suspect.reasons)) for suspect in suspects(signals)]
    lists = {  # written before the page, which links to the files that exist
        LEAST_SURE: unsure[columns],
        UNLIKE: unlike[[*columns, "likeness"]],
        DOUBTFUL: pd.DataFrame(doubtful, columns=["class", "reasons"]),
    }
    for name, table in lists.items():
        write_or_remove(table, folder / name, float_format="%.6f")
    content = page(run, signals, unlike)
    with replacing(folder / NAME) as draft:
        draft.write_bytes(content)
    return folder / NAME


def warn_of_report(error: Exception) -> None:
    """Log that the report could not be written: with a one-line reason for a user error, else with the traceback."""
    mistake = as_user_error(error)
    reason = f" ({mistake.line})" if mistake else ""
    log.warning("The report could not be written%s; all other files are there", reason, exc_info=not mistake)
