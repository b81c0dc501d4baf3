#!/usr/bin/env bash
# bash scripts/export.sh RUN --to open_clip|onnx|head DIR: export the model of a finished run for other software (--help: all flags)
source "$(dirname "$0")/setup.sh" >&2 && exec "$PYTHON" -m scripts.library export "$@"
