#!/bin/sh
# Fetch A2D2 and arrange it as the rest of the project expects: sh get_data.sh --help
# shellcheck disable=SC2086 # options in variables are several words
set -eu
# shellcheck source=fetching/archives.sh
. "$(dirname "$0")/fetching/archives.sh"

# ---- where the data comes from: the one place to change when it moves -----------------------------------------
# file by file: the bucket of fetching/__main__.py. As archives:
BASE_URL=https://aev-autonomous-driving-dataset.s3.eu-central-1.amazonaws.com
BBOXES_ARCHIVE=camera_lidar_semantic_bboxes.tar # images, labels, lidar, boxes: about 48 GB
SEMANTIC_ARCHIVE=camera_lidar_semantic.tar      # images, labels, lidar of several times as many frames
BUS_ARCHIVE=camera_lidar_semantic_bus.tar       # steering angles
BBOXES_FOLDER=camera_lidar_semantic_bboxes      # where each belongs below --dest
SEMANTIC_FOLDER=camera_lidar_semantic
BUS_FOLDER=gateway
[ -n "${PYTHON:-}" ] || PYTHON=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)
SCENE='[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]_[0-9][0-9][0-9][0-9][0-9][0-9]'

usage() {
    cat <<END
sh get_data.sh [options]      fetch A2D2 (about 50 GB) into Datasets/; again: does only what is missing

  --dest DIR        instead of Datasets/ (default: \$A2D2_DATA if set)
  --source WHAT     files (default): one by one from the set's new bucket, only the front center camera;
                    tar: whole archives from the old one. The other is tried where access is denied or nothing is there
  --only WHAT       bboxes (images, labels, lidar, boxes), bus (steering), or semantic (images, labels, lidar of several
                    times as many frames); default: bboxes and bus
  --scenes S ...    only these scenes, such as 20180807_145028
  --all-cameras     all six cameras, not only the front center one
  --dry-run         show what would be fetched from where, sizes and free disk
 files:
  --endpoint URL    an S3 server that has the bucket, instead of Amazon's (default: \$A2D2_S3_ENDPOINT if set)
  --checksums       check every file against the bucket's CHECKSUMS.txt (193 MB), not only by size and ETag
  --verify          read what is there and compare it too, not only its size
 archives:
  --base-url URL    a mirror that has $BBOXES_ARCHIVE and $BUS_ARCHIVE; without --source, nothing else is tried
  --keep-archives   do not remove an archive once it is unpacked
  --stream          unpack while downloading: no disk for archives, but an interrupted download starts again
  --sha256 SUM      check the archive that --only names
 instead:
  --sample          write a small synthetic data set; no network
  --weights         fetch the ImageNet weights that the configs name into \$TORCH_HOME
  --help
END
}

say() { printf '%s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
misused() {
    printf 'error: %s; see sh get_data.sh --help\n' "$*" >&2
    exit 2
}

# run COMMAND...: in the background, so that a signal stops it at once
run() {
    "$@" &
    echo $! >>"$work/lock/children"
    status=0
    wait $! || status=$?
    : >"$work/lock/children"
    return $status
}
# report FILE: its size every minute, for a job's log, where no bar is shown; ends with this script
report() {
    while sleep 60 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do say "$(basename "$1"): $(gigabytes "$(size_of "$1")")"; done
}
stop_children() {
    [ -z "$reporter" ] || kill "$reporter" 2>/dev/null || true
    reporter=
    while read -r child; do
        case $(ps -o comm= -p "$child" 2>/dev/null) in *curl | *python*) kill "$child" ;; esac
    done 2>/dev/null <"$work/lock/children" || true
}

# ---- the two sources; each sets unavailable=1 where access is denied or nothing is there ---------------------------

get_files() {
    "$PYTHON" -c 'import obstore' 2>/dev/null ||
        fail "fetching files needs the project's Python packages ('$PYTHON' lacks them): make .venv/installed, or --source tar"
    set -- --dest "$dest"
    [ -z "$only" ] || set -- "$@" --only "$only"
    [ -z "$scenes" ] || set -- "$@" --scenes $scenes
    [ -z "$endpoint" ] || set -- "$@" --endpoint "$endpoint"
    status=0 unavailable=''
    run "$PYTHON" -m fetching "$@" $all_cameras $dry_run $checksums $verify || status=$?
    case $status in
        0) ;;
        3) unavailable=1 ;;
        *) exit "$status" ;;
    esac
}

get_archives() {
    for what in ${only:-bboxes bus}; do
        case $what in
            bboxes) get "$BBOXES_ARCHIVE" "$BBOXES_FOLDER" ;;
            semantic) get "$SEMANTIC_ARCHIVE" "$SEMANTIC_FOLDER" ;;
            bus) get "$BUS_ARCHIVE" "$BUS_FOLDER" ;;
        esac
        [ -z "$unavailable" ] || { say "$url: the server answers $code" >&2 && return; }
    done
}

