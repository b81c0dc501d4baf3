#!/usr/bin/env bash
# bash scripts/bench.sh [--classes 10,100,397,1000] [--geometry ViT-B/32,ViT-B/16]: a step of Phase I, three ways
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.bench "$@"
