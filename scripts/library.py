"""Run a command of `coft.cli` on finished runs, with paths relative to the folder where the script was called."""

from __future__ import annotations

import sys

from coft.cli.main import RUN_COMMANDS
from coft.core.exit_codes import guarded
from coft.core.startup import configure_process
from scripts.paths import called_from

if __name__ == "__main__":
    configure_process()
    name, *argv = sys.argv[1:]
    sys.exit(guarded(lambda: RUN_COMMANDS[name](argv, f"scripts/{name}.sh", called_from)))
