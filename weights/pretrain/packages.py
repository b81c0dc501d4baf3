"""The npm packages of the drawings: installation, reading, and the check of their licences."""

import json
import logging
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from coft.core.errors import UserError
from weights.photographs.sources import reason_of

logger = logging.getLogger(__name__)

PERMISSIVE = {
    "Apache-2.0",
    "BSD-3-Clause",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "OFL-1.1",
    "Unlicense",
}
SCOPES = {
    "icons": "@iconify-json/",
    "emoji": "@iconify-json/",
    "heldout_icons": "@iconify-json/",
    "heldout_emoji": "@iconify-json/",
    "fonts": "@fontsource/",
    "aliases": "",
}


@dataclass(frozen=True)
class Package:
    """A pinned npm package. Its role is a key of ``packages.json``."""

    role: str
    name: str
    version: str

    @property
    def npm_name(self) -> str:
        """Name on npm, scope included."""
        return SCOPES[self.role] + self.name

    def folder(self, cache_dir: Path) -> Path:
        """Return the folder of the installed package."""
        return cache_dir / "npm" / "node_modules" / self.npm_name


@cache
def pinned() -> tuple[Package, ...]:
    """Return all packages of ``packages.json``, in its order."""
    packages: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("packages.json").read_text())
    return tuple(Package(role, name, version) for role in packages for name, version in packages[role].items())


def of_role(*roles: str) -> list[Package]:
    """Return the pinned packages with one of these roles."""
    return [package for package in pinned() if package.role in roles]


def install(cache_dir: Path, packages: list[Package]) -> None:
    """Install the pinned versions under ``cache_dir`` with npm, unless all are installed.

    Raises:
        UserError: If npm is missing or fails.
    """
    if all(_installed_version(package, cache_dir) == package.version for package in packages):
        return
    root = cache_dir / "npm"
    root.mkdir(parents=True, exist_ok=True)
    installed = {package.npm_name: package.version for package in pinned() if package.folder(cache_dir).is_dir()}
    versions = installed | {package.npm_name: package.version for package in packages}
    (root / "package.json").write_text(json.dumps({"private": True, "dependencies": versions}, indent=1))
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    if shutil.which("npm") is None:
        raise UserError("npm was not found; install Node.js with npm, which fetches the drawings")
    logger.info("npm installs %d packages into %s", len(packages), root)
    process = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
    if process.returncode:
        raise UserError(
            f"npm could not install the drawings in {root} ({reason_of(process.stderr)}); go online, or see to that, "
            f"and give the same command again"
        )


def _installed_version(package: Package, cache_dir: Path) -> str | None:
    manifest = package.folder(cache_dir) / "package.json"
    return json.loads(manifest.read_text())["version"] if manifest.is_file() else None


def licence_and_author(package: Package, cache_dir: Path) -> tuple[str, str]:
    """Read the SPDX licence and the author of a package from its files."""
    folder = package.folder(cache_dir)
    path = folder / "info.json"  # in packages of Iconify; has the licence of the drawings
    if path.is_file():
        info = json.loads(path.read_text())
        return str(info["license"]["spdx"]), str(info["author"]["name"])
    manifest = json.loads((folder / "package.json").read_text())
    author: Any = manifest.get("author", "")
    return str(manifest["license"]), str(author.get("name", "") if isinstance(author, dict) else author)


def licence_table(cache_dir: Path, packages: list[Package]) -> list[dict[str, str]]:
    """Return one row per package: role, name, version, licence, author.

    Raises:
        ValueError: If the licence of a package is not in ``PERMISSIVE``.
    """
    rows = []
    for package in packages:
        spdx, author = licence_and_author(package, cache_dir)
        if spdx not in PERMISSIVE:
            raise ValueError(f"{package.npm_name}: licence {spdx} is not permissive; take it out of packages.json")
        row = {"role": package.role, "package": package.npm_name, "version": package.version, "licence": spdx}
        rows.append(row | {"author": author})
    return rows


@dataclass(frozen=True)
class Drawing:
    """An icon: its set, its name in the set, and a complete SVG document."""

    source: str
    name: str
    svg: str
    coloured: bool


def drawings(package: Package, cache_dir: Path) -> Iterator[Drawing]:
    """Yield the visible icons of an Iconify set."""
    folder = package.folder(cache_dir)
    icons = json.loads((folder / "icons.json").read_text())
    coloured = bool(json.loads((folder / "info.json").read_text()).get("palette"))
    for name, icon in icons["icons"].items():
        if not icon.get("hidden"):
            yield Drawing(package.name, name, _document(icon, icons), coloured)


def _document(icon: dict[str, Any], defaults: dict[str, Any]) -> str:
    left, top, width, height = (
        icon.get(key, defaults.get(key, fallback))
        for key, fallback in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {width} {height}">'
    return head + icon["body"].replace("currentColor", "#000") + "</svg>"
