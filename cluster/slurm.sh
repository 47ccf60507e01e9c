#!/bin/bash
# A sweep on a Slurm cluster: Ray on every node of the job for as long as the sweep runs.
#
#     sbatch cluster/slurm.sh --preset paper --data meld_st=/shared/MELD-ST --storage /shared/sweeps
#     sbatch --nodes=4 --gpus-per-node=8 cluster/slurm.sh ...     what is below may be overridden so
#
# Submit from the repository's root, on a file system that all nodes mount, with its .venv made
# (`make setup`) and, once, a token: `.venv/bin/ray get-auth-token --generate`. Arguments are those of
# sweeps/pareto.py but for --address and --resume. Results go to ERMGAP_OUT, by default
# results/slurm-JOB; a job that finds a sweep there goes on with it, as after a requeue.
#
# `ray symmetric-run` starts Ray on every node, runs the command on the first, and then runs `ray stop`
# on each, which ends every Ray process of yours there: hence --exclusive.

#SBATCH --job-name=ermgap
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ermgap-%j.log
# Two minutes before the end this script gets a SIGTERM, and lets the epochs in flight end.
#SBATCH --signal=B:TERM@120

set -euo pipefail

fail() {
    echo "error: $1" >&2
    exit 1
}

# Equals constraints.txt (a test compares them): every node must run the same Ray.
ray_version=2.60.0

cd "${SLURM_SUBMIT_DIR:-.}"
[[ -n "${SLURM_JOB_NODELIST:-}" ]] || fail "no Slurm job; start this with 'sbatch cluster/slurm.sh'."
[[ -x .venv/bin/ray ]] || fail "no .venv/bin/ray here; run 'make setup' in the repository and submit from it."
installed=$(.venv/bin/ray --version)
[[ "$installed" == *" $ray_version" ]] || fail "$installed is installed, not $ray_version; run 'make setup' again."
[[ -s "$HOME/.ray/auth_token" ]] || fail "no token; run '.venv/bin/ray get-auth-token --generate' once."

PATH="$PWD/.venv/bin:$PATH"
export PATH
# Every process on every node asks for the token, which all nodes read from the shared home. It is
# sent in the clear, and others on the cluster's network can reach Ray's ports: it must be set.
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# Nodes of a large job, or a slow file system, need more than symmetric-run's 30 s to come up.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

# This script runs on the job's first node, which is the head. If that name leads to 127.0.1.1 there,
# set ERMGAP_HEAD to the address by which the other nodes reach it.
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${ERMGAP_HEAD:-${hosts%%$'\n'*}}
# Two jobs of one user would otherwise meet on one port.
port=$((6379 + SLURM_JOB_ID % 1000))
nodes=${SLURM_JOB_NUM_NODES:-1}

out=${ERMGAP_OUT:-results/slurm-$SLURM_JOB_ID}
if [[ -e "$out/sweep.yaml" ]]; then
    sweep=(--resume "$out")
else
    sweep=("$@" --out "$out")
fi

mkdir -p results
pid_file=$PWD/results/.slurm-$SLURM_JOB_ID.pid
rm -f "$pid_file"
# To the driver alone: a SIGTERM to Ray itself would end the epochs at once.
# shellcheck disable=SC2317,SC2329  # called by the trap
notice() {
    echo "Slurm is about to end this job; the epochs in flight may end."
    [[ ! -s "$pid_file" ]] || kill -TERM "$(<"$pid_file")" || true
}
trap notice TERM

# The dashboard listens on loopback (the default, said here):
# ssh -J LOGIN -L 8265:localhost:8265 FIRST_NODE, and -L 6006:localhost:6006 for TensorBoard there.
# shellcheck disable=SC2016  # $$ and $@ are those of the inner shell
srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 \
    --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    ray symmetric-run --address "$head:$port" --min-nodes "$nodes" \
    --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    --dashboard-host=127.0.0.1 --disable-usage-stats \
    -- bash -c 'echo "$$" >"$0" && exec python sweeps/pareto.py --address auto "$@"' "$pid_file" "${sweep[@]}" &
running=$!

# `wait` returns early when the notice comes.
status=0
while kill -0 "$running" 2>/dev/null; do
    status=0
    wait "$running" || status=$?
done
rm -f "$pid_file"
exit "$status"
