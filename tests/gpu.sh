#!/usr/bin/env bash
# Runs what needs a GPU: tests, tests under compute-sanitizer, measurements of kernels and training
# steps, PyTorch beside them. Prints a table and writes DIR/gpu.json. Works in a bundle
# (cmake/bundle.cmake) and in a clone that is built; wants python3, and PyTorch for the last part.
# Needs no network. Without a GPU it names what it skips and ends with 77.
#   tests/gpu.sh [--out DIR] [--parts tests,sanitizer,kernels,train,peer] [--minutes N] [--list]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
command -v python3 >/dev/null || {
  echo "gpu.sh: python3 is missing" >&2
  exit 1
}
exec python3 "$here/gpu.py" "$@"
