#!/usr/bin/env bash
# bash scripts/export.sh RUN --to open_clip|onnx|head DIR: the model of a finished run in a form that others read (--help: all flags)
source "$(dirname "$0")/setup.sh" >&2 && exec "$PYTHON" -m scripts.library export "$@"
