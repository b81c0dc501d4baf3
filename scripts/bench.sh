#!/usr/bin/env bash
# bash scripts/bench.sh [--classes 10,100,397,1000] [--geometry ViT-B/32,ViT-B/16]: a step of Phase I, three ways
# bash scripts/bench.sh tower [--backbone photo] [--sizes 96,128,160,224]: steps and predictions of an image tower
# bash scripts/bench.sh --scaling [--processes 1,2,4]: steps and encoding by several processes
# bash scripts/bench.sh --pool [--images 40000,80000] [--classes 1000]: labelling a large pool, apart from encoding
source "$(dirname "$0")/setup.sh"
if [ "${1:-}" = tower ]; then
  shift
  exec "$PYTHON" -m scripts.bench.tower "$@"
fi
for part in scaling pool; do
  if [ "${1:-}" = "--$part" ]; then
    shift
    exec "$PYTHON" -m "scripts.bench.$part" "$@"
  fi
done
exec "$PYTHON" -m scripts.bench "$@"
