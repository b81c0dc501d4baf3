#!/usr/bin/env bash
# Prepares the Python environment. The other scripts source it. Sets PYTHON.
#   bash scripts/setup.sh [--dassl upstream=CHECKOUT] [extra requirements file ...]
# Uses the active environment (a virtualenv, or a conda environment other than base), else creates .venv. Installs
# requirements.txt whenever it has changed. A working `dassl` is left as it is, a missing one is installed from
# compat/dassl, and a broken one ends the script. With --dassl upstream=CHECKOUT, and no dassl in the environment, upstream's
# is taken from a checkout of its repository (compat/dassl/upstream/README.md).
set -euo pipefail

SETUP_VERSION='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'

setup_fail() {
  echo "error: $*" >&2
  exit 2
}

setup_find_python() {
  local candidate
  for candidate in python3.11 python3.12 python3.13 python3.10 python3 python; do
    if "$candidate" -c "import venv; $SETUP_VERSION" 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  setup_fail "no Python 3.10 to 3.13 with the venv module found; install one (on Debian: python3 python3-venv)"
}

# The Python of the active environment, or else of .venv, which may not exist yet.
setup_python() {
  if [ -n "${VIRTUAL_ENV:-}" ] || { [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; }; then
    command -v python || setup_fail "the active environment has no python; deactivate it, and give the command again"
  else
    echo .venv/bin/python
  fi
}

setup_stamp() {
  echo "$("$PYTHON" -c 'import sys; print(sys.prefix)')/.coft-ready-$(basename "$PWD")"
}

# --help must not install anything: before the installation, the first lines of a script are its help.
setup_help() {
  PYTHON=$(setup_python)
  if [ -x "$PYTHON" ] && [ -f "$(setup_stamp)" ]; then return; fi
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$1"
  echo "Nothing is installed yet. The first call without --help installs everything; after that, --help lists all flags"
  exit 0
}

setup_choose_environment() {
  PYTHON=$(setup_python)
  if [ "$PYTHON" != .venv/bin/python ]; then
    "$PYTHON" -c "$SETUP_VERSION" >/dev/null || setup_fail "the active environment has $("$PYTHON" --version 2>&1), and this needs \
Python 3.10 to 3.13; deactivate it (a .venv is made then), or activate another"
    return
  fi
  if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
    local base
    base=$(setup_find_python)
    echo "Making .venv with $base"
    "$base" -m venv --clear .venv
  fi
}

# Files that decide what is installed; a hash of them and of the dassl in place tells whether anything is to do.
setup_state() {
  cat "$@" compat/dassl/pyproject.toml | "$PYTHON" -c '
import hashlib, importlib.metadata as m, importlib.util as u, sys
names = m.packages_distributions().get("dassl", [])
found = [(n, m.version(n)) for n in names] or getattr(u.find_spec("dassl"), "origin", [])
print(hashlib.sha256(sys.stdin.buffer.read() + repr(found).encode()).hexdigest())'
}

# uv is faster where it is there. pip takes over what uv cannot do: some settings of an index are pip's alone.
setup_install() {
  if command -v uv >/dev/null; then
    uv pip install --python "$PYTHON" "$@" && return
    echo "uv could not; pip tries" >&2
  fi
  "$PYTHON" -m pip install --disable-pip-version-check --no-input --no-compile "$@"
}

# The command `coft` of the environment, from this checkout; one that is installed there stays.
setup_command() {
  local command
  command=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("scripts"))')/coft
  if [ -e "$command" ] && ! grep -q sys.path.insert "$command"; then return; fi # pip's
  printf '#!%s\nimport os.path\nimport sys\n\nCHECKOUT = %s\nif not os.path.isdir(CHECKOUT):\n' \
    "$("$PYTHON" -c 'import sys; print(sys.executable)')" "$("$PYTHON" -c 'import os; print(repr(os.getcwd()))')" >"$command"
  printf '%s\n' '    sys.stderr.write(f"error: {CHECKOUT} is gone, whose command this is; call a script of another checkout\n")' \
    '    sys.exit(2)' 'sys.path.insert(0, CHECKOUT)' 'from coft.cli.main import run' '' 'run()' >>"$command"
  chmod +x "$command"
}

setup_main() {
  local upstream=
  if [ "${1:-}" = --dassl ]; then
    [[ "${2:-}" = upstream=?* ]] || setup_fail "--dassl takes upstream=CHECKOUT, a checkout's folder of Dassl.pytorch"
    upstream=${2#upstream=}
    shift 2
  fi
  setup_choose_environment
  if [ -n "$upstream" ]; then
    "$PYTHON" compat/dassl/upstream/link.py "$upstream" --from "$CALLED_FROM" || exit 2
    set -- compat/dassl/upstream/requirements.txt "$@"
  fi
  local files=(requirements.txt "$@") stamp quiet=() flags=() file
  stamp=$(setup_stamp)
  if [ -f "$stamp" ] && grep -qxF "$(setup_state "${files[@]}")" "$stamp"; then
    return
  fi
  echo "Installing requirements into $("$PYTHON" -c 'import sys; print(sys.prefix)')"
  [ -f "$stamp" ] || echo "This is done once. It takes minutes, and a gigabyte or more of disk (several with CUDA)"
  [ -t 1 ] || quiet=(--quiet)
  for file in "${files[@]}"; do flags+=(-r "$file"); done
  setup_install "${quiet[@]}" "${flags[@]}" ||
    setup_fail "pip could not install ${files[*]}; its message is above"
  # Installers compile on one core or not at all, this on all. A file that is no Python of this version is none of our business.
  "$PYTHON" -m compileall -qq -j 0 "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" || true
  "$PYTHON" compat/dassl/upstream/probe.py && return_code=0 || return_code=$?
  case $return_code in
    0) ;;
    3) setup_install "${quiet[@]}" -e compat/dassl ||
      setup_fail "pip could not install compat/dassl; its message is above" ;;
    *) exit 2 ;;
  esac
  setup_command
  setup_state "${files[@]}" >>"$stamp"
}

export CALLED_FROM=$PWD  # relative paths are meant from there: scripts/paths.py
CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." # else a folder of this name that CDPATH knows would do
# Two that are started at once do not install at the same time. The lock ends before what the script is for begins.
if command -v flock >/dev/null; then
  exec 9<scripts/setup.sh
  flock -n 9 || { echo "Another script readies the environment; this one goes on after it" && flock 9; } || true
fi
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  setup_main "$@"
  echo "Ready: $PYTHON"
elif [[ " $* " = *" --help "* || " $* " = *" -h "* ]]; then
  setup_help "scripts/$(basename "$0")"
else
  setup_main ${SETUP_EXTRA:-}
fi
if [ -e /dev/fd/9 ]; then exec 9<&-; fi
