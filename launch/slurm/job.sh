# shellcheck shell=bash
# What srun.sbatch and mpirun.sbatch share; sourced by them in the clone, on the job's first node.
#
# A rank that crashes while all nodes live is replaced inside the job, by `caravan supervise`: that
# takes seconds, while a job that is queued again may wait for hours. What a new start on the same
# nodes does not mend ends the job, which is then queued again. When a node fails, Slurm itself
# ends the allocation and, with --requeue, queues the job again: this script is killed then.
#
# MAX_RESTARTS=N      how often the job may have been queued again when a crash is to do so (20)
# RESTARTS_IN_JOB=N   restarts on the same nodes, each time that the job runs (5)

check_arguments() {
  if [ "$#" -lt 1 ]; then
    echo "usage: sbatch SCRIPT CONFIG [key=value ...]" >&2
    exit 2
  fi
}

queue_again() {
  echo "job $SLURM_JOB_ID: $1; queued again (so far ${SLURM_RESTART_COUNT:-0} times)" >&2
  scontrol requeue "$SLURM_JOB_ID" || return
  # Slurm ends this script now. Were it to end first, the job could be taken for finished.
  sleep 60
}

# Runs the command under supervise until it is really gone, and passes on what Slurm asks: USR1 two
# minutes before the end of the time (#SBATCH --signal), TERM when the job is cancelled. Sets
# `code`, and `is_stopping` to what was asked.
supervise() {
  local child='' is_interrupted=1
  is_stopping=
  pass_on() {
    is_interrupted=1
    is_stopping=$1
    if [ -n "$child" ]; then kill -s "$1" "$child"; fi
  }
  trap 'pass_on USR1' USR1
  trap 'pass_on TERM' TERM
  # Slurm takes a moment to clear away the old step.
  build/caravan supervise --max-restarts "${RESTARTS_IN_JOB:-5}" --delay 3 -- "$@" &
  child=$!
  if [ -n "$is_stopping" ]; then kill -s "$is_stopping" "$child"; fi
  # A signal ends `wait`, not the command.
  while [ "$is_interrupted" = 1 ]; do
    is_interrupted=0
    wait "$child"
    code=$?
  done
  trap - USR1 TERM
}

run_job() {
  local code is_stopping
  export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
  supervise "$@"
  case "$code" in
    0 | 2 | 3 | 4 | 5) exit "$code" ;; # done, or what no restart mends
    75)
      # Every such round has saved a checkpoint, so there is no limit to them. Somebody who stops
      # the ranks, and not this script, does not want them back.
      if [ "$is_stopping" = USR1 ]; then queue_again "saved before the end of its time"; fi
      ;;
    *)
      if [ "$is_stopping" = TERM ]; then exit "$code"; fi
      if [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_RESTARTS:-20}" ]; then
        queue_again "exit code $code"
      else
        echo "job $SLURM_JOB_ID: exit code $code, and queued again ${SLURM_RESTART_COUNT:-0}" \
          "times before; MAX_RESTARTS=N allows more" >&2
      fi
      ;;
  esac
  exit "$code"
}
