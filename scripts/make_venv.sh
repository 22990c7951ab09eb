#!/usr/bin/env bash
# Makes .venv and installs the pinned requirements; does nothing when that has been done.
#
#   scripts/make_venv.sh [PYTHON]        BUILD={auto,cpu,gpu} chooses TensorFlow's build,
#                                        VENV=FOLDER another folder than .venv
#
# made-for appears in it once the environment works, installed once the packages are in it.
# An installation that was interrupted goes on; anything else that does not fit is made afresh.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

fail() {
  echo "error: $*" >&2
  exit 1
}

has_nvidia_driver() { [[ -e /proc/driver/nvidia/version ]] || nvidia-smi -L >/dev/null 2>&1; }

requirements() {
  case "${BUILD:-auto} $machine" in
    "gpu Linux x86_64") echo requirements-gpu.txt ;;
    "auto Linux x86_64") if has_nvidia_driver; then echo requirements-gpu.txt; else echo requirements.txt; fi ;;
    "gpu "*) fail "BUILD=gpu, but TensorFlow's GPU build is for Linux on x86_64 and this is $machine; use BUILD=cpu." ;;
    "cpu "* | "auto "*) echo requirements.txt ;;
    *) fail "BUILD=$BUILD is not one of auto, cpu and gpu." ;;
  esac
}

holds() { [[ -f $1 && $(<"$1") == "$2" ]]; }

fits() {
  holds "$VENV/made-for" "$made_for" && "$VENV/bin/python" -c "" 2>/dev/null &&
    [[ -z $wish || $(bash scripts/find_python.sh "$VENV/bin/python") == "$wish" ]]
}

with_pip() {
  local pip
  if "$1" -I -c "import ensurepip" 2>/dev/null; then
    "$1" -I -m venv "$VENV"
  else
    "$1" -I -m venv --without-pip "$VENV" && pip=$("$1" -I scripts/fetch_pip.py "$VENV/pip") &&
      "$VENV/bin/python" "$pip/pip" install --quiet --no-index "$pip"
  fi
}

create() {
  local python
  python=${wish:-$(bash scripts/find_python.sh)} || exit 1
  [[ ! -e $VENV || -e $VENV/pyvenv.cfg ]] ||
    fail "$VENV is there and is not an environment of Python; remove it, or name another folder: make venv VENV=.venv"
  rm -rf "$VENV"
  echo "Making $VENV with $python"
  with_pip "$python" ||
    fail "$python could not make $VENV (why: above); name another Python: make venv PYTHON=/path/to/python3.11"
  echo "$made_for" >"$VENV/made-for"
}

# pip writes INSTALLER when a package's files are all there: without it pip would trust half a package.
forget_half_installed() {
  local record
  for record in "$VENV"/lib/python3*/site-packages/*.dist-info; do
    [[ -e $record/INSTALLER ]] || rm -rf "$record"
  done
}

install() {
  local quiet=()
  [[ -t 1 ]] || quiet=(--quiet)
  echo "Installing $requirements into $VENV (about $1, once)"
  PIP_USER=0 "$VENV/bin/python" -m pip install ${quiet[@]+"${quiet[@]}"} --disable-pip-version-check \
    --only-binary=:all: -r "$requirements" ||
    fail "the packages of $requirements could not be installed (why: above); the same command goes on where this stopped."
}

VENV=${VENV:-.venv}
machine=$(uname -sm)
case $machine in
  "Linux x86_64" | "Linux aarch64" | "Darwin arm64" | "Darwin x86_64") ;;
  *) fail "this is $machine, but TensorFlow has packages for Linux on x86_64 or aarch64 and for macOS only; use such a machine." ;;
esac
requirements=$(requirements)
made_for="$PWD, $requirements"
wanted=$(cat requirements-common.txt "$requirements" | cksum)
wish=""
if [[ -n ${1:-} ]]; then wish=$(bash scripts/find_python.sh "$1"); fi

fits || create
holds "$VENV/installed" "$wanted" && exit
rm -f "$VENV/installed"
forget_half_installed
if [[ $requirements == requirements-gpu.txt ]]; then install "5 GB"; else install "2 GB"; fi
echo "$wanted" >"$VENV/installed"
