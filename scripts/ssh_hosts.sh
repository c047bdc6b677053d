#!/bin/bash
# One run on several machines by ssh: HOSTS="a b c" scripts/ssh_hosts.sh ENV [OPTION...]
#
# The first name in HOSTS coordinates, and the others must reach it at PORT (default 5577). Every
# machine needs ppo-jax in the same folder (default: this one) and sees the same run folder. A
# Ctrl-C here stops all at one chunk and saves. The same command goes on, with any machines.
#
#   HOSTS="gpu1 gpu2" scripts/ssh_hosts.sh CartPole-v1 --seeds 64 --out runs/mine --resume auto
#   HOSTS="gpu1 gpu2" COMMAND=resume scripts/ssh_hosts.sh runs/mine

set -u
: "${HOSTS:?name the machines: HOSTS=\"a b c\" $0 ENV [OPTION...]}"
: "${1:?name an environment: HOSTS=\"a b c\" $0 ENV [OPTION...]}"
read -r -a hosts <<<"$HOSTS"
port=${PORT:-5577}
folder=${FOLDER:-$PWD}
program=${PPO_JAX:-ppo-jax} # for example /opt/venv/bin/ppo-jax
words=$(printf ' %q' "${COMMAND:-train}" "$@")

pids=()
for i in "${!hosts[@]}"; do
    # -tt: a machine whose ssh ends gets a SIGHUP, which saves and stops as well.
    ${SSH:-ssh -tt} "${hosts[$i]}" "cd $(printf %q "$folder") && exec $program$words \
        --coordinator ${hosts[0]}:$port --num-hosts ${#hosts[@]} --host-index $i" </dev/null &
    pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null' INT TERM
code=0
for pid in "${pids[@]}"; do
    while wait "$pid"; one=$?; [ "$one" -gt 128 ] && kill -0 "$pid" 2>/dev/null; do :; done
    [ "$one" -ne 0 ] && code=$one
done
exit "$code"
