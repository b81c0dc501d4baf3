#!/usr/bin/env bash
# bash scripts/picture.sh FOLDER [--image FILE]: draw test images with the predictions of zero-shot CLIP and of a run
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.picture "$@"
