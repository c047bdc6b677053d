#!/bin/bash
# One hour of a CUDA machine: every number of a GPU, stored and written into the documents.
#
#     scripts/gpu_hour.sh [--wheels FOLDER] [--dry] [--out FOLDER]
#
# Steps: the checks (doctor, resume, memory, two GPUs), the speeds with Rejax in turns, the fused
# update, the launches and bytes of compiled programs, the tables. A step that fails is named, and
# the next one runs.
# --wheels: wheels of Rejax and its needs, for a machine without a network (docs/speed.md).
# --dry: small sizes on a CPU, into a folder that is deleted. It tests this script.
# PYTHON: the interpreter with ppo_jax and jax[cuda] (default: python).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

PYTHON=${PYTHON:-python}
small=() wheels=() dry="" out=benchmarks/results
while [ $# -gt 0 ]; do
    case $1 in
        --dry) dry=yes ;;
        --wheels) wheels=(--wheels "${2:?--wheels needs a folder}") && shift ;;
        --out) out=${2:?--out needs a folder} && shift ;;
        *) echo "$1 is no option of this script; see its first lines." >&2 && exit 2 ;;
    esac
    shift
done
if [ -n "$dry" ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
    export JAX_PLATFORMS=cpu
    wheels=(--wheels "$out/none") # no peer: the result names it as left out
    small=(--small)
    speed=(--small --seconds "${DRY_SECONDS:-180}" --only g2048)
    programs="CartPole-v1 --num-envs 16 --rollout-length 8 --num-epochs 1"
    tables=(benchmarks/gpu_table.py)
else
    speed=(--seconds 2100)
    programs=$(printf 'CartPole-v1%s\n' "" " --precision tf32" " --precision bfloat16" \
        " --num-envs 64 --seeds 16" " --num-envs 64 --seeds 256" " --num-envs 65536" \
        " --objective trpo"
        printf '%s\n' "Pendulum-v1 --normalize-observations" "Breakout-MinAtar --num-envs 1024")
    tables=(benchmarks/readme.py)
    if ! "$PYTHON" -c 'import jax, sys; sys.exit(jax.default_backend() != "gpu")'; then
        echo "jax finds no GPU here. Install jax[cuda13], or try the script with --dry." >&2
        exit 2
    fi
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$out"
today=$(date -u +%F) failed=()

step() { # name, command...: run it, and remember its failure
    local name=$1 begin=$SECONDS
    shift
    printf '\n== %s\n' "$name" >&2
    "$@" || failed+=("$name")
    printf '== %s: %d s\n' "$name" $((SECONDS - begin)) >&2
}

census() { # one JSON object a line: launches and bytes of each compiled program
    local file=$out/gpu-census_$today.jsonl words code=0
    : >"$file"
    while read -r words; do
        # shellcheck disable=SC2086
        timeout 300 env JAX_PLATFORMS=cpu "$PYTHON" benchmarks/speed/launches.py \
            --one-line $words </dev/null >>"$file" || code=1
    done <<<"$programs"
    return "$code"
}

has_plugin() { "$PYTHON" -c 'import jax_plugins.xla_cuda13' 2>/dev/null; }

step "checks" "$PYTHON" benchmarks/speed/gpu_checks.py "${small[@]}" \
    --out "$out/gpu-checks_$today.json"
step "speed" "$PYTHON" benchmarks/speed/gpu.py "${speed[@]}" "${wheels[@]}" \
    --out "$out/gpu_$today.json"
step "fused update" "$PYTHON" benchmarks/speed/fused_update.py "${small[@]}" \
    --out "$out/gpu-fused_$today.json"
if has_plugin; then
    step "launches and bytes" census
else
    echo "XLA's CUDA plugin is not there: launches and bytes are not counted." >&2
fi
step "tables" "$PYTHON" "${tables[@]}" "$out/gpu_$today.json"

if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[*]}" >&2
    exit 1
fi
echo "stored in $out" >&2
