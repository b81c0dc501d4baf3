"""What `export.sh` runs: the library's command, with paths as they are seen from where the script was called."""

from __future__ import annotations

import sys

from coft.core.startup import settle
from coft.inference.export.command import main
from scripts.paths import called_from

if __name__ == "__main__":
    settle()
    sys.exit(main(sys.argv[1:], "scripts/export.sh", called_from))
