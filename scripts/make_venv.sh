#!/usr/bin/env bash
# Makes .venv and installs the pinned requirements; does nothing when that has been done.
#
#   scripts/make_venv.sh [PYTHON]        BUILD={auto,cpu,gpu} chooses TensorFlow's build
#
# .venv/made-for appears once the environment works, .venv/installed once the packages are in it.
# An installation that was interrupted goes on; anything else that does not fit is made afresh.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

fail() {
  echo "error: $*" >&2
  exit 1
}

has_nvidia_driver() { [[ -e /proc/driver/nvidia/version ]] || nvidia-smi -L >/dev/null 2>&1; }

requirements() {
  case ${BUILD:-auto} in
    cpu) echo requirements.txt ;;
    gpu) echo requirements-gpu.txt ;;
    auto) if has_nvidia_driver; then echo requirements-gpu.txt; else echo requirements.txt; fi ;;
    *) fail "BUILD=$BUILD is none of auto, cpu and gpu." ;;
  esac
}

holds() { [[ -f $1 && $(<"$1") == "$2" ]]; }

fits() {
  holds .venv/made-for "$made_for" && .venv/bin/python -c "" 2>/dev/null &&
    [[ -z $wish || $(bash scripts/find_python.sh .venv/bin/python) == "$wish" ]]
}

with_pip() {
  local pip
  if "$1" -I -c "import ensurepip" 2>/dev/null; then
    "$1" -I -m venv .venv
  else
    pip=$("$1" -I scripts/fetch_pip.py .uv) && "$1" -I -m venv --without-pip .venv &&
      .venv/bin/python "$pip/pip" install --quiet --no-index "$pip"
  fi
}

create() {
  local python
  python=${wish:-$(bash scripts/find_python.sh)} || exit 1
  rm -rf .venv
  echo "Making .venv with $python"
  with_pip "$python" ||
    fail "$python could not make .venv (why: above); name another Python: make venv PYTHON=/path/to/python3.11"
  echo "$made_for" >.venv/made-for
}

# pip writes INSTALLER when a package's files are all there: without it pip would trust half a package.
forget_half_installed() {
  local record
  for record in .venv/lib/python3*/site-packages/*.dist-info; do
    [[ -e $record/INSTALLER ]] || rm -rf "$record"
  done
}

install() {
  local quiet=()
  [[ -t 1 ]] || quiet=(--quiet)
  echo "Installing $requirements into .venv (about $1, once)"
  PIP_USER=0 .venv/bin/python -m pip install ${quiet[@]+"${quiet[@]}"} --disable-pip-version-check \
    --only-binary=:all: -r "$requirements" ||
    fail "the packages of $requirements could not be installed (why: above); the same command goes on where this stopped."
}

[[ $(uname -sm) == "Linux x86_64" ]] ||
  fail "this is $(uname -sm), but TensorFlow Addons 0.23 has packages for Linux on x86_64 only; use such a machine."
requirements=$(requirements)
made_for="$PWD, $requirements"
wanted=$(cat requirements-common.txt "$requirements" | sha256sum)
wish=""
if [[ -n ${1:-} ]]; then wish=$(bash scripts/find_python.sh "$1"); fi

fits || create
holds .venv/installed "$wanted" && exit
rm -f .venv/installed
forget_half_installed
if [[ $requirements == requirements-gpu.txt ]]; then install "5 GB"; else install "2 GB"; fi
echo "$wanted" >.venv/installed
