#!/bin/bash
# Submit the whole day: download -> preprocess -> train -> evaluate, each when the one before has succeeded.
#   bash slurm/chain.sh NAME train_asymmetric.py [OPTIONS]      SHARDS=8 elements of each preprocessing array
# The configuration is checked before anything is submitted; the data are not there yet. Partitions, accounts and logs:
# submit.sh. Evaluation gets the roots and --stage-to of the training.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # sh slurm/...
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash slurm/chain.sh NAME SCRIPT [OPTIONS]" >&2; exit 2; }
name=$1 script=$2
shift 2
shards=${SHARDS:-8}
case $shards in
    *[!0-9]* | 0*) echo "error: SHARDS=$shards is no number of array elements; set it to 1 or more" >&2; exit 2 ;;
esac
export A2D2_RUNS=${A2D2_RUNS:-runs}
before='' shared=()
for word in "$@"; do
    case $before in
        --data-root | --processed-root | --stage-to) shared+=("$before" "$word") ;;
        --runs-root) A2D2_RUNS=$word ;;
    esac
    case $word in
        --data-root=* | --processed-root=* | --stage-to=*) shared+=("$word") ;;
        --runs-root=*) A2D2_RUNS=${word#*=} ;;
    esac
    before=$word
done
submitted=

# submit WHAT DEPENDENCY OPTIONS...: the job's id becomes $id
submit() {
    local what=$1 after=$2
    shift 2
    if ! id=$(TRY=no bash slurm/submit.sh --parsable ${after:+"--dependency=afterok$after"} --kill-on-invalid-dep=yes "$@"); then
        echo "error: $what was not submitted${submitted:+; already in the queue, and waiting:$submitted (scancel$submitted)}" >&2
        exit 1
    fi
    id=${id%%;*} submitted="$submitted $id"
    echo "$what: $id"
}

train=(slurm/train.sbatch "$script" --name "$name" "$@")
TRY=config bash slurm/submit.sh --test-only "${train[@]}" # submits nothing
submit download "" slurm/download.sbatch
download=$id labels=
for stage in $(cat datasets/a2d2/stages.txt); do
    submit "$stage" ":$download" "--array=1-$shards" --job-name="$stage" slurm/preprocess.sbatch "$stage" "$shards"
    labels=$labels:$id
done
submit train "$labels" --job-name="$name" "${train[@]}"
submit evaluate ":$id" slurm/evaluate.sbatch "$A2D2_RUNS/$name/best.pt" "${shared[@]}"
