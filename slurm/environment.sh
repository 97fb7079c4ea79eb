# What every job does first; sourced by the sbatch scripts, which run in the project's root (submit them from there).
# A module system or conda? Load it here: this is the one place.
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
[ ! -f .venv/bin/activate ] || . .venv/bin/activate
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

# train COMMAND...: run the command to its end. Time limit (USR1) and preemption (TERM) both become one flag file, which
# the processes look for after each block; then they save and exit 0, and the job goes back into the queue.
train() {
    export A2D2_STOP_FILE=$SLURM_SUBMIT_DIR/.stop-$SLURM_JOB_ID # on the shared file system: all nodes see it
    rm -f "$A2D2_STOP_FILE"
    trap 'touch "$A2D2_STOP_FILE"' USR1 TERM
    "$@" &
    local child=$! status=0
    while :; do # a signal ends `wait`, not the child
        wait "$child" && status=0 || status=$?
        kill -0 "$child" 2>/dev/null || break
    done
    rm -f "$A2D2_STOP_FILE"
    # the training script leaves the job's id in runs/NAME/INTERRUPTED
    if grep -qsx "$SLURM_JOB_ID" "${A2D2_RUNS:-runs}"/*/INTERRUPTED; then
        echo "interrupted and saved; back into the queue"
        scontrol requeue "$(job_name)"
        return 0
    fi
    return "$status"
}
