"""Tell whether a working `dassl` is installed: exit code 0 if so, 3 if there is none, 2 with one line if it is broken.

Working means what plugins need: a schedule with warm-up steps, and a checkpoint that was written can be read.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import sys
import tempfile


def probe() -> None:
    """Step a warm-up schedule, write a checkpoint with it, and read it back."""
    import torch

    from dassl.config import get_cfg_default
    from dassl.engine import TRAINER_REGISTRY  # noqa: F401
    from dassl.optim import build_lr_scheduler, build_optimizer
    from dassl.utils import load_checkpoint, save_checkpoint

    cfg = get_cfg_default()
    cfg.OPTIM.NAME, cfg.OPTIM.LR_SCHEDULER, cfg.OPTIM.WARMUP_EPOCH = "sgd", "cosine", 1
    model = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(model, cfg.OPTIM)
    scheduler = build_lr_scheduler(optimizer, cfg.OPTIM)
    before = optimizer.param_groups[0]["lr"]
    optimizer.step()
    scheduler.step()
    if optimizer.param_groups[0]["lr"] == before:
        raise RuntimeError("a schedule with warm-up does not step")
    state = {"state_dict": model.state_dict(), "epoch": 1, "optimizer": optimizer.state_dict()}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        save_checkpoint({**state, "scheduler": scheduler.state_dict(), "val_result": None}, folder, model_name="probe")
        load_checkpoint(f"{folder}/probe")


def main() -> int:
    """Probe and report."""
    if importlib.util.find_spec("dassl") is None:
        return 3
    try:
        probe()
    except Exception as error:
        names = importlib.metadata.packages_distributions().get("dassl", ["dassl"])
        reason = " ".join(str(error).split())[:200]
        print(
            f"error: the installed dassl ({', '.join(names)}) does not work with this torch "
            f"({type(error).__name__}: {reason}); remove it (pip uninstall {names[0]}) to let this project install "
            f"its own, or work in an environment without it",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
