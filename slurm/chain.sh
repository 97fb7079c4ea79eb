#!/bin/sh
# Submit the whole day: download -> preprocess -> train -> evaluate, each when the one before has succeeded.
#   sh slurm/chain.sh NAME train_asymmetric.py [OPTIONS]      SHARDS=8 elements of each preprocessing array
# SBATCH_* variables (SBATCH_PARTITION, SBATCH_ACCOUNT, ...) reach all jobs; CPU_PARTITION and CPU_ACCOUNT those that
# fetch and preprocess, GPU_PARTITION and GPU_ACCOUNT those that train and evaluate.
set -eu
[ $# -ge 2 ] || { echo "usage: sh slurm/chain.sh NAME SCRIPT [OPTIONS]" >&2; exit 2; }
name=$1 script=$2
shift 2
shards=${SHARDS:-8}
case $shards in
    *[!0-9]* | 0*) echo "error: SHARDS=$shards is no number of array elements; set it to 1 or more" >&2; exit 2 ;;
esac
cpu="${CPU_PARTITION:+--partition=$CPU_PARTITION} ${CPU_ACCOUNT:+--account=$CPU_ACCOUNT}"
gpu="${GPU_PARTITION:+--partition=$GPU_PARTITION} ${GPU_ACCOUNT:+--account=$GPU_ACCOUNT}"
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

submit download "" $cpu slurm/download.sbatch
download=$id labels=
for stage in $(cat preprocessing/stages.txt); do
    submit "$stage" ":$download" $cpu "--array=1-$shards" --job-name="$stage" slurm/preprocess.sbatch "$stage" "$shards"
    labels=$labels:$id
done
submit train "$labels" $gpu --job-name="$name" slurm/train.sbatch "$script" --name "$name" "$@"
submit evaluate ":$id" $gpu slurm/evaluate.sbatch "${A2D2_RUNS:-runs}/$name/best.pt"
