#!/usr/bin/env bash
# Installs, builds and runs all tests; then the unit tests again under the address and undefined
# behaviour sanitizers, and the fuzzers for a moment. Ends with the summaries. SANITIZE=0 leaves the
# second part out. The long versions of some tests: tests/soak.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh

# run_tests FOLDER [ctest arguments]: the summary goes to FOLDER/test-summary.txt too.
run_tests() {
  local folder=$1 status=0
  shift
  ctest --test-dir "$folder" --output-on-failure "$@" >"$folder/test-output.txt" 2>&1 || status=$?
  sed -n '/tests passed,/,$p' "$folder/test-output.txt" >"$folder/test-summary.txt"
  if [ "$status" != 0 ]; then cat "$folder/test-output.txt"; fi
  return "$status"
}

# Of test programs that run many cases in one process.
count_cases() {
  awk '/^\[  PASSED  \]/ { passed += $4 } END { print passed " cases passed in them" }' \
    "$1/Testing/Temporary/LastTest.log"
}

./launch/setup.sh
allow_local_mpi

announce "building"
cmake --preset release | grep -E '^-- (CUDA|cuDNN|NCCL):'
cmake --build --preset release
announce "testing"
run_tests build -j "$(processors)"

if [ "${SANITIZE:-1}" != 0 ]; then
  announce "building with sanitizers"
  cmake --preset sanitize >/dev/null
  cmake --build --preset sanitize
  announce "testing with sanitizers"
  # Tests that start mpirun are left out: Open MPI itself does not pass the leak check.
  run_tests build-sanitize -j "$(processors)" -LE mpi -E '^e2e/'
  count_cases build-sanitize >>build-sanitize/test-summary.txt
  announce "fuzzing"
  install_packages clang libclang-rt-14-dev
  ./tests/fuzz/run.sh 200000 60
  echo "with sanitizers:" && cat build-sanitize/test-summary.txt
fi
cat build/test-summary.txt
