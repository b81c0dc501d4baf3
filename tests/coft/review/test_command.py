"""`coft review`: from the run to the command of a new run."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from coft.cli.main import main
from coft.engine.class_names import read_classes


def post(url: str, name: str, content: object) -> dict[str, str]:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=20)
    headers = {"Content-Type": "application/json", "Origin": f"http://{address.netloc}"}
    connection.request("POST", address.path + name, json.dumps(content), headers)
    return dict(json.loads(connection.getresponse().read()))


def test_a_review_saves_classes_and_prints_a_command(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    urls, commands = list[str](), list[str]()

    def review(url: str) -> None:
        urls.append(url)
        commands.append(post(url, "save", {"classes": [["forest"], ["sea", "lake"]]})["command"])
        post(url, "done", None)

    monkeypatch.setattr(webbrowser, "open", lambda url: threading.Thread(target=review, args=[url]).start())
    assert main(["review", str(copied)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"http://127\.0\.0\.1:\d+/[\w-]{40,}/", out) and urls[0] in out
    assert read_classes(str(copied / "classes-2.txt")).synonyms == {"sea": ("lake",)}
    assert f"  {commands[0]}\n" in out and f"--classes {copied}/classes-2.txt" in commands[0]


def test_bad_arguments_are_refused(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as socket_in_use:
        port = str(socket_in_use.getsockname()[1])
        for argv, message in (
            ([str(tmp_path / "nowhere")], "no such folder"),
            ([str(copied), "--port", "0"], "'0' is no port"),
            ([str(copied), "--no-browser", "--port", port], f"--port {port}: cannot be had"),
        ):
            assert main(["review", *argv]) == 2
            error = capsys.readouterr().err
            assert message in error and error.startswith("error: ") and error.count("\n") == 1
