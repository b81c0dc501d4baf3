"""Starting several processes of a run by torchrun, and saying in one line how they ended."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from coft.core.errors import UserError
from coft.core.processes import GOES_ON

MOST_PROCESSES = 16  # without GPUs, where there are not more cores
TRAIN = Path(__file__).resolve().parents[1] / "train.py"


def run_several(gpus: int, machines: int, endpoint: str, arguments: Sequence[str]) -> int:
    """Run train.py in several processes, as torchrun does.

    Args:
        gpus: Processes of this machine; each has a GPU, if there are GPUs.
        machines: All of them start the same command.
        endpoint: Where they meet, HOST:PORT; not needed for one machine.
        arguments: Of train.py.

    Returns:
        The exit code.

    Raises:
        UserError: If so many processes cannot be.
    """
    config = configured(gpus, machines, endpoint)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // gpus)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it says of ends is below
    try:
        elastic_launch(config, sys.executable)(str(TRAIN), *arguments)
    except ChildFailedError as error:
        return ended(error, gpus)
    except SignalException as error:  # the processes have got it, too, and one of them has said so
        return 128 + int(error.sigval)
    return 0


def configured(gpus: int, machines: int, endpoint: str) -> LaunchConfig:
    """What torchrun needs to know.

    Raises:
        UserError: If so many processes cannot be.
    """
    there = torch.cuda.device_count()
    most = there or max(MOST_PROCESSES, os.cpu_count() or 1)
    if not 1 <= gpus <= most:
        what = f"1 to {most}" + (", the GPUs of this machine" if there else "")
        raise UserError(f"--gpus is {gpus}; expected {what}")
    if machines < 1 or (machines > 1 and not endpoint):
        raise UserError(f"--nnodes is {machines}; several machines need --rdzv-endpoint HOST:PORT, one of them")
    return LaunchConfig(
        min_nodes=machines,
        max_nodes=machines,
        nproc_per_node=gpus,
        run_id="coft",
        rdzv_backend="c10d",
        rdzv_endpoint=endpoint or "localhost:0",
        max_restarts=0,
        start_method="spawn",
    )


def ended(error: ChildFailedError, gpus: int) -> int:
    """Say how the run ended, where no process of this machine is left to say it.

    Args:
        error: What torchrun knows.
        gpus: Processes of this machine.

    Returns:
        The exit code.
    """
    rank, failure = error.get_first_failure()
    if failure.exitcode < 0:
        if gpus == 1:
            print(f"error: rank {rank} was ended by {failure.signal_name()}; {GOES_ON}", file=sys.stderr)
        return 1
    return failure.exitcode
