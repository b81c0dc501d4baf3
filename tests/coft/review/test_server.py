"""Requests that a page of the review makes, and those that it never would."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coft.engine.class_names import read_classes
from coft.review.server import MAX_BODY_BYTES, Server

from .reviewed_runs import CLASSES, HOSTILE

Ask = Callable[..., tuple[http.client.HTTPResponse, bytes]]


@pytest.fixture
def server(reviewing: Callable[[], Server]) -> Server:
    return reviewing()


@pytest.fixture
def ask(server: Server) -> Ask:
    """Send a request: ask("GET", "state"), with the token, host and origin of the page unless they are given."""

    def send(
        method: str, name: str, content: Any = None, path: str = "", body: bytes | None = None, **other: str | None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = Plain("127.0.0.1", server.server_port, timeout=10)
        here = f"127.0.0.1:{server.server_port}"
        headers: dict[str, str | None] = {"Host": here}
        if method == "POST":
            body = json.dumps(content).encode() if body is None else body
            headers |= {
                "Origin": f"http://{here}",
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
            }
        headers |= {key.replace("_", "-"): value for key, value in other.items()}
        connection.putrequest(method, path or f"/{server.token}/{name}", skip_host=True, skip_accept_encoding=True)
        for key, value in headers.items():
            if value is not None:
                connection.putheader(key, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer, content

    return send


class Plain(http.client.HTTPConnection):
    """Sends a request as it is, other characters than ASCII included."""

    def _encode_request(self, request: str) -> bytes:
        return request.encode("latin-1")


DRAFT = [["forest"], ["sea"], ["mountain"], [HOSTILE]]


def test_the_page_is_made_of_its_own_parts_alone(ask: Ask, server: Server) -> None:
    answer, page = ask("GET", "")
    policy = answer.headers["Content-Security-Policy"]
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert answer.status == 200 and len(nonce) > 15 and page.count(f'nonce="{nonce}"'.encode()) == 4
    assert (
        policy.startswith("default-src 'none'; img-src 'self' data:; connect-src 'self'; ") and "unsafe" not in policy
    )
    assert answer.headers["X-Frame-Options"] == "DENY" and answer.headers["Referrer-Policy"] == "no-referrer"
    assert b"http:" not in page and b"https:" not in page and server.token.encode() not in page
    assert ask("GET", "")[0].headers["Content-Security-Policy"] != policy
    for name in ("report.css", "review.css", "draft.js", "review.js"):
        answer, content = ask("GET", name)
        assert answer.status == 200 and len(content) > 1000 and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert server.server_address[0] == "127.0.0.1"


def test_a_review_from_start_to_end(ask: Ask, server: Server, tmp_path: Path) -> None:
    state = json.loads(ask("GET", "state")[1])
    assert [item["names"][0] for item in state["classes"]] == CLASSES.names and state["suggestions"]
    index = state["classes"][1]["images"][0]
    answer, picture = ask("GET", f"picture/{index}")
    assert answer.headers["Content-Type"] == "image/webp" and picture[8:12] == b"WEBP"
    answer, content = ask("POST", "effect", {"classes": DRAFT})
    assert answer.status == 200 and sum(json.loads(content)["shares"]) == pytest.approx(1)
    halves = json.loads(ask("POST", "split", {"label": 2})[1])["halves"]
    assert [half["count"] for half in halves] == [15, 15]
    answer, content = ask("POST", "save", {"classes": DRAFT, "page": 0})
    saved = json.loads(content)
    assert saved["file"] == str(tmp_path / "saved.txt") and saved["file"] in saved["command"] and not saved["notice"]
    assert read_classes(saved["file"]).names == [item[0] for item in DRAFT]
    assert read_classes(saved["file"]).descriptions == CLASSES.descriptions
    assert not server.ended.is_set()  # type: ignore[attr-defined]
    assert ask("POST", "done")[0].status == 200 and server.ended.is_set()  # type: ignore[attr-defined]


def test_two_windows_write_to_two_files(ask: Ask, server: Server, tmp_path: Path) -> None:
    pages = [json.loads(ask("GET", "state")[1])["page"] for _ in range(2)]
    drafts = [DRAFT, DRAFT[:2], DRAFT[:3]]
    answers = [
        json.loads(ask("POST", "save", {"classes": draft, "page": page})[1])
        for draft, page in zip(drafts, [pages[0], pages[1], pages[0]], strict=True)
    ]
    other = Path(answers[1]["file"])
    assert answers[0]["file"] == answers[2]["file"] == str(tmp_path / "saved.txt") and other.parent != tmp_path
    assert f"{tmp_path / 'saved.txt'} was saved in another window" in answers[1]["notice"]
    assert not answers[0]["notice"] and not answers[2]["notice"] and server.review.command == answers[2]["command"]
    assert [len(read_classes(path).names) for path in (answers[0]["file"], str(other))] == [3, 2]
    other.unlink()  # the folder is of all tests


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Host": "evil.example:80@127.0.0.1"}, 403),
        ({"Host": None}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": None}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Transfer_Encoding": "chunked"}, 415),
        ({"Content_Length": None}, 411),
        ({"Content_Length": "-1"}, 411),
        ({"Content_Length": "9" * 30}, 413),
        ({"Content_Length": str(MAX_BODY_BYTES + 1)}, 413),
    ],
)
def test_a_request_from_elsewhere_or_of_another_form_changes_nothing(
    headers: dict[str, str], status: int, ask: Ask, tmp_path: Path
) -> None:
    answer, content = ask("POST", "save", {"classes": DRAFT, "page": 0}, **headers)
    assert answer.status == status and set(json.loads(content)) == {"error"}
    assert not (tmp_path / "saved.txt").exists()
    if status == 403 and headers.get("Origin", "given") is not None:
        assert ask("GET", "state", **headers)[0].status == 403


@pytest.mark.parametrize("path", ["/", "", "/state", "/{0}", "/{1}/state", "/x{0}/state", "/é/state"])
def test_without_the_token_there_is_nothing(path: str, ask: Ask, server: Server, tmp_path: Path) -> None:
    wrong = server.token[:-1] + ("A" if server.token[-1] != "A" else "B")
    asked = path.format(server.token, wrong).encode().decode("latin-1")
    answer, content = ask("GET", "", path=asked or "*")
    if path != "/{0}":  # the page itself, less a slash
        assert answer.status == 403 and b"sea" not in content
        assert ask("POST", "", {"classes": DRAFT}, path=asked or "*")[0].status == 403
    assert not (tmp_path / "saved.txt").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../config.yaml",
        "..%2f..%2fetc/passwd",
        "picture/../../etc/passwd",
        "picture//etc/passwd",
        "picture/-1",
        "picture/1e3",
        "picture/²",
        "picture/99999999",
        "picture/" + "9" * 400,
        "review.html",
        "templates/review.html",
        "save",
        "classes.txt",
        "state?x",
        "state/",
    ],
)
def test_no_path_of_a_request_is_opened(name: str, ask: Ask) -> None:
    answer, content = ask("GET", name.encode().decode("latin-1"))
    assert answer.status == 404 and set(json.loads(content)) == {"error"}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"null", b"[]", b"1" * 5000, b"[" * 200_000, b'{"classes": 1}', b'{"classes": [], "x": 1}'],
)
def test_what_is_no_list_of_classes_is_refused(body: bytes, ask: Ask, tmp_path: Path) -> None:
    for name in ("effect", "save", "split"):
        answer, content = ask("POST", name, body=body)
        assert answer.status == 400 and set(json.loads(content)) == {"error"}
    assert ask("POST", "state", {})[0].status == 404 and ask("POST", "../save", {})[0].status == 404
    assert not (tmp_path / "saved.txt").exists()


@pytest.mark.parametrize("label", [-1, 5, 1.0, True, None, "1", [1]])
def test_a_class_that_is_none_is_not_split(label: Any, ask: Ask) -> None:
    assert ask("POST", "split", {"label": label})[0].status == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "CONNECT"])
def test_other_methods_are_refused(method: str, ask: Ask) -> None:
    answer, content = ask(method, "state")
    assert answer.status == 405 and answer.headers["Allow"] == "GET, POST"
    assert b"sea" not in content and "Access-Control-Allow-Origin" not in answer.headers


def test_markup_in_names_is_text(ask: Ask) -> None:
    answer, content = ask("GET", "state")
    assert answer.headers["Content-Type"] == "application/json" and HOSTILE in content.decode()
    assert HOSTILE.encode() not in ask("GET", "")[1]


NONSENSE = (b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"x" * 70_000 + b"\r\n\r\n", b"")


def test_a_connection_that_says_nonsense_harms_nobody(
    server: Server, ask: Ask, capfd: pytest.CaptureFixture[str]
) -> None:
    for sent in NONSENSE:
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert ask("GET", "state")[0].status == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("part", ["line", "headers", "body"])
def test_a_request_that_comes_byte_by_byte_ends(part: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coft.review.server.REQUEST_TIMEOUT", 0.3)
    here = f"127.0.0.1:{server.server_port}"
    head = f"POST /{server.token}/save HTTP/1.1\r\nHost: {here}\r\nOrigin: http://{here}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 1000\r\n"
    beginning = {"line": "", "headers": head, "body": f"{head}\r\n"}[part]
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(beginning.encode())
        until = time.monotonic() + 5
        with contextlib.suppress(OSError):  # it hung up
            while time.monotonic() < until:
                connection.sendall(b"x")
                connection.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    connection.recv(4096)
                    break
        assert time.monotonic() < until
