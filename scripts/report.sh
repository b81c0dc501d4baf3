#!/usr/bin/env bash
# bash scripts/report.sh RUN: report.html of a finished run, anew
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.library report "$@"
