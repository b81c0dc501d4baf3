#!/usr/bin/env bash
# bash scripts/ablate.sh DATASET ... [--trainer CoFT] [--groups G,G2] [--row NAME ...] [--seeds 1,2,3] [--backbone B,B2] [KEY VALUE ...]
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.comparing ablate "$@"
