#!/bin/bash
# A SLURM array: each task trains by one line of a file, and requeues itself until it is done.
# A line holds the words of one `ppo-jax train`, such as: Pendulum-v1 --seeds 8 --objective trpo
# From the checkout, with three lines: sbatch --array=1-3 scripts/slurm_array.sh runs.txt
# Seeds need no array: `--seeds 32` trains them side by side in one program.
#SBATCH --job-name=ppo-jax
#SBATCH --time=01:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.out
#SBATCH --array=1

set -eu

line="$(sed -n "${SLURM_ARRAY_TASK_ID}p" "${1:?sbatch --array=1-N slurm_array.sh FILE}")"
if [ -z "$line" ]; then
    echo "$1 has no line ${SLURM_ARRAY_TASK_ID}: let --array end at its last line." >&2
    exit 2
fi
eval "set -- $line"
case " $* " in
    *" --out"[=\ ]*) ;;
    *) set -- "$@" --out "runs/slurm-${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" ;;
esac
set +e
. "${SLURM_SUBMIT_DIR:-.}/scripts/slurm_requeue.sh" "$@"
