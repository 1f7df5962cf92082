#!/usr/bin/env bash
# Judges `caravan import` and `caravan export` by Hugging Face's transformers, versions 5 and 4
# (tests/judge/judge.py says what it looks at). Wants a built clone; makes two Python environments
# with PyTorch (several GB, once) in build/judge-venv-5 and -4. Some three minutes after that. Not
# part of tests/run.sh.
#   CARAVAN_JUDGE_PYTHON=PATH[:PATH]   interpreters with torch, transformers, numpy and h5py to use
#                                      instead, one for each version
# Exit code 0: all is right; 1: what is wrong was printed; 77: the packages cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh

common=(torch==2.15.0 numpy==2.4.6 h5py==3.16.0 safetensors==0.8.0)

# make_environment FOLDER PACKAGES...: the mark is written last, as an installation may break off.
make_environment() {
  local folder=$1
  shift
  [ ! -e "$folder/complete" ] || return 0
  rm -rf "$folder"
  python3 -m venv "$folder" && "$folder/bin/pip" install --quiet "${common[@]}" "$@" || {
    echo "skipped: cannot install ${common[*]} $* into $folder" >&2
    exit 77
  }
  touch "$folder/complete"
}

[ -x build/caravan ] || fail "build/caravan is missing: cmake --preset release, cmake --build build"
if [ -z "${CARAVAN_JUDGE_PYTHON:-}" ]; then
  make_environment build/judge-venv-5 transformers==5.23.0
  make_environment build/judge-venv-4 transformers==4.57.3
  CARAVAN_JUDGE_PYTHON=build/judge-venv-5/bin/python:build/judge-venv-4/bin/python
fi
arguments=()
IFS=: read -ra pythons <<<"$CARAVAN_JUDGE_PYTHON"
for python in "${pythons[@]}"; do
  "$python" -c 'import h5py, numpy, torch, transformers' 2>/dev/null || {
    echo "skipped: $python lacks torch, transformers, numpy or h5py" >&2
    exit 77
  }
  arguments+=(--python "$python")
done
exec "${pythons[0]}" tests/judge/judge.py "${arguments[@]}" "$@"
