#!/usr/bin/env bash
# bash scripts/describe.sh --classes FILE --model NAME: generate class descriptions with a language model
SETUP_EXTRA=scripts/describing/requirements.txt
source "$(dirname "$0")/setup.sh" && exec "$PYTHON" -m scripts.describing "$@"
