#!/usr/bin/env bash
# bash scripts/bench.sh tower [--backbone photo] [--sizes 96,128,160,224]: steps and predictions of an image tower
# bash scripts/bench.sh --scaling [--processes 1,2,4]: steps and encoding by several processes
# bash scripts/bench.sh --pool [--images 40000,80000] [--classes 1000]: labelling a large pool, apart from encoding
case "${1:-}" in
  tower | --scaling | --pool) part=${1#--} && shift ;;
  *) echo "error: bench.sh${1:+ $1}: expected tower, --scaling or --pool; add --help to one of them for its flags" >&2 && exit 2 ;;
esac
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m "scripts.bench.$part" "$@"
