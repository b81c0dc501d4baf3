"""The patch and link for upstream Dassl on current PyTorch, with a stand-in for upstream."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, lr_scheduler

from toys import follow
from upstream import link as linking
from upstream.link import link, main
from upstream.patch.dassl_on_current_torch import mend

SCHEDULES = """
from torch.optim.lr_scheduler import CosineAnnealingLR, _LRScheduler


class WarmUp(_LRScheduler):
    def __init__(self, optimizer, epochs, last_epoch=-1, verbose=False):
        self.successor, self.epochs = CosineAnnealingLR(optimizer, 6), epochs
        super().__init__(optimizer, last_epoch, verbose)

    def get_lr(self):
        return self.successor.get_last_lr() if self.last_epoch >= self.epochs else [0.01]

    def step(self, epoch=None):
        if self.last_epoch < self.epochs:
            return super().step(epoch)
        self.successor.step(epoch)
        self._last_lr = self.successor.get_last_lr()
"""


@pytest.fixture
def warm_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The class WarmUp on the patched base class."""
    hooks = list(sys.meta_path)
    monkeypatch.setattr(lr_scheduler, "_LRScheduler", lr_scheduler._LRScheduler)  # restored after the test
    mend()
    names: dict[str, Any] = {}
    exec(SCHEDULES, names)
    yield names["WarmUp"]
    sys.meta_path[:] = hooks


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Checkout with a package `dassl`."""
    package = tmp_path / "checkout" / "dassl"
    for name in ("modeling", "optim"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "optim" / "lr_scheduler.py").write_text(SCHEDULES)
    return package.parent


def optimizer() -> SGD:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def test_rates_after_warm_up(warm_up: Any) -> None:
    sgd = optimizer()
    assert follow(sgd, warm_up(sgd, 1), 4) == pytest.approx([0.01, 1, 0.93301, 0.75], abs=1e-5)


def test_schedule_resumes_from_plain_data(warm_up: Any, tmp_path: Path) -> None:
    uninterrupted = optimizer()
    expected = follow(uninterrupted, warm_up(uninterrupted, 2), 7)
    first = optimizer()
    schedule = warm_up(first, 2)
    follow(first, schedule, 4)
    torch.save({"optimizer": first.state_dict(), "scheduler": schedule.state_dict()}, tmp_path / "saved")
    second = optimizer()
    restored = warm_up(second, 2)
    saved = torch.load(tmp_path / "saved", weights_only=True)
    second.load_state_dict(saved["optimizer"])
    restored.load_state_dict(saved["scheduler"])
    assert follow(second, restored, 3) == expected[4:]


def test_linked_checkout_is_imported_and_patched(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linking, "dassl_in_place", lambda: None)
    packages = tmp_path / "packages"
    packages.mkdir()
    link(checkout, packages)
    code = f"""
import site, sys
from pathlib import Path
sys.path = [path for path in sys.path if not Path(path, "dassl").is_dir()]
sys.meta_path = [hook for hook in sys.meta_path if "editable" not in repr(hook)]
site.addsitedir({str(packages)!r})
import torch
from dassl.optim.lr_scheduler import WarmUp
print(sys.modules["dassl"].__file__)
WarmUp(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), 1)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(checkout / "dassl" / "__init__.py")


def test_existing_installation_is_not_replaced(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(checkout)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "installed" in lines[0]
