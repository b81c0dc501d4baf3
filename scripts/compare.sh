#!/usr/bin/env bash
# bash scripts/compare.sh DATASET ... [--trainers T,T2] [--seeds 1,2,3] [--shots 1,2,4,8,16] [--backbone B,B2] [KEY VALUE ...]
# bash scripts/compare.sh --benchmark paper|full|small|development|confirmation|control|spent [--seeds 1,2] [--kept FILE]
# bash scripts/compare.sh --benchmark paper [--sets S,S2] [--backbone B,B2] [--gpus 0,1] [--part I/N] [--dry-run]
# bash scripts/compare.sh --from FOLDER: tables of any folder of runs, or of a runs.csv
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.comparing compare "$@"
