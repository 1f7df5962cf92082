#!/usr/bin/env bash
# How much of the time is training when a rank dies every 30 s: `caravan supervise` around a run
# of 2 processes with a checkpoint about every 5 s. Prints the ratio and where the rest went.
#   DURATION=300 INTERVAL=30 SAVE_SECONDS=5 PROCESSES=2 ./bench/effective_time.sh
# Arguments are overrides of the configuration. Needs build/caravan and python3.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh

duration="${DURATION:-300}"
interval="${INTERVAL:-30}"
save_seconds="${SAVE_SECONDS:-5}"
num_processes="${PROCESSES:-2}"
caravan=build/caravan
[ -x "$caravan" ] || fail "$caravan is missing: cmake --build build --target caravan"
allow_local_mpi

bench="$(mktemp -d)"
trap 'rm -rf "$bench"' EXIT

# Steps of some 100 ms: 3.5 M parameters, 1,024 tokens.
make_run() {
  mkdir "$bench/text"
  for i in $(seq 200); do
    seq -f "Load %.0f of llama $i crosses the pass." "$((30 + i % 7))" >"$bench/text/$i.txt"
  done
  "$caravan" data build "$bench/text" --output "$bench/data" --vocab-size 300 >"$bench/log" 2>&1 ||
    { cat "$bench/log" >&2 && fail "cannot build data"; }
  cat >"$bench/run.yaml" <<YAML
output_dir: $bench/run
model: {family: llama, hidden_size: 256, intermediate_size: 768, num_hidden_layers: 4,
        num_attention_heads: 4, tie_word_embeddings: true}
data: {train: $bench/data, sequence_len: 256}
train: {max_steps: 1000000, micro_batch_size: 2, global_batch_size: $((2 * num_processes)), seed: 1}
optimizer: {learning_rate: 1e-4, lr_scheduler_type: constant}
parallel: {zero: 1}
runtime: {threads: 1}
checkpoint: {save_total_limit: 2}
log: {logging_steps: 1000000}
YAML
}

train=(mpirun -n "$num_processes" "$caravan" train "$bench/run.yaml")

median_step_ms() {
  "${train[@]}" "$@" "output_dir=$bench/trial" train.max_steps=31 >"$bench/log" 2>&1 ||
    { cat "$bench/log" >&2 && fail "the trial run failed"; }
  sed -n 's/.*"step_ms":\([0-9]*\).*/\1/p' "$bench/trial/metrics.jsonl" | sort -n | sed -n 16p
}

stamp() { while IFS= read -r line; do printf '%s %s\n' "$EPOCHREALTIME" "$line"; done; }

ranks() { # SUPERVISE: children of its child
  local launcher
  launcher="$(pgrep -P "$1" -x mpirun)" && pgrep -P "$launcher" -f 'caravan train'
}

# A rank's death every $interval seconds, a request to stop in the end.
disturb() { # SUPERVISE
  local victim start=$SECONDS next=$interval
  while [ "$next" -lt "$duration" ]; do
    sleep "$((start + next - SECONDS))"
    victim="$(ranks "$1" | shuf -n 1)" || victim=
    if [ -n "$victim" ]; then
      echo "$EPOCHREALTIME" >>"$bench/kills"
      kill -9 "$victim"
    else
      echo "nothing ran $next s after the start: nothing was killed" >&2
    fi
    next=$((next + interval))
  done
  sleep "$((start + duration - SECONDS))"
  kill -USR1 "$1"
}

make_run
step_ms="$(median_step_ms "$@")"
save_steps="$((save_seconds * 1000 / (step_ms + 1) + 1))"
announce "$num_processes processes, steps of $step_ms ms, a checkpoint every $save_steps steps," \
  "a death every $interval s for $duration s"

touch "$bench/kills"
echo "$EPOCHREALTIME" >"$bench/begin"
"$caravan" supervise --max-restarts 1000000 -- "${train[@]}" "checkpoint.save_steps=$save_steps" \
  "$@" > >(stamp >"$bench/output") 2>&1 &
supervise=$!
disturb "$supervise"
code=0
wait "$supervise" || code=$?
echo "$EPOCHREALTIME" >"$bench/end"
if [ "$code" != 75 ]; then
  tail -n 20 "$bench/output" >&2
  fail "exit code $code instead of 75"
fi
grep -o 'supervise: [0-9]* restarts | .*' "$bench/output"
python3 bench/effective_time.py "$bench"
