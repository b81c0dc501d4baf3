#!/usr/bin/env bash
# bash scripts/experiments.sh DATASET ... [--seeds 1,2,3] [--backbone B,B2] [--row NAME ...] [--jobs N] [KEY VALUE ...]
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.comparing experiments "$@"
