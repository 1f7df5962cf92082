#!/usr/bin/env bash
# Trains under a real Slurm of four nodes: jobs that are signalled, whose ranks crash, whose nodes
# die, must end with the bits of a job that nothing happened to. Not part of the other tests: it
# needs root, Slurm and a script that starts and stops nodes:
#   SLURM_CLUSTER=PATH ./tests/slurm.sh
# `PATH up 4` starts nodes n1 to n4, `PATH down` stops them, `PATH kill NODE` ends all processes of
# a node at once, `PATH revive NODE` starts it again. Prints a line per check; takes some minutes.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
. launch/environment.sh

if [ -z "${SLURM_CLUSTER:-}" ]; then
  sed -n '2,8s/^# \?//p' "$0" >&2
  fail "SLURM_CLUSTER is not set"
fi
[ "$(id -u)" = 0 ] || fail "a Slurm of one's own needs root"
[ -x build/caravan ] || fail "build/caravan is missing: cmake --build build --target caravan"

bench="$(mktemp -d)"
num_failed=0
caravan="$PWD/build/caravan"

clean_up() {
  scancel --user=root 2>/dev/null
  "$SLURM_CLUSTER" down
  if [ "$num_failed" = 0 ]; then rm -rf "$bench"; else echo "the logs are in $bench"; fi
}

check() { # NAME COMMAND...: PASS when the command succeeds
  local name=$1
  shift
  if "$@" >"$bench/check.log" 2>&1; then
    echo "PASS $name"
  else
    echo "FAIL $name"
    sed 's/^/     /' "$bench/check.log"
    num_failed=$((num_failed + 1))
  fi
}

wait_for() { # SECONDS COMMAND...: until the command succeeds
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}

# A Llama of some thousand parameters, and tokens for it.
make_bench() {
  local i
  mkdir "$bench/text"
  for i in $(seq 60); do
    seq -f "Load %.0f of llama $i crosses the pass." "$((10 + i % 7))" >"$bench/text/$i.txt"
  done
  "$caravan" data build "$bench/text" --output "$bench/data" --vocab-size 300 \
    >"$bench/data.log" 2>&1 || fail "cannot build data, see $bench/data.log"
  cat >"$bench/tiny.yaml" <<YAML
output_dir: $bench/unnamed
model: {family: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2,
        num_attention_heads: 4, num_key_value_heads: 2, tie_word_embeddings: true}
data: {train: $bench/data, sequence_len: 32}
train: {max_steps: ${STEPS:-300}, micro_batch_size: 2, global_batch_size: 8, seed: 3}
optimizer: {learning_rate: 3e-3, lr_scheduler_type: constant, warmup_steps: 2}
parallel: {zero: 1}
runtime: {threads: 1}
checkpoint: {save_steps: 20}
log: {logging_steps: 20}
YAML
}

submit() { # SCRIPT RUN [key=value ...]: prints the job's number
  local script=$1 run=$2
  shift 2
  sbatch --parsable --nodes=4 --ntasks-per-node=1 --cpus-per-task=1 --output="$bench/$run.out" \
    "launch/slurm/$script" "$bench/tiny.yaml" "output_dir=$bench/$run" "$@"
}

job_field() { scontrol show job "$1" 2>/dev/null | grep -o "\b$2=[^ ]*" | head -n 1 | cut -d= -f2; }

restarts_of() { job_field "$1" Restarts; }

# Slurm lets a job that was queued again wait for two minutes, so that no node takes it for the one
# that has just ended: nodes tell starts apart by seconds. A test takes some of these.
start_soon() { # JOB
  local start
  start="$(date -d "$(job_field "$1" StartTime)" +%s 2>/dev/null)" || return 0
  if [ "$((start - $(date +%s)))" -gt 10 ]; then
    scontrol update "jobid=$1" StartTime=now+5
  fi
}

is_over() { # JOB
  case "$(job_field "$1" JobState)" in
    COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) return 0 ;;
    PENDING) start_soon "$1" ;;
  esac
  return 1
}

newest_checkpoint() { # RUN: its folder
  find "$bench/$1/checkpoints" -maxdepth 1 -name 'step-*' 2>/dev/null | sort | tail -n 1
}

has_step() { # RUN STEP: or a later one
  local newest
  newest="$(newest_checkpoint "$1")"
  [ -n "$newest" ] && [ "$((10#${newest##*step-}))" -ge "$2" ]
}

ends_well() { # JOB RUN
  wait_for 240 is_over "$1"
  [ "$(job_field "$1" JobState)" = COMPLETED ] && return 0
  scontrol show job "$1"
  tail -n 30 "$bench/$2.out"
  return 1
}

