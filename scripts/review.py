"""What `review.sh` runs: the library's command, with paths as they are seen from where the script was called."""

from __future__ import annotations

import sys
import warnings

warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

from coft.core.exit_codes import guarded  # noqa: E402
from coft.review.command import main  # noqa: E402
from scripts.paths import called_from  # noqa: E402

if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:], "scripts/review.sh", called_from)))
