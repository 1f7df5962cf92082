#!/usr/bin/env bash
# From a clone to a trained model, on one machine: installs what is missing, builds, turns text
# into tokens, trains. Run again, it resumes, or says that the run is done.
#   ./launch/quickstart.sh              on the sources of Debian's Python manual
#   TEXT=DIR ./launch/quickstart.sh     on your own .txt, .rst, .md or .jsonl files
#   PROCESSES=4 ./launch/quickstart.sh  instead of 2
# Arguments go to `caravan train`: ./launch/quickstart.sh train.max_steps=1000
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh

num_processes="${PROCESSES:-2}"
caravan=build/caravan

# Where Debian's python3-doc has its sources; nothing when they are not installed.
manual_sources() {
  local folder
  for folder in {,runs/python3-doc}/usr/share/doc/python3*/html/_sources; do
    if [ -n "$(find -L "$folder" -name '*.txt' -size +0 -print -quit 2>/dev/null)" ]; then
      realpath "$folder"
      return
    fi
  done
}

# Images of containers are often set to drop /usr/share/doc: then the package is unpacked here.
unpack_manual() {
  local package
  package="$(apt-cache depends python3-doc | awk '/Depends: python3\.[0-9]+-doc/ {print $2}')"
  mkdir -p runs/python3-doc
  (cd runs/python3-doc && apt-get download -q "$package" && dpkg-deb -x "$package"_*.deb .) ||
    fail "cannot download $package; give a folder of your own: TEXT=DIR $0"
}

find_text() {
  [ -n "$(manual_sources)" ] || install_packages python3-doc >&2
  [ -n "$(manual_sources)" ] || unpack_manual >&2
  manual_sources
}

./launch/setup.sh

announce "building"
[ -e build/build.ninja ] || cmake --preset release >/dev/null
cmake --build build -j "$(processors)" --target caravan

name=quickstart
if [ -n "${TEXT:-}" ]; then
  [ -d "$TEXT" ] || fail "TEXT=$TEXT is not a folder; give one with .txt, .rst, .md or .jsonl files"
  name="text-$(basename "$(realpath "$TEXT")" | tr -c 'A-Za-z0-9._\n-' '_')"
fi
data="runs/$name-data"

if [ -e "$data" ]; then
  announce "tokens are in $data (remove it to make them again)"
else
  text="${TEXT:-$(find_text)}"
  announce "turning the text in $text into tokens"
  rm -rf "$data.partial"
  mkdir -p runs
  "$caravan" data build "$text" --output "$data.partial" --vocab-size 4096
  mv "$data.partial" "$data"
fi

announce "training with $num_processes processes"
allow_local_mpi
code=0
mpirun -n "$num_processes" "$caravan" train configs/quickstart.yaml \
  "output_dir=runs/$name" "data.train=$data" "data.validation=$data" "$@" || code=$?
if [ "$code" -gt 128 ]; then
  echo "a process was killed by signal $((code - 128)) (9: perhaps for want of memory)" >&2
fi
exit "$code"
