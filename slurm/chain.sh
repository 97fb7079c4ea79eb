#!/bin/sh
# Submit the whole day: download -> preprocess -> train -> evaluate, each when the one before has succeeded.
#   sh slurm/chain.sh NAME train_asymmetric.py [OPTIONS]      SHARDS=8 elements of each preprocessing array
# SBATCH_* variables (SBATCH_PARTITION, SBATCH_ACCOUNT, ...) reach all jobs.
set -eu
[ $# -ge 2 ] || { echo "usage: sh slurm/chain.sh NAME SCRIPT [OPTIONS]" >&2; exit 2; }
name=$1 script=$2
shift 2
shards=${SHARDS:-8}

# submit DEPENDENCY OPTIONS...: prints the job's id
submit() {
    after=$1
    shift
    id=$(sbatch --parsable ${after:+"--dependency=afterok$after"} --kill-on-invalid-dep=yes "$@")
    echo "${id%%;*}"
}

download=$(submit "" slurm/download.sbatch)
echo "download: $download"
labels=
for stage in $(cat preprocessing/stages.txt); do
    id=$(submit ":$download" "--array=1-$shards" --job-name="$stage" slurm/preprocess.sbatch "$stage" "$shards")
    echo "$stage: $id"
    labels=$labels:$id
done
train=$(submit "$labels" --job-name="$name" slurm/train.sbatch "$script" --name "$name" "$@")
echo "train: $train"
evaluate=$(submit ":$train" slurm/evaluate.sbatch "${A2D2_RUNS:-runs}/$name/best.pt")
echo "evaluate: $evaluate"
