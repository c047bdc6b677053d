#!/bin/bash
# A SLURM job that trains until it is done, however short its time limit. All words are those of
# `ppo-jax train`: sbatch scripts/slurm_requeue.sh Pendulum-v1 --seeds 32
# SLURM sends SIGUSR1 two minutes before the end (SIGTERM when it preempts the job). ppo-jax then
# saves everything and ends with exit code 75, and the job puts itself back into the queue.
#SBATCH --job-name=ppo-jax
#SBATCH --time=01:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

set -u

case "${1:--}" in
    -*) set -- CartPole-v1 "$@" ;; # no environment is named
esac
case " $* " in
    *" --out"[=\ ]*) ;;
    *) set -- "$@" --out "runs/slurm-${SLURM_JOB_ID}" ;;
esac

# `exec` would hide the exit code, and a foreground command would hold the signals back: the run is
# started in the background by srun, to whose process SLURM sends the signal itself.
srun ppo-jax train "$@" --resume auto &
run=$!
trap 'kill -TERM "$run"' TERM
trap 'kill -USR1 "$run"' USR1
code=255
while wait "$run"; code=$?; [ "$code" -gt 128 ] && kill -0 "$run" 2>/dev/null; do
    : # a signal ended the wait, not the run
done
if [ "$code" -gt 128 ]; then # the run may have ended just behind the signal
    wait "$run" && code=0 || { again=$? && [ "$again" -ne 127 ] && code=$again; }
fi

if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
