#!/usr/bin/env bash
# What saving and loading cost: how much training slows down, and how near the writer and the reader
# come to plain files of the same bytes. Prints a Markdown table and puts it into bench/RESULTS.md.
#   ROUNDS=3 ./bench/checkpoint.sh        needs python3; writes some GiB under BENCH_FOLDER (/tmp)
# The models are the quickstart's and one of 123.6 M parameters, whose checkpoint has 1.4 GiB.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh

[ -e build/build.ninja ] || cmake --preset release
cmake --build build --target caravan bench_checkpoint >&2
allow_local_mpi

bench="$(mktemp -d -p "${BENCH_FOLDER:-/tmp}")"
trap 'rm -rf "$bench"' EXIT
mkdir "$bench/text"
for i in $(seq 200); do
  seq -f "Load %.0f of llama $i crosses the pass." "$((30 + i % 7))" >"$bench/text/$i.txt"
done
build/caravan data build "$bench/text" --output "$bench/data" --vocab-size 300 >"$bench/log" 2>&1 ||
  { cat "$bench/log" >&2 && fail "cannot build data"; }
python3 bench/checkpoint.py "$bench" "${ROUNDS:-3}"
