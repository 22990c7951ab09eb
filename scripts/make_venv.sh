#!/usr/bin/env bash
# Creates .venv and installs the pinned requirements; does nothing if that is done.
#
#   scripts/make_venv.sh [PYTHON]        BUILD={auto,cpu,gpu} chooses TensorFlow's build,
#                                        VENV=FOLDER a folder other than .venv
#
# The file made-for is in it once the environment works, installed once the packages are complete.
# An interrupted installation continues; anything else that does not match is recreated.
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
    "gpu "*) fail "BUILD=gpu, but TensorFlow's GPU build needs Linux on x86_64 and this is $machine; use BUILD=cpu." ;;
    "cpu "* | "auto "*) echo requirements.txt ;;
    *) fail "BUILD=$BUILD is not one of auto, cpu and gpu." ;;
  esac
}

holds() { [[ -f $1 && $(<"$1") == "$2" ]]; }

fits() {
  holds "$VENV/made-for" "$made_for" && "$VENV/bin/python" -c "" 2>/dev/null &&
    [[ -z $requested || $(bash scripts/find_python.sh "$VENV/bin/python") == "$requested" ]]
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
  python=${requested:-$(bash scripts/find_python.sh)} || exit 1
  [[ ! -e $VENV || -e $VENV/pyvenv.cfg ]] ||
    fail "$VENV exists and is not a Python environment; remove it, or give another folder: make venv VENV=.venv"
  rm -rf "$VENV"
  echo "Making $VENV with $python"
  with_pip "$python" ||
    fail "$python could not create $VENV (reason: above); give another Python: make venv PYTHON=/path/to/python3.11"
  echo "$made_for" >"$VENV/made-for"
}

# pip writes INSTALLER when a package is complete; it would not notice half a package.
remove_half_installed() {
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
    fail "the packages of $requirements could not be installed (reason: above); the same command resumes the installation."
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
requested=""
if [[ -n ${1:-} ]]; then requested=$(bash scripts/find_python.sh "$1"); fi

fits || create
holds "$VENV/installed" "$wanted" && exit
rm -f "$VENV/installed"
remove_half_installed
if [[ $requirements == requirements-gpu.txt ]]; then install "5 GB"; else install "2 GB"; fi
echo "$wanted" >"$VENV/installed"
