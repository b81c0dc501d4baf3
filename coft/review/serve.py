"""Serving of a review's page until the user ends the review."""

from __future__ import annotations

import logging
import threading
import webbrowser
from pathlib import Path

from coft.core.errors import UserError
from coft.inference.locate_model import description_of, find_model
from coft.inference.model import BackboneRef
from coft.inference.store import load_backbone

from .app import Review
from .rerun_command import command_with
from .reviewed import Reviewed, read_reviewed
from .server import Server
from .zero_shot import ZeroShot

log = logging.getLogger(__name__)
LAST_SECONDS = 0.5  # delay of the shutdown, so that the last response reaches the page


def serve(run: Path, port: int, browser: bool) -> int:
    """Serve the page until the user ends the review, and print what was saved.

    Args:
        run: Output folder of a finished run.
        port: Port of the page; 0 for a free one.
        browser: Whether to open a browser.

    Returns:
        The exit code.

    Raises:
        UserError: If the run cannot be reviewed, or the port is taken.
    """
    reviewed = read_reviewed(run)
    command_with(reviewed, run)  # raises at once, not after the user's work, if the run cannot be repeated
    zero_shot = zero_shot_of(reviewed)
    server = open_server(port)
    server.review = Review(reviewed, zero_shot, threading.Timer(LAST_SECONDS, server.shutdown).start)
    for notice in reviewed.notices:
        log.warning("%s", notice)
    print(f"The page of the review: {server.url}\nOnly this machine can open it. Ctrl-C or “Done” ends it.", flush=True)
    if browser:
        webbrowser.open(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    if server.review.command:
        print(f"Classes: {server.review.file}\nTrain again with them:\n  {server.review.command}")
    else:
        print("Nothing was saved.")
    return 0


def zero_shot_of(reviewed: Reviewed) -> ZeroShot:
    """Build zero-shot CLIP on the images of a run, with the run's backbone.

    Args:
        reviewed: Run under review.

    Raises:
        UserError: If the run's model is missing, damaged or of another version, or if the backbone has changed.
    """
    folder = find_model(reviewed.run.folder)
    description = description_of(folder)
    reference, templates = BackboneRef(**description["backbone"]), list(description["templates"])
    clip_model = load_backbone(reference)  # never a TorchScript file: a copied run could declare itself trusted
    return ZeroShot(reviewed.evidence, reviewed.classes, clip_model, templates)


def open_server(port: int) -> Server:
    """Open the server.

    Args:
        port: Port; 0 for a free one.

    Raises:
        UserError: If the port cannot be opened.
    """
    try:
        return Server(port)
    except OSError as error:
        raise UserError(f"--port {port}: cannot be had ({error.strerror}); give another one") from error
