#!/usr/bin/env bash
# bash scripts/picture.sh FOLDER [--image FILE]: test images with what zero-shot CLIP and the run of a folder make of them
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" scripts/picture.py "$@"
