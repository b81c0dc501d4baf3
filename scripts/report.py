"""What `report.sh` runs: the library's command, with paths as they are seen from where the script was called."""

from __future__ import annotations

import sys

from coft.command.main import report
from coft.runtime.ending import guarded
from scripts.paths import called_from

if __name__ == "__main__":
    sys.exit(guarded(lambda: report(sys.argv[1:], "scripts/report.sh", called_from)))
