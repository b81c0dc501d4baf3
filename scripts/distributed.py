"""Start a run in several processes with torchrun, and report in one line how they ended."""

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
from coft.core.processes import RESUME_HINT

MOST_PROCESSES = 16  # limit without GPUs; the number of cores if that is larger
TRAIN = Path(__file__).resolve().parents[1] / "train.py"


def run_distributed(gpus: int, machines: int, endpoint: str, arguments: Sequence[str]) -> int:
    """Run train.py in several processes, as torchrun does.

    Args:
        gpus: Number of processes on this machine; each has its own GPU, if there are GPUs.
        machines: Number of machines. The same command is started on each.
        endpoint: Rendezvous endpoint of the machines, HOST:PORT; not needed for one machine.
        arguments: Arguments of train.py.

    Returns:
        The exit code.

    Raises:
        UserError: If this number of processes or machines is not possible.
    """
    config = launch_config(gpus, machines, endpoint)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // gpus)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # failures are reported below
    try:
        elastic_launch(config, sys.executable)(str(TRAIN), *arguments)
    except ChildFailedError as error:
        return exit_code_of(error)
    except SignalException as error:  # the processes have received it, too, and one of them has reported it
        return 128 + int(error.sigval)
    return 0


def launch_config(gpus: int, machines: int, endpoint: str) -> LaunchConfig:
    """Build torchrun's launch config; arguments as for `run_distributed`.

    Raises:
        UserError: If this number of processes or machines is not possible.
    """
    num_gpus = torch.cuda.device_count()
    most = num_gpus or max(MOST_PROCESSES, os.cpu_count() or 1)
    if not 1 <= gpus <= most:
        devices = ", the GPUs of this machine" if num_gpus else ""
        raise UserError(f"--gpus is {gpus}; expected 1 to {most}{devices}")
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


def exit_code_of(error: ChildFailedError) -> int:
    """Return the exit code of a failed run. A killed process, which could not report that itself, is reported."""
    rank, failure = error.get_first_failure()
    if failure.exitcode < 0:
        print(f"error: rank {rank} was ended by {failure.signal_name()}; {RESUME_HINT}", file=sys.stderr)
        return 1
    return failure.exitcode
