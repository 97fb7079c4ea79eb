#!/bin/sh
# Submit the whole day: download -> preprocess -> train -> evaluate, each when the one before has succeeded.
#   sh slurm/chain.sh NAME train_asymmetric.py [OPTIONS]      SHARDS=8 elements of each preprocessing array
# SBATCH_* variables (SBATCH_PARTITION, SBATCH_ACCOUNT, ...) reach all jobs.
set -eu
[ $# -ge 2 ] || { echo "usage: sh slurm/chain.sh NAME SCRIPT [OPTIONS]" >&2; exit 2; }
name=$1 script=$2
shift 2
shards=${SHARDS:-8}
case $shards in
    *[!0-9]* | 0*) echo "error: SHARDS=$shards is no number of array elements; set it to 1 or more" >&2; exit 2 ;;
esac
submitted=

# submit WHAT DEPENDENCY OPTIONS...: the job's id becomes $id
submit() {
    what=$1 after=$2
    shift 2
    if ! id=$(sbatch --parsable ${after:+"--dependency=afterok$after"} --kill-on-invalid-dep=yes "$@"); then
        echo "error: $what was not submitted${submitted:+; already in the queue, and waiting:$submitted (scancel$submitted)}" >&2
        exit 1
    fi
    id=${id%%;*} submitted="$submitted $id"
    echo "$what: $id"
}

submit download "" slurm/download.sbatch
download=$id labels=
for stage in $(cat preprocessing/stages.txt); do
    submit "$stage" ":$download" "--array=1-$shards" --job-name="$stage" slurm/preprocess.sbatch "$stage" "$shards"
    labels=$labels:$id
done
submit train "$labels" --job-name="$name" slurm/train.sbatch "$script" --name "$name" "$@"
submit evaluate ":$id" slurm/evaluate.sbatch "${A2D2_RUNS:-runs}/$name/best.pt"
