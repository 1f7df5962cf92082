#!/usr/bin/env bash
# The long versions of tests that draw their cases at random, for a machine with hours to spare and
# before a release; tests/run.sh has the short ones. Says of each part what it did and for how long:
#   saves     a process that saves in a loop is killed 1000 times
#   training  training on four ranks is killed 30 times: a rank, all ranks, mpirun
#   losses    50 steps of the quickstart's model against PyTorch's
#   damage    20,000 flipped bits in a checkpoint from each of 3 seeds, 60,000 in a token file
#   fuzz      200,000 inputs for each fuzzer
#   ./tests/soak.sh [PART...]    all of them when none is named
# Ends with 1 when a part failed; the output of a part is in build/soak-PART.txt.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
. launch/environment.sh

# test_of PROGRAM FILTER: its longest version; a filter that finds no test is a failure.
test_of() {
  local output status=0
  output=$(CARAVAN_SOAK=1 "build/$1" --gtest_filter="$2" 2>&1) || status=$?
  echo "$output"
  [ "$status" = 0 ] && [[ "$output" == *"[  PASSED  ] "[1-9]* ]]
}

saves() { test_of checkpoint_test 'Kill.*'; }
training() { test_of e2e_test 'KillTraining.*'; }
losses() { test_of golden_losses_test '*Slow*'; }
damage() { test_of checkpoint_test 'Damage.BitFlips' && test_of data_test 'Hdf5File.Damage*'; }
fuzz() { ./tests/fuzz/run.sh 200000; }

declare -A what=(
  [saves]="1000 kills of a process that saves"
  [training]="30 kills of training on 4 ranks"
  [losses]="50 steps against PyTorch"
  [damage]="120,000 flipped bits"
  [fuzz]="200,000 inputs for each fuzzer"
)

# run PART: one line.
run() {
  local start=$SECONDS result=passed
  "$1" >"build/soak-$1.txt" 2>&1 || result="FAILED, see build/soak-$1.txt"
  echo "$1: ${what[$1]}, $((SECONDS - start)) s, $result"
  [ "$result" = passed ]
}

parts=("$@")
[ "${#parts[@]}" -gt 0 ] || parts=(saves training losses damage fuzz)
for part in "${parts[@]}"; do
  [ -n "${what[$part]:-}" ] ||
    fail "no part '$part'; there are saves, training, losses, damage and fuzz"
done

allow_local_mpi
announce "building"
[ -e build/build.ninja ] || cmake --preset release >/dev/null || fail "cannot configure"
cmake --build build -j "$(processors)" \
  --target caravan checkpoint_test data_test e2e_test golden_losses_test \
  >build/soak-build.txt 2>&1 || fail "cannot build, see build/soak-build.txt"

num_failed=0
for part in "${parts[@]}"; do run "$part" || num_failed=$((num_failed + 1)); done
[ "$num_failed" = 0 ]
