"""The report of a finished run, as one page: `bash scripts/report.sh RUN`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coft.report.write import write_report
from coft.runtime.errors import Parser
from scripts.comparing.session import guarded
from scripts.paths import called_from, shown


def report(argv: Sequence[str]) -> int:
    """Write the report of a run. Returns the exit code."""
    parser = Parser(prog="scripts/report.sh", description="What a finished run found, as one page: report.html.")
    parser.add_argument("run", type=called_from, metavar="RUN", help="output folder of a finished run")
    path = write_report(parser.parse_args(argv).run)
    print(f"  {shown(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: report(sys.argv[1:])))
