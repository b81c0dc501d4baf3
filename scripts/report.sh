#!/usr/bin/env bash
# bash scripts/report.sh RUN: write report.html of a finished run again
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.library report "$@"
