#!/bin/bash
# A SLURM array whose jobs share one sweep, each claiming pack after pack:
#     sbatch --array=1-8 --gpus=1 slurm_sweep.sh Pendulum-v1 lr=1e-4..1e-2:5:log --seeds 8
# All jobs run the same command in one folder on a shared disk. More can be started at any time with
#     SWEEP_OUT=FOLDER sbatch --array=1-4 slurm_sweep.sh (the same words)
# SLURM sends SIGUSR1 to the job's step two minutes before the end (SIGTERM when it preempts it).
# ppo-jax then saves the pack, gives it back and ends with exit code 75, and the job requeues itself.
#SBATCH --job-name=ppo-jax-sweep
#SBATCH --array=1-4
#SBATCH --time=01:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.out

set -u
trap : TERM USR1 # a signal must not end this shell before its step

srun ppo-jax sweep "$@" --join --out "${SWEEP_OUT:-runs/sweep-${SLURM_ARRAY_JOB_ID}}"
code=$?

if [ "$code" -eq 75 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
    exit 0
fi
exit "$code"
