#!/usr/bin/env bash
# bash scripts/bench.sh [--classes 10,100,397,1000] [--geometry ViT-B/32,ViT-B/16]: a step of Phase I, three ways
# bash scripts/bench.sh tower [--backbone photo] [--sizes 96,128,160,224]: steps and predictions of an image tower
source "$(dirname "$0")/setup.sh"
if [ "${1:-}" = tower ]; then
  shift
  exec "$PYTHON" -m scripts.bench.tower "$@"
fi
exec "$PYTHON" -m scripts.bench "$@"
