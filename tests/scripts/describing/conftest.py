"""Fixtures: an endpoint, a list of class names, and describe.sh with both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.describing.__main__ import main

from .endpoint import Describe, FakeEndpoint


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "pets.txt"
    path.write_text("cat\ngolden_retriever\nguinea pig\n")
    return path


@pytest.fixture
def describe(classes: Path) -> Describe:
    def call(*argv: str) -> int:
        return main(["--classes", str(classes), "--model", "writer", *argv])

    return call
