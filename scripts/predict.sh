#!/usr/bin/env bash
# bash scripts/predict.sh RUN IMAGES...: predict images with the model of a finished run, as CSV or JSON lines (--help: all flags)
source "$(dirname "$0")/setup.sh" >&2 && exec "$PYTHON" -m scripts.library predict "$@"
