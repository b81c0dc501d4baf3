"""The site: pages, the Python API from docstrings, and the settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.docs.pages import DOCS, ROOT
from trainers.sections import declared


def test_site_is_built_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    reference = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert all(f'id="coft.{name}"' in reference for name in ("api.adapt", "adapted.Adapted.predict_proba"))
    settings = (tmp_path / "site" / "settings" / "index.html").read_text(encoding="utf-8")
    assert declared() and all(f"<code>{name}</code>" in settings for name in declared())


def test_all_pages_are_in_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    in_navigation = [
        page for section in yaml.safe_load(text)["nav"] for entry in section.values() for page in leaves(entry)
    ]
    assert sorted(in_navigation) == sorted([*pages, "settings.md"])  # written by the hook


def leaves(entry: str | list[dict[str, str]]) -> list[str]:
    return [entry] if isinstance(entry, str) else [page for each in entry for page in each.values()]
