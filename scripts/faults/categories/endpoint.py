"""The description endpoint: odd answers, errors that repeat the request, addresses and keys that are none."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from unittest import mock

from ..case import Case, Right, Wrong
from ..scene import SECRET, Scene

CATEGORY = "endpoint"
PASSWORD = f"user:{SECRET}"
GOOD = json.dumps([f"A cat with {what} sits on the warm floor." for what in ("stripes", "spots", "long fur", "a tail")])
ANSWERS: dict[str, Any] = {
    "nothing": "",
    "no JSON": "I cannot do that.",
    "a number": "5",
    "nested deeply": "[" * 200_000,
    "nested lists": json.dumps([[[[["A cat."]]]]]),
    "an object in an object": json.dumps({"a": {"b": {"c": "x"}}}),
    "null": "null",
    "a list of nulls": "[null, null]",
    "half a character": '["A cat \\ud800 sits on the warm wooden floor there."]',
    "control characters": '["A cat\\u001b[31m sits on the warm wooden floor there."]',
    "ten million letters": "x" * 10_000_000,
    "thoughts without end": "<think>" * 1000,
    "NaN": "[NaN]",
    "a list for a text": [{"type": "text", "text": "A cat."}],
    "an object for a text": {"a": 1},
    "a number for a text": 5,
    "nothing for a text": None,
}
REPLIES: dict[str, tuple[int, bytes]] = {
    "no JSON": (200, b"hello"),
    "an empty reply": (200, b""),
    "JSON of another form": (200, b"[1, 2]"),
    "no choices": (200, b'{"choices": []}'),
    "choices that are null": (200, b'{"choices": null}'),
    "choices that are texts": (200, b'{"choices": ["x"]}'),
    "nested deeply": (200, b"[" * 100_000),
    "not UTF-8": (200, b"\xff\xfe{"),
    "unauthorised": (401, b'{"error": {"message": "wrong key %s"}}' % SECRET.encode()),
    "forbidden": (403, b'{"error": "key %s is not allowed"}' % SECRET.encode()),
    "not found": (404, b"<html>nothing</html>"),
    "a bad request that is repeated": (400, b"Bearer %s" % SECRET.encode()),
    "escapes": (400, b'{"error": {"message": "\\u001b[31mred\\nsecond line"}}'),
    "a long error": (400, b'{"error": {"message": "' + b"x" * 100_000 + b'"}}'),
    "too many": (429, b"{}"),
    "a server's error": (500, b"%s" % SECRET.encode()),
    "elsewhere": (302, b""),
}
ADDRESSES = (
    *(
        "localhost",
        "ftp://localhost",
        "http://",
        "http://[::1",
        "http://a b",
        "http://localhost:99999/v1",
        "file:///etc/passwd",
    ),
    *(
        f"http://{PASSWORD}@localhost:9/v1",
        f"https://{PASSWORD}@",
        f"{PASSWORD}@localhost",
        "http://localhost:9/\x1b[31m",
    ),
)
KEYS = (f"{SECRET}\n", f"{SECRET}\nX: y", f"{SECRET} {SECRET}", f"{SECRET}é", f"\x1b[31m{SECRET}", "")


def cases(quick: bool) -> list[Case]:
    """All cases."""
    found = [
        Case(CATEGORY, f"answer: {name}", partial(asked, body=chat(answer)), Right.REFUSED, ("cat", "http"))
        for name, answer in ANSWERS.items()
    ]
    found += [
        Case(CATEGORY, f"reply: {name}", partial(asked, body=body, status=status), Right.REFUSED, ("http", "cat"))
        for name, (status, body) in REPLIES.items()
    ]
    found += [
        Case(CATEGORY, f"address {number}", partial(addressed, url=url), Right.REFUSED, ("OPENAI_BASE_URL", "http"))
        for number, url in enumerate(ADDRESSES)
    ]
    found += [
        Case(CATEGORY, f"key {number}", partial(keyed, key=key), names=("KEY", "http"))
        for number, key in enumerate(KEYS)
    ]
    found.append(Case(CATEGORY, "as it should be", partial(asked, body=chat(GOOD)), Right.FINE))
    return found


def chat(text: Any) -> bytes:
    """What an endpoint replies with an answer."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()


@contextmanager
def serving(status: int, body: bytes) -> Iterator[str]:
    """An endpoint that gives one reply to all requests. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def asked(scene: Scene, body: bytes, status: int = 200) -> None:
    """Ask an endpoint that replies so."""
    try:
        with serving(status, body) as url:
            describe(scene, url)
    finally:
        if (scene.place / "out.json").exists() and b"warm floor" not in body:
            raise Wrong("a file of descriptions was written")


def describe(scene: Scene, url: str, key: str = SECRET) -> None:
    """Have the class cat described."""
    from scripts.describing.__main__ import make_parser, run

    names = scene.file("names.txt", "cat\n")
    flags = ["--classes", str(names), "--model", "m", "--out", str(scene.place / "out.json"), "--retries", "0"]
    flags += [
        "--sentences",
        "3",
        "--attempts",
        "2",
        "--timeout",
        "5",
        "--workers",
        "1",
        "--cache",
        str(scene.place / "kept"),
    ]
    with mock.patch.dict(os.environ, {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": key}):
        run(make_parser().parse_args(flags))


def addressed(scene: Scene, url: str) -> None:
    """Ask at an address that is none, or where nobody is."""
    describe(scene, url)


def keyed(scene: Scene, key: str) -> None:
    """Ask with a key that is none."""
    with serving(401, b"no: " + key.encode(errors="replace")) as url:
        describe(scene, url, key)
