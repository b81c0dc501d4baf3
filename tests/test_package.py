"""The wheel: its contents, and the command `coft` without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from email import message_from_string
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from coft import __version__
from tests.conftest import CLASSNAMES
from tests.forks import ROOT, run_forked

SHORT = ["seeds_per_class=3", "label_views=1", "prec=fp32", "phase1__epochs=1", "phase1__min_steps=1"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder))))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the contents of the wheel."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_contains_one_package_and_licences(site: Path) -> None:
    names = {path.name for path in site.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"coft"} and len(names) == 2
    (about,) = site.glob("*.dist-info")
    assert {path.name for path in (about / "licenses").rglob("*") if path.is_file()} >= {"LICENSE", "licences.csv"}
    assert "coft = coft.cli.main:run" in (about / "entry_points.txt").read_text()
    with_init = {path.parent.relative_to(site) for path in site.rglob("__init__.py")}
    assert {path.parent.relative_to(ROOT) for path in (ROOT / "coft").rglob("__init__.py")} == with_init


def test_wheel_contains_data_files(site: Path) -> None:
    data_files = [path for path in (ROOT / "coft").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert {"report.html", "report.css", "py.typed"} <= {path.name for path in data_files}
    for path in data_files:
        assert (site / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


def test_versions_agree(site: Path) -> None:
    (about,) = site.glob("*.dist-info")
    assert message_from_string((about / "METADATA").read_text(encoding="utf-8"))["Version"] == __version__
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == __version__


def test_dependencies_match_requirements(site: Path) -> None:
    lines = [line.partition("#")[0] for line in (ROOT / "requirements.txt").read_text().splitlines()]
    required = {canonicalize_name(item.name): item.specifier for item in map(Requirement, filter(str.strip, lines))}
    (about,) = site.glob("*.dist-info")
    declared = message_from_string((about / "METADATA").read_text(encoding="utf-8")).get_all("Requires-Dist") or []
    assert len(declared) > 10
    for item in map(Requirement, declared):
        assert required[canonicalize_name(item.name)] == item.specifier, item.name
    of_dassl = {"yacs", "tensorboard"}
    assert required.keys() - {canonicalize_name(Requirement(text).name) for text in declared} == of_dassl


def coft(site: Path, cwd: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Call the command of the wheel from a folder, without the checkout on the path."""
    start = site.parent / "start.py"
    start.write_text(f"import sys\nsys.path.insert(0, {str(site)!r})\nfrom coft.cli.main import run\nrun()\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cwd / "cache")}
    return run_forked([str(start), *arguments], cwd, environment)


def test_adapt_from_any_folder(
    site: Path, tmp_path: Path, folder_of_shapes: Path, checkpoints: dict[str, Path]
) -> None:
    arguments = [str(folder_of_shapes), "--classes", ", ".join(CLASSNAMES), "--output", "mine"]
    done = coft(
        site, tmp_path, ["adapt", *arguments, "--backbone", str(checkpoints["resnet"]), *SHORT, "phase2__epochs=1"]
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (
        "CoFT on your images: 9 unlabeled images, 3 classes" in done.stdout
        and "next:   coft predict mine" in done.stdout
    )
    assert (tmp_path / "mine" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "cache" / "coft" / "features").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "cache"}


def test_packaged_weights_and_configs_are_found(site: Path, tmp_path: Path) -> None:
    start = tmp_path / "places.py"
    start.write_text(f"import sys\nsys.path.insert(0, {str(site)!r})\nfrom coft.core import paths\nprint(paths.HOME)")
    home = Path(run_forked([str(start)], tmp_path).stdout.strip())
    assert home == site / "coft" / "files"
    files = [*(f"weights/{name}" for name in ("photo/open_clip_model.safetensors", "embedded.pt"))]
    files += [f"configs/trainers/{name}/photo.yaml" for name in ("CoFT", "CoFTPlus")]
    for name in files:
        assert (home / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        (["adapt", "--help"], 0, "--classes"),
        (["--version"], 0, f"coft {__version__}"),
        (["adopt"], 2, "did you mean 'adapt'?"),
        (["adapt", "photos", "--classes", "a,b", "filtre=self"], 2, "did you mean 'filter'"),
        (["compare", "digits"], 2, "checkout"),
    ],
)
def test_exit_codes_and_output(arguments: list[str], code: int, output: str, site: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    done = coft(site, tmp_path, arguments)
    assert done.returncode == code and output in done.stdout, done.stdout
    assert not (tmp_path / "adapted").exists()


@pytest.mark.slow
def test_pip_installs_wheel(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "clean", symlinks=True)
    python = tmp_path / "clean" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=120)
    packages = next((tmp_path / "clean" / "lib").glob("python*")) / "site-packages"
    before = {path.name.partition("-")[0] for path in packages.iterdir()}
    assert before == {"coft"}
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))  # its dependencies, without a download
    command = [str(tmp_path / "clean" / "bin" / "coft"), "--help"]
    assert "adapt" in subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=True).stdout