# The tensors of the last checkpoint, with the checksum of each shard.
tensors() {
  local last
  last="$(newest_checkpoint "$1")"
  basename "$last"
  sed -n '/^ "tensors"/,/^ ]/p' "$last/manifest.json"
}

has_same_bits() { # RUN: as the run that nothing happened to
  tensors calm >"$bench/calm.tensors"
  tensors "$1" >"$bench/$1.tensors"
  grep -q crc32c "$bench/calm.tensors" && cmp "$bench/calm.tensors" "$bench/$1.tensors"
}

was_said() { grep -q -- "$2" "$bench/$1.out"; } # RUN TEXT

was_restarted() { [ "$(restarts_of "$1")" -gt 0 ]; }

# Lines for what /proc separates by NUL; none when the process is gone.
words_of() {
  { tr '\0' '\n' <"$1"; } 2>/dev/null
  return 0
}

# The rank that srun calls 2; of the ranks, only it has this number and this run's command line.
kill_rank() { # RUN
  local process
  for process in /proc/[0-9]*; do
    if words_of "$process/environ" | grep -qx SLURM_PROCID=2 &&
      words_of "$process/cmdline" | grep -qx "output_dir=$bench/$1" &&
      words_of "$process/cmdline" | head -n 1 | grep -qx build/caravan; then
      kill -9 "${process#/proc/}"
      return
    fi
  done
  return 1
}

# As a power loss would: before anything else Slurm's daemons of this node's steps, which would
# report how the processes below them ended.
kill_node() { # NODE
  local process parent
  for process in /proc/[0-9]*; do
    words_of "$process/environ" | grep -qx "SLURMD_NODENAME=$1" || continue
    parent="$(awk '/^PPid:/ {print $2}' "$process/status" 2>/dev/null)"
    if [ "$(cat "/proc/$parent/comm" 2>/dev/null)" = slurmstepd ]; then kill -9 "$parent"; fi
  done
  "$SLURM_CLUSTER" kill "$1"
}

announce "starting four nodes"
trap clean_up EXIT
trap 'exit 1' INT TERM
make_bench
"$SLURM_CLUSTER" up 4 >"$bench/up.log" 2>&1 || { cat "$bench/up.log"; fail "no nodes"; }
allow_local_mpi

announce "nothing happens"
job="$(submit srun.sbatch calm)"
check "srun: a job ends" ends_well "$job" calm

for launcher in srun mpirun; do
  run="signalled-$launcher"
  announce "$launcher: the signal that comes before the end of the time"
  job="$(submit "$launcher.sbatch" "$run")"
  check "$launcher: a checkpoint" wait_for 60 has_step "$run" 40
  scancel --signal=USR1 --batch "$job"
  check "$launcher: the ranks save and stop" wait_for 30 was_said "$run" "saved and stopped"
  check "$launcher: that is why" wait_for 30 was_said "$run" "saved before the end of its time"
  check "$launcher: ends after being queued again" ends_well "$job" "$run"
  check "$launcher: was queued again once" [ "$(restarts_of "$job")" = 1 ]
  check "$launcher: has the same bits" has_same_bits "$run"
done

announce "srun: a rank crashes"
job="$(submit srun.sbatch crashed)"
check "crash: a checkpoint" wait_for 60 has_step crashed 40
check "crash: a rank is killed" kill_rank crashed
check "crash: goes on in the same job" wait_for 60 was_said crashed "supervise: restart 1 of 5"
check "crash: ends" ends_well "$job" crashed
check "crash: was not queued again" [ "$(restarts_of "$job")" = 0 ]
check "crash: has the same bits" has_same_bits crashed

for node in n3 n1; do # n1 runs the batch script
  run="lost-$node"
  announce "srun: the node $node dies"
  job="$(submit srun.sbatch "$run")"
  check "$node dies: a checkpoint" wait_for 60 has_step "$run" 40
  kill_node "$node"
  check "$node dies: queued again" wait_for 90 was_restarted "$job"
  "$SLURM_CLUSTER" revive "$node"
  check "$node dies: ends" ends_well "$job" "$run"
  check "$node dies: has the same bits" has_same_bits "$run"
done

announce "srun: a mistake"
job="$(submit srun.sbatch mistaken train.global_batch_size=7)"
wait_for 60 is_over "$job"
check "mistake: fails" [ "$(job_field "$job" JobState)" = FAILED ]
check "mistake: has its exit code" [ "$(job_field "$job" ExitCode)" = 2:0 ]
check "mistake: was not queued again" [ "$(restarts_of "$job")" = 0 ]
[ "$num_failed" = 0 ]
