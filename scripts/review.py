"""What `review.sh` runs: the library's command, with paths as they are seen from where the script was called."""

from __future__ import annotations

import sys

from coft.core.exit_codes import guarded
from coft.core.startup import settle
from coft.review.command import main
from scripts.paths import called_from

if __name__ == "__main__":
    settle()
    sys.exit(guarded(lambda: main(sys.argv[1:], "scripts/review.sh", called_from)))
