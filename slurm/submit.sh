#!/bin/bash
# Submit a job, from the project's root:
#   bash slurm/submit.sh [OPTIONS of sbatch] slurm/JOB.sbatch [ARGUMENTS of the job]
# - A job goes to the partition and account of its kind: CPU_PARTITION and CPU_ACCOUNT without a GPU, GPU_PARTITION and
#   GPU_ACCOUNT with one. Those that are not set are SBATCH_PARTITION and SBATCH_ACCOUNT's, or the cluster's default.
# - Its log goes to logs/ under the runs' root (--runs-root of the job, else A2D2_RUNS, else runs/).
# - A training's configuration is tried first, here, by --dry-run; where the job waits for another one (--dependency),
#   which may make the data, by --check-config. A mistake is then not queued. TRY=config or TRY=no try less.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh slurm/...
set -euo pipefail
fail() { echo "error: $*" >&2; exit 2; }
options=()
while [ $# -gt 0 ] && [[ $1 != *.sbatch ]]; do options+=("$1") && shift; done
[ $# -ge 1 ] || fail "usage: bash slurm/submit.sh [OPTIONS of sbatch] slurm/JOB.sbatch [ARGUMENTS]"
job=$1 && shift
[ -f "$job" ] || fail "there is no job script $job here; submit from the project's root"
command -v sbatch >/dev/null || fail "there is no sbatch on this machine"

# ---- a training is tried ------------------------------------------------------------------------------------------
how=${TRY:-data}
case "${options[*]-}" in *--dependency* | -d* | *" -d"*) how=${TRY:-config} ;; esac
case $how in
    data) flag=--dry-run ;;
    config) flag=--check-config ;;
    no) flag= ;;
    *) fail "TRY=$how: there are data, config and no" ;;
esac
case $(basename "$job") in
    train*) [ -z "$flag" ] || (
        export SLURM_SUBMIT_DIR=$PWD
        . slurm/environment.sh
        [ $# -ge 1 ] || fail "usage: bash slurm/submit.sh $job SCRIPT [OPTIONS]"
        $CONTAINER python "$@" --resume auto "$flag" --device cpu >&2
    ) || fail "not submitted: $* would fail" ;;
esac

# ---- and submitted ------------------------------------------------------------------------------------------------
before=
for word in "$@"; do
    [ "$before" != --runs-root ] || export A2D2_RUNS=$word
    [[ $word != --runs-root=* ]] || export A2D2_RUNS=${word#*=}
    before=$word
done
logs=${A2D2_RUNS:-runs}/logs
mkdir -p "$logs" || fail "$logs can't be made; set A2D2_RUNS to a folder that jobs can write to"
if grep -q '^#SBATCH --gpus' "$job"; then
    partition=${GPU_PARTITION:-} account=${GPU_ACCOUNT:-}
else
    partition=${CPU_PARTITION:-} account=${CPU_ACCOUNT:-}
fi
exec sbatch --output="$logs/$(sed -n 's/^#SBATCH --output=//p' "$job")" ${partition:+--partition="$partition"} \
    ${account:+--account="$account"} "${options[@]}" "$job" "$@"
