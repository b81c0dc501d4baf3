"""The local server of a review: one machine, one token, one origin.

Whoever asks must know the token in the address. Pages of other sites that send requests here are refused by Host,
Origin and what browsers say of where a request comes from. No part of a request is ever taken for a path of a file.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .app import Answer, Review, refused

log = logging.getLogger(__name__)
HERE = "127.0.0.1"
LARGEST = 4 << 20  # bytes of what a page sends
SECONDS = 30  # for a request to come in
ONE_SITE = ("same-origin", "none")  # what browsers say of a request of our own page, or of an address typed in
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
    """A server on this machine alone, of one review.

    Args:
        port: 0 takes one that is free.

    Attributes:
        token: Of the address.
        review: What is served; set before serving.
    """

    daemon_threads = True
    review: Review

    def __init__(self, port: int) -> None:
        super().__init__((HERE, port), Handler)
        self.token = secrets.token_urlsafe(32)
        self.hosts = {f"{name}:{self.server_port}" for name in (HERE, "localhost")}

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HERE}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is nothing to tell of."""
        log.debug("a request failed", exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """Checks a request, and has the review answer it."""

    server: Server
    timeout = SECONDS
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "review", ""

    def do_GET(self) -> None:
        """Answer what is asked for."""
        nonce = secrets.token_urlsafe(16)
        answer = self._refusal() or self.server.review.get(self._name(), nonce) or refused(404, "not here")
        self._send(answer, nonce)

    def do_POST(self) -> None:
        """Do what is asked for."""
        answer = self._refusal(sends=True)
        if answer is None:
            content, answer = self._content()
            answer = answer or self.server.review.post(self._name(), content) or refused(404, "not here")
        self._send(answer)

    def __getattr__(self, name: str) -> Any:
        """Every other method is refused."""
        if name.startswith("do_"):
            return lambda: self._send(refused(405, "only GET and POST"))
        raise AttributeError(name)

    # ---------------------------------------------------------------- checks

    def _refusal(self, sends: bool = False) -> Answer | None:
        """Why a request is not answered; None if it is."""
        hosts, origin = self.headers.get_all("Host") or [], self.headers.get("Origin")
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            return refused(403, "another host")
        if (origin is not None or sends) and origin != f"http://{hosts[0].lower()}":
            return refused(403, "another origin")
        if self.headers.get("Sec-Fetch-Site", "none") not in ONE_SITE:
            return refused(403, "another site")
        given = self.path[1:].partition("/")[0]
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.server.token.encode("ascii")):
            return refused(403, "a wrong token")
        return None

    def _name(self) -> str:
        """What follows the token."""
        return self.path[1:].partition("/")[2]

    def _content(self) -> tuple[Any, Answer | None]:
        """The JSON of a request, or why there is none."""
        if self.headers.get_content_type() != "application/json" or self.headers.get("Transfer-Encoding"):
            return None, refused(415, "expected JSON, in one piece")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            return None, refused(411, "expected a Content-Length")
        if len(length) > 12 or int(length) > LARGEST:
            return None, refused(413, f"more than {LARGEST:,} bytes")
        try:
            return json.loads(self.rfile.read(int(length)).decode("utf-8")), None
        except (ValueError, RecursionError):
            return None, refused(400, "no JSON")

    # ---------------------------------------------------------------- answers

    def _send(self, answer: Answer, nonce: str = "") -> None:
        self.close_connection = True
        self.send_response(answer.status)
        self.send_header("Content-Type", f"{answer.kind}; charset=utf-8" if answer.kind[:4] == "text" else answer.kind)
        self.send_header("Content-Length", str(len(answer.content)))
        self.send_header("Content-Security-Policy", POLICY.format(nonce or secrets.token_urlsafe(16)))
        self.send_header("Cache-Control", "private, max-age=3600" if answer.lasting else "no-store")
        if answer.status == 405:
            self.send_header("Allow", "GET, POST")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: lines would have the token."""
