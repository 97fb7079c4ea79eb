# What every job does first, and submit.sh on the login node; sourced in the project's root. The one place to change.
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"

# ---- how Python is found: .venv of `make .venv/installed`, or what is uncommented here ----------------------------
# A module system (make .venv with the same module loaded):
# module purge; module load Python/3.11
[ ! -f .venv/bin/activate ] || . .venv/bin/activate
# conda, whose own scripts read variables that are not set:
# set +u; . "$HOME/miniconda3/etc/profile.d/conda.sh"; conda activate a2d2; set -u
# Apptainer: --nv gives it the GPUs; bind the file systems of the data, the runs and node-local copies:
# CONTAINER="apptainer exec --nv --bind /scratch,${TMPDIR:-/tmp} $HOME/a2d2.sif"
CONTAINER=${CONTAINER:-} # comes before each command

CHECK='import importlib.util, sys; sys.exit(sys.version_info < (3, 11) or importlib.util.find_spec("torch") is None)'
$CONTAINER python -c "$CHECK" 2>/dev/null || {
    echo "error: no Python 3.11 with the project's packages on $(uname -n)${CONTAINER:+ by $CONTAINER}" \
        "(found: $(command -v python || echo none)); run \`make .venv/installed\`, or load a module, conda or a" \
        "container in slurm/environment.sh" >&2
    exit 2
}

export WANDB_MODE=${WANDB_MODE:-offline} # compute nodes often have no internet; slurm/README.md: wandb sync
export PYTHONUNBUFFERED=1                # the log shows what has happened so far
export OMP_NUM_THREADS=1                 # loader workers and processes share the cores

# Processes a node: one a GPU; PROCESSES=2 for jobs without GPUs.
processes_per_node() { echo "${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}"; }

# The job as scontrol names it. The last element of an array has the array's own id: without its index, all would be meant.
job_name() {
    if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
        echo "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    else
        echo "$SLURM_JOB_ID"
    fi
}

# Some clusters let no job back into the queue.
requeue() {
    scontrol requeue "$(job_name)" || {
        echo "the requeue was refused: submit the same command again, it goes on from what was saved" >&2
        return 1
    }
}

# train COMMAND...: run the command to its end. Time limit (USR1) and preemption (TERM) both become one flag file, which
# the processes look for after each block; then they save, say so in a file that this names ("RUN SAMPLES"), and exit 0.
# The job goes back into the queue where it got further than at its last start, so that one that can't is not for ever.
train() {
    local logs=${A2D2_RUNS:-runs}/logs before child status=0
    mkdir -p "$logs"
    logs=$(cd "$logs" && pwd)
    export A2D2_STOP_FILE=$logs/stop-$SLURM_JOB_ID # on the shared file system: all nodes see it
    export A2D2_INTERRUPTED_FILE=$logs/interrupted-$SLURM_JOB_ID
    before=$A2D2_INTERRUPTED_FILE.before
    [ ! -f "$A2D2_INTERRUPTED_FILE" ] || mv "$A2D2_INTERRUPTED_FILE" "$before"
    rm -f "$A2D2_STOP_FILE"
    trap 'touch "$A2D2_STOP_FILE"' USR1 TERM
    "$@" &
    child=$!
    while :; do # a signal ends `wait`, not the child
        wait "$child" && status=0 || status=$?
        kill -0 "$child" 2>/dev/null || break
    done
    rm -f "$A2D2_STOP_FILE"
    if [ "$status" -ne 0 ] || [ ! -f "$A2D2_INTERRUPTED_FILE" ]; then
        rm -f "$A2D2_INTERRUPTED_FILE" "$before"
        return "$status"
    fi
    if cmp -s "$A2D2_INTERRUPTED_FILE" "$before"; then
        echo "interrupted twice at the same place ($(cat "$before")); not requeued: submit it again, with more time" >&2
        rm -f "$A2D2_INTERRUPTED_FILE" "$before"
        return 1
    fi
    rm -f "$before"
    echo "interrupted and saved; back into the queue"
    requeue # a job that ended with 0 though it is half trained would start those that wait for it
}
