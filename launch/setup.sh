#!/usr/bin/env bash
# Installs what building and running Caravan needs and this machine lacks: packages of Debian 12.
set -euo pipefail
. "$(dirname "$0")/environment.sh"

install_packages \
  g++ cmake ninja-build pkg-config \
  openmpi-bin libopenmpi-dev libhdf5-openmpi-dev \
  libdnnl-dev libabsl-dev libyaml-cpp-dev libcli11-dev libgtest-dev \
  libsimdjson-dev nlohmann-json3-dev libsentencepiece-dev zlib1g-dev \
  libpcre2-dev libzip-dev

# Attention on a GPU through cuDNN, where that is installed: the headers that cmake/cuda.cmake also
# wants are in a Python package. Without them attention runs on Caravan's own kernels.
frontend=1.32.0
headers="${HOME:-}/.cache/caravan/cudnn-frontend-$frontend"
if [ -e "$headers/include/cudnn_frontend.h" ]; then exit 0; fi
if [ ! -e /usr/local/cuda/include/cudnn.h ] && [ ! -e /usr/include/cudnn.h ]; then exit 0; fi
fetched="$(mktemp -d)"
trap 'rm -rf "$fetched"' EXIT
if python3 -m pip download -q --no-deps --only-binary=:all: --dest "$fetched" \
  "nvidia-cudnn-frontend==$frontend"; then
  python3 -m zipfile -e "$fetched"/nvidia_cudnn_frontend-*.whl "$fetched/wheel"
  mkdir -p "$headers"
  cp -r "$fetched/wheel/include" "$headers/"
  announce "headers of cudnn-frontend $frontend are in $headers"
else
  announce "cannot fetch nvidia-cudnn-frontend $frontend (pip of Python 3, above): attention will" \
    "run without cuDNN"
fi
