"""The local HTTP server of a review: one machine, one token, one origin.

The URL path of a request must begin with the server's secret token. Requests from pages of other sites are refused by
the headers Host, Origin and Sec-Fetch-Site. No part of a request is ever used as a file path.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from coft.core.untrusted import parse_json
from coft.inference.locate_model import description_of, find_model
from coft.inference.model import BackboneRef
from coft.inference.store import load_backbone

from .app import Answer, Review, error_response
from .rerun_command import command_with
from .reviewed import Reviewed, read_reviewed
from .zero_shot import ZeroShot

log = logging.getLogger(__name__)
LOCALHOST = "127.0.0.1"
MAX_BODY_BYTES = 4 << 20  # upper bound of a request body in bytes
LAST_SECONDS = 0.5  # delay of the shutdown, so that the last response reaches the page
REQUEST_TIMEOUT = 30  # seconds without a byte of a request, after which the connection is closed
ALLOWED_FETCH_SITES = ("same-origin", "none")  # Sec-Fetch-Site of our page, and of a URL that is typed in
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Connection": "close",
}
POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Server(ThreadingHTTPServer):
    """Server of one review, which only this machine can reach.

    Args:
        port: Port; 0 for a free one.

    Attributes:
        token: Secret first part of the URL path.
        review: Review that is served; must be set before serving.
    """

    daemon_threads = True
    review: Review

    def __init__(self, port: int) -> None:
        super().__init__((LOCALHOST, port), Handler)
        self.token = secrets.token_urlsafe(32)
        self.hosts = {f"{name}:{self.server_port}" for name in (LOCALHOST, "localhost")}

    @property
    def url(self) -> str:
        """URL of the page."""
        return f"http://{LOCALHOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a failed request, such as a broken connection, at debug level only, since it is harmless."""
        log.debug("a request failed", exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """Handler that checks a request and passes it on to the review."""

    server: Server
    timeout = REQUEST_TIMEOUT
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "review", ""

    def do_GET(self) -> None:
        """Answer a GET request."""
        nonce = secrets.token_urlsafe(16)
        answer = self._refusal() or self.server.review.get(self._name(), nonce) or error_response(404, "not here")
        self._send(answer, nonce)

    def do_POST(self) -> None:
        """Answer a POST request."""
        answer = self._refusal(is_post=True)
        if answer is None:
            content, answer = self._content()
            answer = answer or self.server.review.post(self._name(), content) or error_response(404, "not here")
        self._send(answer)

    # ---------------------------------------------------------------- checks

    def _refusal(self, is_post: bool = False) -> Answer | None:
        """Return the response that refuses a request; None if the request is allowed."""
        hosts, origin = self.headers.get_all("Host") or [], self.headers.get("Origin")
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            return error_response(403, "another host")
        if (origin is not None or is_post) and origin != f"http://{hosts[0].lower()}":
            return error_response(403, "another origin")
        if self.headers.get("Sec-Fetch-Site", "none") not in ALLOWED_FETCH_SITES:
            return error_response(403, "another site")
        token = self.path[1:].partition("/")[0]
        if not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self.server.token.encode("ascii")):
            return error_response(403, "a wrong token")
        return None

    def _name(self) -> str:
        """Return the part of the URL path after the token."""
        return self.path[1:].partition("/")[2]

    def _content(self) -> tuple[Any, Answer | None]:
        """Return the decoded JSON body of a request and None, or None and the response that refuses it."""
        if self.headers.get_content_type() != "application/json" or self.headers.get("Transfer-Encoding"):
            return None, error_response(415, "expected JSON, in one piece")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            return None, error_response(411, "expected a Content-Length")
        if len(length) > 12 or int(length) > MAX_BODY_BYTES:
            return None, error_response(413, f"more than {MAX_BODY_BYTES:,} bytes")
        try:
            return parse_json(self.rfile.read(int(length))), None
        except ValueError:
            return None, error_response(400, "no JSON")

    # ---------------------------------------------------------------- answers

    def _send(self, answer: Answer, nonce: str = "") -> None:
        self.close_connection = True
        self.send_response(answer.status)
        self.send_header("Content-Type", f"{answer.kind}; charset=utf-8" if answer.kind[:4] == "text" else answer.kind)
        self.send_header("Content-Length", str(len(answer.content)))
        self.send_header("Content-Security-Policy", POLICY.format(nonce or secrets.token_urlsafe(16)))
        self.send_header("Cache-Control", "private, max-age=3600" if answer.cacheable else "no-store")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing, since the lines would contain the token."""


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
    try:
        server = Server(port)
    except OSError as error:
        raise UserError(f"--port {port}: cannot be had ({error.strerror}); give another one") from error
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
