#!/usr/bin/env bash
# Measures speed and memory against PyTorch, transformers, oneDNN, the machine's ceilings and
# separate pools, over sizes, and text to tokens against tokenizers; writes sections of
# bench/RESULTS.md and bench/scaling.svg. About half an hour. Builds Caravan, and makes a Python
# environment with PyTorch in build/bench-venv, if missing.
#   PEER_PYTHON=PATH   use that interpreter (it must have torch, and transformers for moe) instead
#                      of making an environment
# Arguments go to compare.py: --quick, --rounds N, --threads N,
# --parts speed moe pools scaling tokenizer
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh

environment=build/bench-venv

# Said before anything is built or installed: what arguments there are, and which are wrong.
for argument in "$@"; do
  case "$argument" in -h | --help) exec python3 bench/compare.py --help ;; esac
done
python3 bench/compare.py --check "$@"

# The mark is written last: an environment whose installation broke off is made again.
make_environment() {
  [ ! -e "$environment/complete" ] || return 0
  echo "Making $environment with PyTorch (several GB, once) ..."
  rm -rf "$environment"
  python3 -m venv "$environment" || {
    echo "python3 -m venv failed: install it with 'sudo apt-get install python3-venv'" >&2
    exit 1
  }
  "$environment/bin/pip" install --quiet torch numpy transformers
  touch "$environment/complete"
}

build_caravan() {
  [ -e build/build.ninja ] || cmake --preset release
  cmake --build build --target caravan bench_step bench_pools bench_ceilings bench_tokenizer
  cmake --build build --target bench_onednn ||
    fail "is oneDNN, the yardstick of products, missing? apt-get install libdnnl-dev && cmake build"
}

build_caravan >&2
[ -n "${PEER_PYTHON:-}" ] || make_environment >&2
python="${PEER_PYTHON:-$environment/bin/python}"
"$python" -c 'import torch' || {
  echo "$python cannot import torch: remove build/bench-venv, or set PEER_PYTHON" >&2
  exit 1
}
# torch.compile builds C++ against Python's headers.
"$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' || {
  echo "Python.h is missing for $python: install it with 'sudo apt-get install python3-dev'" >&2
  exit 1
}
allow_local_mpi
exec python3 bench/compare.py --python "$python" "$@"