get_weights() {
    weights=$("$PYTHON" -m training.weights) || fail "the configs' weights can't be listed; is '$PYTHON' the project's?"
    printf '%s\n' "$weights" | while read -r url path; do
        if [ -f "$path" ]; then
            say "$path: is there already"
            continue
        fi
        mkdir -p "$(dirname "$path")"
        [ -z "$base_url_given" ] || url=$base_url/$(basename "$url")
        ask "$url"
        [ -z "$unavailable" ] || fail "$url: the server answers $code"
        say "$url: $(gigabytes "$length") -> $path"
        [ -z "$dry_run" ] || continue
        file=$work/$(basename "$path")
        download "$url" "$file"
        hash=${path##*-} # torchvision's names end with the beginning of the SHA-256 checksum
        verify "$file" "${hash%.pth}"
        mv "$file" "$path"
        rm -f "$file.etag"
    done
}

summary() {
    scenes=$(find "$dest/$BBOXES_FOLDER" "$dest/$SEMANTIC_FOLDER" -maxdepth 1 -type d -name "$SCENE" 2>/dev/null |
        sed 's|.*/||' | sort -u | wc -l)
    frames=$(find "$dest/$BBOXES_FOLDER" "$dest/$SEMANTIC_FOLDER" -path '*/camera/cam_front_center/*.png' 2>/dev/null |
        sed 's|.*/||' | sort -u | wc -l)
    buses=$(find "$dest/$BUS_FOLDER" -name '*_bus_signals.json' 2>/dev/null | wc -l)
    say "$dest: $((frames)) frames in $((scenes)) scenes, bus signals of $((buses)) scenes"
    say "next: python preprocessing/segmentation.py --data-root $dest"
}

# ---- one run at a time -------------------------------------------------------------------------------------------

lock() {
    if ! mkdir "$work/lock" 2>/dev/null; then
        owner=$(cat "$work/lock/owner" 2>/dev/null || true)
        if [ "${owner% *}" != "$(uname -n)" ] || kill -0 "${owner#* }" 2>/dev/null; then
            fail "another get_data.sh works on $dest (${owner:-just started}); if not, remove $work/lock"
        fi
        say "a run that was killed has left its lock; going on"
        stop_children
    fi
    echo "$(uname -n) $$" >"$work/lock/owner"
    : >"$work/lock/children"
    trap 'stop_children; rm -rf "$work/unpacked" "$work/lock"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# ---- command line ------------------------------------------------------------------------------------------------

dest=${A2D2_DATA:-Datasets} base_url=$BASE_URL base_url_given='' endpoint='' source='' only='' scenes='' all_cameras=''
keep_archives='' stream='' sha256='' sha256_given='' checksums='' verify='' sample='' weights='' dry_run='' reporter='' unavailable=''
while [ $# -gt 0 ]; do
    case $1 in
        --dest | --base-url | --endpoint | --source | --only | --scenes | --sha256)
            [ $# -ge 2 ] || misused "$1 needs a value"
            ;;
    esac
    case $1 in
        --dest) dest=${2%/} && shift ;;
        --base-url) base_url=${2%/} base_url_given=1 && shift ;;
        --endpoint) endpoint=${2%/} && shift ;;
        --source) source=$2 && shift ;;
        --only) only=$2 && shift ;;
        --sha256) sha256=$(printf '%s' "$2" | tr 'A-F' 'a-f') sha256_given=1 && shift ;;
        --scenes)
            while [ $# -ge 2 ] && case $2 in -*) false ;; esac do
                # shellcheck disable=SC2254 # a pattern
                case $2 in $SCENE) ;; *) misused "--scenes $2: a scene is called such as 20180807_145028" ;; esac
                scenes="$scenes $2" && shift
            done
            ;;
        --all-cameras) all_cameras=$1 ;;
        --keep-archives) keep_archives=1 ;;
        --stream) stream=1 ;;
        --checksums) checksums=$1 ;;
        --verify) verify=$1 ;;
        --sample) sample=1 ;;
        --weights) weights=1 ;;
        --dry-run) dry_run=$1 ;;
        --help | -h) usage && exit 0 ;;
        *) misused "unknown option $1" ;;
    esac
    shift
done
case $only in '' | bboxes | semantic | bus) ;; *) misused "--only $only: there are bboxes, semantic and bus" ;; esac
[ -z "$sha256" ] || [ -n "$only" ] || misused "--sha256 needs --only: it is the checksum of one archive"
[ -z "$sha256" ] || [ -z "$stream" ] || misused "--stream can't check --sha256 before it unpacks"
[ -z "$sha256_given" ] || is_sha256 "$sha256" || misused "--sha256 $sha256: a SHA-256 checksum has 64 hexadecimal digits"
case $source in
    '') # what only one of the two can do names it
        if [ -n "$base_url_given$keep_archives$stream$sha256" ]; then sources=tar; else sources="files tar"; fi
        ;;
    files) sources="files tar" ;;
    tar) sources="tar files" ;;
    *) misused "--source $source: there are files and tar" ;;
esac

for tool in curl tar awk ps; do
    command -v "$tool" >/dev/null || fail "get_data.sh needs $tool, which is not installed here"
done
mkdir -p "$dest" 2>/dev/null || fail "$dest can't be made or written to"
[ ! -f "$dest/layout.py" ] || fail "$dest is the code's own folder datasets/ (this file system ignores case); \
choose another place: sh get_data.sh --dest ../A2D2, and export A2D2_DATA=../A2D2"

if [ -n "$sample" ]; then
    "$PYTHON" -m datasets.synthetic --out "$dest" --scenes 8 --frames 60 --image-size 640 402 || exit 1
    summary
    exit 0
fi

work=$dest/.get_data
mkdir -p "$work" || fail "$dest can't be written to"
meter=-sS
[ ! -t 2 ] || meter=-# # a bar on a terminal, errors only in a job's log
lock
if [ -n "$weights" ]; then
    get_weights
    exit 0
fi
for source in $sources; do
    case $source in files) get_files ;; tar) get_archives ;; esac
    [ -n "$unavailable" ] || break
    case $sources in "$source "*) say "not to be had from there: trying the other source, ${sources#* }" ;; esac
done
[ -z "$unavailable" ] || fail "nothing could be fetched from any source that was tried ($sources)"
[ -n "$dry_run" ] || summary
