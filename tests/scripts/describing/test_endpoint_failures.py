"""Endpoints that reject, fail, hang or close, and commands that are killed."""

from __future__ import annotations

import gzip
import multiprocessing
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from coft.backbones.descriptions import load_descriptions
from scripts.describing.__main__ import main

from .endpoint import Describe, FakeEndpoint, Reply, good, one_line

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("status", [429, 500])
def test_rejected_request_is_repeated(endpoint: FakeEndpoint, describe: Describe, status: int) -> None:
    endpoint.replies["cat"] = [Reply("slow down", status)] * 3 + [Reply(good("cat"))]
    assert describe() == 0
    assert endpoint.asked.count("cat") == 4


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply("slow down", 429), "429"),
        (Reply("out of order", 500), "out of order"),
        (Reply("wrong key", 401), "OPENAI_API_KEY"),
        (Reply("no such model", 404), "'writer'"),
        (Reply("<html>\nwelcome</html>", raw=True), "/v1"),
    ],
)
def test_failure_of_endpoint_is_one_line(
    endpoint: FakeEndpoint,
    describe: Describe,
    classes: Path,
    capsys: pytest.CaptureFixture[str],
    reply: Reply,
    message: str,
) -> None:
    endpoint.replies["cat"] = [reply]
    assert describe("--workers", "1", "--retries", "2") == 2
    error = one_line(capsys)
    assert message in error and endpoint.url in error and "secret-key" not in error
    assert not classes.with_suffix(".json").exists()
    assert endpoint.asked == ["cat"] * (3 if reply.status in (429, 500) else 1)  # no request for the other classes


@pytest.mark.parametrize("workers", ["1", "2"])
def test_workers_stop_after_a_failure(
    endpoint: FakeEndpoint,
    describe: Describe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: str,
) -> None:
    def completed_late(pending: Iterable[Future[object]]) -> Iterator[Future[object]]:
        wait(pending)
        return iter(pending)

    monkeypatch.setattr("scripts.describing.__main__.as_completed", completed_late)
    endpoint.replies |= {"cat": [Reply("wrong key", 401)], "golden retriever": [Reply("wrong key", 401)]}
    assert describe("--workers", workers, "--retries", "0") == 2
    assert "key" in one_line(capsys) and "guinea pig" not in endpoint.asked


def test_slow_or_missing_endpoint_is_one_line(
    endpoint: FakeEndpoint, describe: Describe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = threading.Event()
    endpoint.before = lambda name: finished.wait(10) and None
    assert describe("--retries", "0", "--timeout", "0.2") == 2
    finished.set()
    assert "--timeout" in one_line(capsys)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert describe("--retries", "0") == 2 and "http://127.0.0.1:9/v1/" in one_line(capsys)


def test_killed_command_resumes(endpoint: FakeEndpoint, classes: Path) -> None:
    classes.write_text("\n".join(f"animal {letter}" for letter in "abcdef"))
    arguments = ["--classes", str(classes), "--model", "writer", "--workers", "1"]
    reached, never = threading.Event(), threading.Event()

    def wait_at_fourth(name: str) -> None:
        if name == "animal d":
            reached.set()
            never.wait(60)

    endpoint.before = wait_at_fourth
    process = multiprocessing.get_context("fork").Process(target=main, args=(arguments,))  # a fork saves the imports
    process.start()
    assert reached.wait(60)
    out, end = classes.with_suffix(".json"), time.monotonic() + 60
    while not out.exists() or "animal c" not in out.read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    assert list(load_descriptions(classes.with_suffix(".json"))) == ["animal a", "animal b", "animal c"]
    endpoint.before = lambda name: None
    never.set()
    assert main(arguments) == 0
    assert endpoint.asked.count("animal a") == endpoint.asked.count("animal c") == 1
    assert list(load_descriptions(classes.with_suffix(".json"))) == [f"animal {letter}" for letter in "abcdef"]


def test_key_is_needed_only_without_a_url(
    endpoint: FakeEndpoint, describe: Describe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert describe() == 0
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setattr("scripts.describing.__main__.existing_descriptions", lambda path: {})
    assert describe() == 2 and "OPENAI_API_KEY is not set" in one_line(capsys)
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
    assert describe() == 2 and "OPENAI_BASE_URL is 'localhost:8000'" in one_line(capsys)


@contextmanager
def answering(answer: bytes, seconds: float = 0) -> Iterator[str]:
    """Run a server that sends the same bytes to all clients, with a pause between two bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                    connection.recv(1 << 16)
                    for byte in (answer[i : i + 1] for i in range(len(answer))) if seconds else (answer,):
                        connection.sendall(byte)
                        time.sleep(seconds)
                    connection.close()
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ANSWERS = {
    "an invalid length": HEAD + b"Content-Length: abc\r\n\r\n{}",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\n{}",
    "gzip header without gzip data": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "large gzip data": HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"[" * (100 << 20)),
    "cut off": HEAD + b"Content-Length: 500\r\n\r\n{}",
    "not JSON": HEAD + b"Content-Length: 2\r\n\r\n\xff\xfe",
}


@pytest.mark.parametrize("kind", list(ANSWERS))
def test_invalid_http_response_is_one_line(
    kind: str, describe: Describe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    with answering(ANSWERS[kind]) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        assert describe("--retries", "0") == 2 and url in one_line(capsys)


def test_timeout_applies_to_the_whole_answer(
    describe: Describe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    with answering(HEAD + b"\r\n" + b" " * 10_000, 0.01) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        assert describe("--retries", "0", "--timeout", "1.5") == 2 and "--timeout" in one_line(capsys)


def test_interrupt_does_not_wait_for_an_answer(endpoint: FakeEndpoint, describe: Describe, classes: Path) -> None:
    waiting, never = threading.Event(), threading.Event()
    endpoint.before = lambda name: waiting.set() or (never.wait(60) and None)  # type: ignore[func-returns-value]
    arguments = ["--classes", str(classes), "--model", "writer"]
    command = [sys.executable, "-m", "scripts.describing", *arguments]
    reset = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored in the background of a shell
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=reset)
    assert waiting.wait(60)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=2)
    never.set()
    assert process.returncode == 130 and "Traceback" not in errors
