"""Sources of the photograph CLIPs: packages from PyPI and npm, pinned by version and SHA-256."""

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
        package: Name of the package.
        version: Version of the package.
        file: Name of its archive.
        sha256: SHA-256 of the archive, in hexadecimal.
        licence: Licence that the package states.
    """

    registry: str
    package: str
    version: str
    file: str
    sha256: str
    licence: str

    def fetch(self, folder: Path) -> Path:
        """Download the archive unless it exists, and check its hash.

        Args:
            folder: Folder of the archives.

        Returns:
            Path of the archive.

        Raises:
            UserError: If it cannot be downloaded, or has another checksum.
        """
        path = folder / self.file
        if not path.is_file():
            log.info("Downloading %s %s from %s", self.package, self.version, self.registry)
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                self._download(Path(scratch))
                (Path(scratch) / self.file).rename(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != self.sha256:
            raise UserError(
                f"{path}: SHA-256 is {digest[:12]}..., {self.package} {self.version} has {self.sha256[:12]}...; "
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
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if process.returncode or not (folder / self.file).is_file():
            raise UserError(
                f"{self.package} {self.version} could not be had from {self.registry} ({reason_of(process.stderr)}); "
                f"go online, or put {self.file} into {folder.parent}"
            )


def reason_of(output: str) -> str:
    """Extract the reason of a failure from the output of pip or npm: its first line about an error."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(npm )?(ERR|error)", line, re.IGNORECASE)]
    errors = [line for line in errors if not re.search(" (code|errno|syscall) ", line)]
    return (errors or lines or ["no reason given"])[0]


@cache
def sources() -> dict[str, Source]:
    """Return all sources by key."""
    entries = json.loads(Path(__file__).with_name("sources.json").read_text(encoding="utf-8"))
    return {key: Source(**fields) for key, fields in entries.items()}
