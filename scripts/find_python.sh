#!/usr/bin/env bash
# Prints the path of a Python 3.9, 3.10 or 3.11, the versions TensorFlow 2.15 has packages for.
#
#   scripts/find_python.sh [PYTHON]
#
# A PYTHON that is given is taken or refused. Without one, this looks on PATH, in the places where
# version managers keep theirs, and in the folders in SYSTEM_FOLDERS. Where there is only another
# Python 3, that one installs uv from PyPI into .uv, and uv downloads 3.11 into .uv.
# Finding runs no program but the candidates themselves, so it works whatever PATH holds.
set -uo pipefail
shopt -s nullglob

UV=0.13.9
SCRIPTS=$(cd -- "${BASH_SOURCE[0]%/*}" && pwd)
FETCHED=${SCRIPTS%/*}/.uv
SYSTEM_FOLDERS=${SYSTEM_FOLDERS-/usr/local/bin:/usr/bin:/opt/*/bin:/opt/python/*/bin:/opt/hostedtoolcache/Python/*/x64/bin}
REMEDY="install one (for instance with pyenv: pyenv install 3.11), or name it: make venv PYTHON=/path/to/python3.11"

# "3.11 ready /usr/bin/python3.11"; "bare" where Debian has split ensurepip off. The path is that of
# the interpreter below a virtual environment, which may itself be the .venv about to be replaced.
PROBE='import importlib.util, os, ssl, sys, venv
state = "ready" if importlib.util.find_spec("ensurepip") else "bare"
base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
print("%d.%d" % sys.version_info[:2], state, base)'

fail() {
  echo "error: $*" >&2
  exit 1
}

# pyenv leaves a python3.9 on PATH that only prints advice while 3.9 is not activated: only an answer counts.
examine() { "$1" -I -c "$PROBE" 2>/dev/null; }

suitable() { [[ $1 == 3.9 || $1 == 3.10 || $1 == 3.11 ]]; }

folders() {
  local home=${HOME:-/root} IFS=:
  printf '%s\n' "$FETCHED"/python/*/bin "${PYENV_ROOT:-$home/.pyenv}"/versions/*/bin \
    "$home"/.pyenv/versions/*/bin "$home"/.asdf/installs/python/*/bin \
    "$home"/.local/share/{mise/installs/python,uv/python}/*/bin "$home"/.local/bin \
    "$home"/{miniconda3,miniforge3,mambaforge,anaconda3}/{bin,envs/*/bin} $SYSTEM_FOLDERS
}

candidates() {
  local name folder
  for name in python3.11 python3.10 python3.9 python3 python; do type -aP "$name"; done
  for name in python3.11 python3.10 python3.9 python3; do
    while IFS= read -r folder; do
      [[ -x $folder/$name ]] && echo "$folder/$name"
    done < <(folders)
  done
}

check_given() {
  local program answer version state base
  program=$(type -P "$1") || fail "PYTHON=$1: there is no such program; give the path of a Python 3.9, 3.10 or 3.11."
  answer=$(examine "$program") ||
    fail "PYTHON=$1 is no Python 3 with the modules ssl and venv; give the path of a complete Python 3.9, 3.10 or 3.11."
  read -r version state base <<<"$answer"
  suitable "$version" ||
    fail "PYTHON=$1 is Python $version, but TensorFlow 2.15 runs on 3.9, 3.10 and 3.11 only; give the path of one of these, or leave PYTHON away to have one found."
  echo "$base"
}

# The first complete one; else the first without ensurepip; else nothing, and `others` holds the rest.
find_suitable() {
  local candidate answer version state base bare=""
  others=()
  while IFS= read -r candidate; do
    answer=$(examine "$candidate") || continue
    read -r version state base <<<"$answer"
    if ! suitable "$version"; then
      others+=("$base")
    elif [[ $state == ready ]]; then
      found=$base
      return
    else
      bare=${bare:-$base}
    fi
  done < <(candidates)
  found=$bare
}

install_uv() {
  local pip=(-m pip)
  "$1" -m pip --version >/dev/null 2>&1 || pip=("$("$1" "$SCRIPTS/fetch_pip.py" "$FETCHED")/pip") || return
  PIP_REQUIRE_VIRTUALENV=0 PIP_USER=0 "$1" "${pip[@]}" install --disable-pip-version-check --retries 1 \
    --quiet --upgrade --target "$FETCHED/tool" "uv==$UV"
}

# Python 3.11 through uv, kept inside .uv: nothing is written to the home folder.
download() {
  UV_CACHE_DIR="$FETCHED/cache" UV_PYTHON_INSTALL_DIR="$FETCHED/python" \
    "$FETCHED/tool/bin/uv" --no-config python install --no-bin 3.11
}

bring() {
  local host
  for host in "$@"; do
    [[ -x $FETCHED/tool/bin/uv ]] || install_uv "$host" || continue
    download && return
  done
  return 1
}

if [[ -n ${1:-} ]]; then
  check_given "$1"
  exit
fi

find_suitable
if [[ -z $found && ${#others[@]} -gt 0 ]]; then
  echo "No Python 3.9, 3.10 or 3.11 here: fetching 3.11 with uv into .uv" >&2
  mkdir -p "$FETCHED"
  seen=${others[0]}
  bring "${others[@]}" >"$FETCHED/log" 2>&1 ||
    fail "no Python 3.9, 3.10 or 3.11 was found (only others, such as $seen), and uv could not download 3.11 (why: .uv/log); $REMEDY"
  find_suitable
fi
[[ -n $found ]] || fail "no Python 3.9, 3.10 or 3.11 was found; $REMEDY"
echo "$found"
