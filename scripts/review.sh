#!/usr/bin/env bash
# bash scripts/review.sh RUN [--port N] [--no-browser]: correct the classes of a finished run on a local page
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.library review "$@"
