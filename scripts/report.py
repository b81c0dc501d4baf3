"""What `report.sh` runs: the library's command, with paths as they are seen from where the script was called."""

from __future__ import annotations

import sys

from coft.cli.main import report
from coft.core.exit_codes import guarded
from scripts.paths import called_from

if __name__ == "__main__":
    sys.exit(guarded(lambda: report(sys.argv[1:], "scripts/report.sh", called_from)))
