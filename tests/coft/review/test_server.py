"""Requests to the review server: those of its page, and malicious ones."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from coft.engine.class_names import read_classes
from coft.review.server import MAX_BODY_BYTES, Server

from .reviewed_runs import CLASSES, HOSTILE

Send = Callable[..., tuple[http.client.HTTPResponse, bytes]]


@pytest.fixture
def server(start_server: Callable[[], Server]) -> Server:
    return start_server()


@pytest.fixture
def send(server: Server) -> Send:
    """Send a request: send("GET", "state"), with the token, host and origin of the page unless others are given."""

    def call(
        method: str, name: str, content: Any = None, path: str = "", body: bytes | None = None, **other: str | None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = RawConnection("127.0.0.1", server.server_port, timeout=10)
        address = f"127.0.0.1:{server.server_port}"
        headers: dict[str, str | None] = {"Host": address}
        if method == "POST":
            body = json.dumps(content).encode() if body is None else body
            headers |= {
                "Origin": f"http://{address}",
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

    return call


class RawConnection(http.client.HTTPConnection):
    """A connection that does not encode its requests."""

    def _encode_request(self, request: str) -> bytes:
        return request.encode("latin-1")


DRAFT = [["forest"], ["sea"], ["mountain"], [HOSTILE]]


def test_the_page_loads_only_its_own_resources(send: Send, server: Server) -> None:
    answer, page = send("GET", "")
    policy = answer.headers["Content-Security-Policy"]
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert answer.status == 200 and len(nonce) > 15 and page.count(f'nonce="{nonce}"'.encode()) == 4
    assert (
        policy.startswith("default-src 'none'; img-src 'self' data:; connect-src 'self'; ") and "unsafe" not in policy
    )
    assert answer.headers["X-Frame-Options"] == "DENY" and answer.headers["Referrer-Policy"] == "no-referrer"
    assert b"http:" not in page and b"https:" not in page and server.token.encode() not in page
    assert send("GET", "")[0].headers["Content-Security-Policy"] != policy
    for name in ("report.css", "review.css", "draft.js", "review.js"):
        answer, content = send("GET", name)
        assert answer.status == 200 and len(content) > 1000 and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert server.server_address[0] == "127.0.0.1"


def test_a_review_from_start_to_end(send: Send, server: Server, run_folder: Path) -> None:
    state = json.loads(send("GET", "state")[1])
    assert [item["names"][0] for item in state["classes"]] == CLASSES.names and state["suggestions"]
    index = state["classes"][1]["images"][0]
    answer, picture = send("GET", f"picture/{index}")
    assert answer.headers["Content-Type"] == "image/webp" and picture[8:12] == b"WEBP"
    answer, content = send("POST", "effect", {"classes": DRAFT})
    assert answer.status == 200 and sum(json.loads(content)["shares"]) == pytest.approx(1)
    halves = json.loads(send("POST", "split", {"label": 2})[1])["halves"]
    assert [half["count"] for half in halves] == [15, 15]
    answer, content = send("POST", "save", {"classes": DRAFT})
    saved = json.loads(content)
    assert saved["file"] == str(run_folder / "classes-2.txt") and saved["file"] in saved["command"]
    assert read_classes(saved["file"]).names == [item[0] for item in DRAFT]
    assert read_classes(saved["file"]).descriptions == CLASSES.descriptions
    assert not server.ended.is_set()  # type: ignore[attr-defined]
    assert send("POST", "done")[0].status == 200 and server.ended.is_set()  # type: ignore[attr-defined]


def test_each_save_writes_a_new_file(send: Send, server: Server, run_folder: Path) -> None:
    answers = [json.loads(send("POST", "save", {"classes": draft})[1]) for draft in (DRAFT, DRAFT[:2])]
    files = [run_folder / f"classes-{number}.txt" for number in (2, 3)]
    assert [answer["file"] for answer in answers] == list(map(str, files))
    assert [len(read_classes(str(file)).names) for file in files] == [4, 2]
    assert server.review.file == files[1] and server.review.command == answers[1]["command"]


def test_saves_at_the_same_time_answer_with_their_own_files(send: Send, run_folder: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: json.loads(send("POST", "save", {"classes": DRAFT})[1]), range(8)))
    files = {answer["file"] for answer in answers}
    assert len(files) == 8 and all(answer["file"] in answer["command"] for answer in answers)


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
def test_requests_with_bad_headers_change_nothing(
    headers: dict[str, str], status: int, send: Send, run_folder: Path
) -> None:
    answer, content = send("POST", "save", {"classes": DRAFT}, **headers)
    assert answer.status == status and set(json.loads(content)) == {"error"}
    assert not list(run_folder.glob("classes-*"))
    if status == 403 and headers.get("Origin", "given") is not None:
        assert send("GET", "state", **headers)[0].status == 403


@pytest.mark.parametrize("path", ["/", "", "/state", "/{0}", "/{1}/state", "/x{0}/state", "/é/state"])
def test_requests_without_the_token_are_refused(path: str, send: Send, server: Server, run_folder: Path) -> None:
    wrong = server.token[:-1] + ("A" if server.token[-1] != "A" else "B")
    target = path.format(server.token, wrong).encode().decode("latin-1")
    answer, content = send("GET", "", path=target or "*")
    if path != "/{0}":  # the page itself, less a slash
        assert answer.status == 403 and b"sea" not in content
        assert send("POST", "", {"classes": DRAFT}, path=target or "*")[0].status == 403
    assert not list(run_folder.glob("classes-*"))


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
def test_unknown_paths_are_not_found(name: str, send: Send) -> None:
    answer, content = send("GET", name.encode().decode("latin-1"))
    assert answer.status == 404 and set(json.loads(content)) == {"error"}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"null", b"[]", b"1" * 5000, b"[" * 200_000, b'{"classes": 1}', b'{"classes": [], "x": 1}'],
)
def test_a_bad_body_is_refused(body: bytes, send: Send, run_folder: Path) -> None:
    for name in ("effect", "save", "split"):
        answer, content = send("POST", name, body=body)
        assert answer.status == 400 and set(json.loads(content)) == {"error"}
    assert send("POST", "state", {})[0].status == 404 and send("POST", "../save", {})[0].status == 404
    assert not list(run_folder.glob("classes-*"))


@pytest.mark.parametrize("label", [-1, 5, 1.0, True, None, "1", [1]])
def test_a_bad_label_is_not_split(label: Any, send: Send) -> None:
    assert send("POST", "split", {"label": label})[0].status == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "CONNECT"])
def test_other_methods_are_refused(method: str, send: Send) -> None:
    answer, content = send(method, "state")
    assert answer.status == 501 and b"sea" not in content and "Access-Control-Allow-Origin" not in answer.headers


def test_markup_in_names_is_escaped(send: Send) -> None:
    answer, content = send("GET", "state")
    assert answer.headers["Content-Type"] == "application/json" and HOSTILE in content.decode()
    assert HOSTILE.encode() not in send("GET", "")[1]


NONSENSE = (b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"x" * 70_000 + b"\r\n\r\n", b"")


def test_bad_connections_do_not_stop_the_server(server: Server, send: Send, capfd: pytest.CaptureFixture[str]) -> None:
    for sent in NONSENSE:
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert send("GET", "state")[0].status == 200
    assert capfd.readouterr() == ("", "")
