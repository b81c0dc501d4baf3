#!/usr/bin/env bash
# bash scripts/coft.sh [DATASET] [--backbone NAME] [--seed S] [KEY VALUE ...]
# bash scripts/coft.sh folder --images DIR --classes "tabby cat, golden retriever" --output-dir DIR    # your own images
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" scripts/launch.py CoFT "$@"
