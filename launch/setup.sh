#!/usr/bin/env bash
# Installs what building and running Caravan needs and this machine lacks: packages of Debian 12.
set -euo pipefail
. "$(dirname "$0")/environment.sh"

install_packages \
  g++ cmake ninja-build pkg-config \
  openmpi-bin libopenmpi-dev libhdf5-openmpi-dev \
  libdnnl-dev libabsl-dev libyaml-cpp-dev libcli11-dev libgtest-dev \
  libsimdjson-dev nlohmann-json3-dev libsentencepiece-dev zlib1g-dev
