"""Local server with the API of OpenAI's chat completions, which sends the replies of a test."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Describe = Callable[..., int]  # describe.sh with flags; returns its exit code
KINDS = (
    "in white",
    "in a dark room",
    "with long thin legs",
    "beside a tall tree",
    "made of rough stone",
    "on wet sand",
)


@dataclass(frozen=True)
class Reply:
    """Reply of the server.

    Attributes:
        content: Text of the answer; the whole body if it is bytes or `raw`.
        status: HTTP status.
        ending: Reason why the answer ends.
        raw: Whether `content` is the whole body.
        body: Whole body, as a JSON object.
    """

    content: str | bytes = ""
    status: int = 200
    ending: str = "stop"
    raw: bool = False
    body: Any = None


def good(name: str, count: int = 5) -> str:
    return json.dumps([f"A picture of {name} {kind}." for kind in KINDS[:count]])


@dataclass
class FakeEndpoint:
    """Server whose replies depend on the class name; the last reply of a class is repeated.

    Attributes:
        replies: Replies by class; other classes get a valid answer.
        before: Function called with the class name before each reply.
        asked: Class names of the requests, in order.
        requests: Bodies of the requests.
        keys: Authorization headers.
    """

    replies: dict[str, list[Reply]] = field(default_factory=dict)
    before: Callable[[str], None] = lambda name: None
    asked: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def reply(self, body: dict[str, Any], key: str) -> Reply:
        question = body["messages"][1]["content"]
        name = re.search(r"on what ['\"](.*?)['\"] looks like", question).group(1)  # type: ignore[union-attr]
        self.before(name)
        turn = self.asked.count(name)
        self.asked.append(name)
        self.requests.append(body)
        self.keys.append(key)
        replies = self.replies.get(name) or [Reply(good(name, int(question.split()[1])))]
        return replies[min(turn, len(replies) - 1)]

    def __enter__(self) -> FakeEndpoint:
        endpoint, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    reply = endpoint.reply(body, self.headers.get("Authorization", ""))
                if isinstance(reply.content, bytes):
                    self.send(reply.status, "application/json", reply.content)
                    return
                message = {"index": 0, "finish_reason": reply.ending}
                message["message"] = {"role": "assistant", "content": reply.content}
                content = reply.body or {"id": "1", "object": "chat.completion", "choices": [message]}
                if reply.status != 200:
                    content = {"error": {"message": reply.content}}
                data = (reply.content if reply.raw else json.dumps(content)).encode()
                self.send(reply.status, "text/html" if reply.raw else "application/json", data)

            def send(self, status: int, kind: str, data: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the client has closed the connection
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *args: Any) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error message, which must be one line."""
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: "), error
    return error
