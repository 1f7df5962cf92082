#!/usr/bin/env bash
# Builds the fuzzers with clang and gives each of them RUNS inputs (200000 when not said), grown
# from seeds/, for SECONDS at most (no limit when not said); as many at a time as there are
# processors. One line per harness; an input that breaks something is kept in build-fuzz/.
#   tests/fuzz/run.sh [RUNS [SECONDS]]
set -euo pipefail
cd "$(dirname "$0")/../.."
. launch/environment.sh
runs=${1:-200000}
limit=${2:-0}
build="build-fuzz"
compiler=$(command -v clang++-14 || command -v clang++) ||
  fail "no clang++; on Debian 12: apt-get install clang libclang-rt-14-dev"

build_all() {
  cmake -S tests/fuzz -B "$build" -G Ninja -DCMAKE_CXX_COMPILER="$compiler"
  cmake --build "$build" -j "$(processors)"
}
mkdir -p "$build"
if ! build_all >"$build/build.log" 2>&1; then
  cat "$build/build.log"
  fail "cannot build the fuzzers"
fi

# fuzz NAME MAX_LEN: the corpus that grows is thrown away, so that a run can be repeated.
fuzz() {
  local name=$1 corpus seeds edges done_runs status=0 start=$SECONDS
  corpus=$(mktemp -d)
  "$build/${name}_fuzz" -runs="$runs" -seed=1 -max_len="$2" -timeout=10 -rss_limit_mb=2048 \
    -max_total_time="$limit" \
    -artifact_prefix="$build/$name-" -dict="tests/fuzz/$name.dict" -print_final_stats=1 \
    "$corpus" "tests/fuzz/seeds/$name" >"$build/$name.log" 2>&1 || status=$?
  seeds=$(find "tests/fuzz/seeds/$name" -type f | wc -l)
  edges=$(grep -o 'cov: [0-9]*' "$build/$name.log" | tail -1 || true)
  rm -rf "$corpus"
  if [ "$status" != 0 ]; then
    tail -40 "$build/$name.log"
    fail "$name: an input was found that breaks it, see $build/$name-*"
  fi
  done_runs=$(awk '/^stat::number_of_executed_units:/ { print $2 }' "$build/$name.log")
  echo "$name: $done_runs inputs from $seeds seeds, nothing found; ${edges#cov: } edges seen," \
    "$((SECONDS - start)) s"
}

# start NAME MAX_LEN: in the background, when a processor is free.
failed=0
start() {
  while [ "$(jobs -rp | wc -l)" -ge "$(processors)" ]; do wait -n || failed=1; done
  fuzz "$@" &
}

start config 4096
start hf_config 4096
start manifest 8192
start npz 4096
start safetensors 2048
start token_files 2048
start tokenizer 16384
while [ -n "$(jobs -p)" ]; do wait -n || failed=1; done
exit "$failed"
