"""Run a command of `commands.py` by name: python -m scripts.comparing compare|table|ablate|results."""

import sys

from coft.core.exit_codes import guarded

from . import commands

if __name__ == "__main__":
    name, *argv = sys.argv[1:]
    sys.exit(guarded(lambda: getattr(commands, name)(argv)))
