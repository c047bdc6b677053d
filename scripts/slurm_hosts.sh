#!/bin/bash
# One run on several SLURM nodes, until it is done: sbatch slurm_hosts.sh ENV [OPTION...]
# Example: sbatch --nodes=4 slurm_hosts.sh brax/ant --seeds 32
#
# One task a node takes all GPUs of that node. The run's folder must be on a file system that all
# nodes see. SLURM sends SIGUSR1 two minutes before the end, and SIGTERM when it preempts the job:
# all nodes stop at the same chunk, save once, and end with exit code 75. The job then puts itself
# back into the queue, with as many nodes as it gets.
#SBATCH --job-name=ppo-jax-hosts
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

set -u
: "${1:?name an environment: sbatch slurm_hosts.sh ENV [OPTION...]}"

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((49152 + SLURM_JOB_ID % 16384))
out=${PPO_JAX_OUT:-runs/slurm-$SLURM_JOB_ID}

# By hand and not `--hosts auto`, with which jax gives each task a single GPU. --kill-on-bad-exit=0:
# a node that ends by itself must not take the others' last save away.
srun --kill-on-bad-exit=0 bash -c 'exec ppo-jax train "$@" --host-index "$SLURM_PROCID"' ppo-jax \
    "$@" --out "$out" --resume auto \
    --coordinator "$first:$port" --num-hosts "$SLURM_NNODES" &
run=$!
trap 'kill -TERM "$run"' TERM # srun passes signals on to its tasks
trap ':' USR1                 # SLURM sends this one to the tasks itself
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
