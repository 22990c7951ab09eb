#!/usr/bin/env bash
# Prints the path of the best Python for this project: 3.11, 3.10 or 3.9, for which TensorFlow 2.15
# and its add-ons have packages, else 3.12 or 3.13, for which TensorFlow 2.21 has.
#
#   scripts/find_python.sh [PYTHON]
#
# A PYTHON given as a program is used or rejected. Given as a version, such as 3.12, or not given, it
# is searched for on PATH, in version managers' folders and in SYSTEM_FOLDERS.
# The search runs no programs except the candidates, so it works with any PATH.
set -uo pipefail
shopt -s nullglob

VERSIONS="3.11 3.10 3.9 3.12 3.13" # best first
SYSTEM_FOLDERS=${SYSTEM_FOLDERS-/usr/local/bin:/opt/homebrew/bin:/opt/local/bin:/usr/bin:/opt/*/bin:/opt/python/*/bin:/opt/hostedtoolcache/Python/*/*/bin:/Library/Frameworks/Python.framework/Versions/*/bin}
NEEDED="a Python 3.9 to 3.13"
REMEDY="install one (for instance python3 of your distribution, or with pyenv: pyenv install 3.11), or name it: make venv PYTHON=/path/to/python3.11"

# "3.11 Linux x86_64 /usr/bin/python3.11"; "3.13t" for a free-threaded build. For a virtual
# environment, which may be the .venv about to be replaced, the path is its base interpreter's.
PROBE='import os, ssl, sys, venv
machine = os.uname()
base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
print("%d.%d" % sys.version_info[:2] + sys.abiflags, machine.sysname, machine.machine, base)'

fail() {
  echo "error: $*" >&2
  exit 1
}

# While 3.9 is not activated, pyenv's python3.9 on PATH only prints advice: only an answer counts.
examine() { "$1" -I -c "$PROBE" 2>/dev/null; }

# TensorFlow's packages for Macs with an Intel processor end before Python 3.13.
suitable() {
  case "$1 $2 $3" in
    "3.12 Darwin x86_64" | "3.13 Darwin x86_64") return 1 ;;
  esac
  case " $VERSIONS " in *" $1 "*) ;; *) return 1 ;; esac
}

folders() {
  local home=${HOME:-/root} IFS=:
  printf '%s\n' "${PYENV_ROOT:-$home/.pyenv}"/versions/*/bin "$home"/.pyenv/versions/*/bin \
    "$home"/.asdf/installs/python/*/bin \
    "$home"/.local/share/{mise/installs/python,uv/python}/*/bin "$home"/.local/bin \
    "$home"/{miniconda3,miniforge3,mambaforge,anaconda3}/{bin,envs/*/bin} $SYSTEM_FOLDERS
}

candidates() {
  local name names folder
  names="${VERSIONS// / python} python3"
  for name in python$names python; do type -aP "$name"; done
  for name in python$names; do
    while IFS= read -r folder; do
      [[ -x $folder/$name ]] && echo "$folder/$name"
    done < <(folders)
  done
}

check_given() {
  local program answer version system machine base
  program=$(type -P "$1") || fail "PYTHON=$1: no such program; give the path of $NEEDED."
  answer=$(examine "$program") ||
    fail "PYTHON=$1 is not a Python 3 with the modules ssl and venv; give the path of a complete Python 3.9 to 3.13."
  read -r version system machine base <<<"$answer"
  suitable "$version" "$system" "$machine" ||
    fail "PYTHON=$1 is Python $version on $system $machine, for which TensorFlow has no packages; give the path of $NEEDED (3.9 to 3.11 on a Mac with an Intel processor), or omit PYTHON to search for one."
  echo "$base"
}

# Sets `found` to the first of the best version, `other` to an unsuitable one.
find_best() {
  local candidate answer version system machine base rank best=99
  found=""
  other=""
  while IFS= read -r candidate; do
    answer=$(examine "$candidate") || continue
    read -r version system machine base <<<"$answer"
    if suitable "$version" "$system" "$machine"; then
      rank=${VERSIONS%%"$version"*}
      if ((${#rank} < best)); then best=${#rank} found=$base; fi
      ((best == 0)) && return
    else
      other=$base
    fi
  done < <(candidates)
}

given=${1:-}
if [[ $given =~ ^3\.[0-9]+$ ]]; then
  suitable "$given" "" "" || fail "PYTHON=$given: TensorFlow has no packages for it here; use $NEEDED."
  VERSIONS=$given
elif [[ -n $given ]]; then
  check_given "$given"
  exit
fi

find_best
[[ -n $found ]] || fail "no Python ${given:-3.9 to 3.13} was found${other:+ (only others, such as $other)}; $REMEDY"
echo "$found"
