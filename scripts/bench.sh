#!/usr/bin/env bash
# bash scripts/bench.sh --photo: time of training steps by part, and the limits of the machine
# bash scripts/bench.sh --scaling [--processes 1,2,4]: training steps and encoding with several processes
# bash scripts/bench.sh --pool [--images 40000,80000] [--classes 1000]: labelling a large pool, apart from encoding
# bash scripts/bench.sh --growth [--plot growth.svg]: time and memory by images, classes and pixels
# bash scripts/bench.sh --predict RUN FOLDER: speed of a finished model and of its bare encoders
case "${1:-}" in
  --photo | --scaling | --pool | --growth | --predict) part=${1#--} && shift ;;
  *) echo "error: bench.sh${1:+ $1}: expected --photo, --scaling, --pool, --growth or --predict; add --help to one of them for its flags" >&2 && exit 2 ;;
esac
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m "scripts.bench.$part" "$@"
