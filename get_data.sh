#!/bin/sh
# Fetch A2D2 and arrange it as the rest of the project expects: sh get_data.sh --help
# shellcheck disable=SC2086 # options in variables are several words
set -eu

# ---- where the data comes from: the one place to change when it moves -----------------------------------------
BASE_URL=https://aev-autonomous-driving-dataset.s3.eu-central-1.amazonaws.com
BBOXES_ARCHIVE=camera_lidar_semantic_bboxes.tar # images, labels, lidar, boxes: about 48 GB
BUS_ARCHIVE=camera_lidar_semantic_bus.tar       # steering angles
BBOXES_FOLDER=camera_lidar_semantic_bboxes      # where each belongs below --dest
BUS_FOLDER=gateway
OTHER_CAMERAS="cam_front_left cam_front_right cam_side_left cam_side_right cam_rear_center"

TRIES=8                              # in a row without a new byte
BACKOFF=${GET_DATA_BACKOFF:-5}       # seconds before the second try, twice as many before each further one
PATIENCE="--connect-timeout 30 --speed-limit 1000 --speed-time 60" # a download that stalls is broken off and goes on
[ -n "${PYTHON:-}" ] || PYTHON=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)
SCENE='[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]_[0-9][0-9][0-9][0-9][0-9][0-9]'

usage() {
    cat <<END
sh get_data.sh [options]      fetch A2D2 (about 50 GB) into Datasets/; again: does only what is missing

  --dest DIR        instead of Datasets/ (default: \$A2D2_DATA if set)
  --base-url URL    a mirror that has $BBOXES_ARCHIVE and $BUS_ARCHIVE
  --only WHAT       bboxes (images, labels, lidar, boxes) or bus (steering)
  --all-cameras     unpack all six cameras, not only the front center one
  --keep-archives   do not remove an archive once it is unpacked
  --stream          unpack while downloading: no disk for archives, but an interrupted download starts again
  --sha256 SUM      check the archive that --only names
  --sample          write a small synthetic data set instead; no network
  --weights         fetch the ImageNet weights that the configs name instead, into \$TORCH_HOME
  --dry-run         show what would be fetched, sizes and free disk
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
        case $(ps -o comm= -p "$child" 2>/dev/null) in *curl | *tar) kill "$child" ;; esac
    done 2>/dev/null <"$work/lock/children" || true
}

gigabytes() { awk "BEGIN { printf \"%.2f GB\", $1 / 1e9 }"; }
size_of() { if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi; }

# ---- what the server says ------------------------------------------------------------------------------------

# header NAME FILE: the value in the last answer of a chain of redirects
header() {
    awk -v name="$1:" 'tolower($1) == name { value = $2 } END { gsub(/[\r"]/, "", value); print value }' "$2"
}

# ask URL: sets length, etag
ask() {
    curl -sSfIL --connect-timeout 30 "$1" >"$work/headers" 2>"$work/error" || fail "$1: $(tail -n 1 "$work/error")"
    case $(header content-type "$work/headers") in
        text/html*) fail "$1: the server answers with a web page, not with an archive (a proxy's login page?)" ;;
    esac
    length=$(header content-length "$work/headers") etag=$(header etag "$work/headers")
    [ -n "$length" ] || fail "$1: the server does not tell the size, so that no download could be checked"
}

free_bytes() { df -Pk "$dest" | awk 'NR == 2 { printf "%.0f", $4 * 1024 }'; }

# ---- download --------------------------------------------------------------------------------------------------

# download URL FILE: until FILE has $length bytes; goes on where an earlier run stopped
download() {
    if [ -f "$2" ] && [ "$(cat "$2.etag" 2>/dev/null)" != "$etag" ]; then
        say "$(basename "$2"): the server's file has changed; starting again"
        rm -f "$2"
    fi
    printf '%s\n' "$etag" >"$2.etag"
    tries=0 wait=$BACKOFF
    while have=$(size_of "$2"); [ "$have" -lt "$length" ]; do
        say "$(basename "$2"): $(gigabytes "$have") of $(gigabytes "$length")"
        if [ ! -t 2 ]; then
            report "$2" &
            reporter=$!
        fi
        status=0
        run curl -fL $meter $PATIENCE -C - -o "$2" -w '%{http_code}' "$1" >"$work/code" || status=$?
        [ -z "$reporter" ] || kill "$reporter"
        reporter='' code=$(cat "$work/code")
        case $status:$code in
            33:*) # no ranges: from the start
                say "$(basename "$2"): the server cannot continue a download; starting again"
                rm -f "$2"
                ;;
            22:408 | 22:416 | 22:429 | 22:5??) ;;
            22:*) fail "$1: the server answers $code" ;;
        esac
        if [ "$(size_of "$2")" -gt "$have" ]; then tries=0 wait=$BACKOFF; fi
        [ "$(size_of "$2")" -lt "$length" ] || break
        tries=$((tries + 1))
        [ "$tries" -lt "$TRIES" ] || fail "$1: no more than $(size_of "$2") of $length bytes after $TRIES tries \
(curl exit $status); run again to go on"
        sleep "$wait"
        wait=$((wait * 2))
    done
}

# verify FILE SUM: size and whatever checksum there is; a bad file is removed
verify() {
    [ "$(size_of "$1")" -eq "$length" ] || reject "$1" "has $(size_of "$1") bytes instead of $length"
    if is_md5 "$etag"; then
        [ "$(checksum md5 "$1")" = "$etag" ] || reject "$1" "does not have the server's checksum $etag"
    fi
    [ -z "$2" ] || case $(checksum sha256 "$1") in
        "$2"*) ;;
        *) reject "$1" "does not have the SHA-256 checksum $2" ;;
    esac
}

reject() {
    rm -f "$1" "$1.etag"
    fail "$(basename "$1") $2; it was removed, run again to fetch it anew"
}

# is_md5 ETAG: whether it is the checksum of an upload in one part
is_md5() { printf '%s' "$1" | grep -Eqx '[0-9a-f]{32}'; }

# checksum md5|sha256 FILE
checksum() {
    if command -v "${1}sum" >/dev/null; then "${1}sum" "$2"; else openssl dgst "-$1" -r "$2"; fi | cut -d ' ' -f 1
}

# ---- unpack ----------------------------------------------------------------------------------------------------

# refuse_members LIST: names that would leave the folder, from a file of `tar -t`
refuse_members() {
    bad=$(grep -E '^/|^(.*/)?\.\.(/.*)?$' "$1" | head -n 1 || true)
    [ -z "$bad" ] || fail "the archive has a member outside its folder, $bad; nothing was taken from it"
}

excluded() {
    [ -n "$all_cameras" ] || for camera in $OTHER_CAMERAS; do printf ' --exclude=*/%s/*' "$camera"; done
}

# unpack FILE FOLDER: scenes appear below FOLDER when all of them are unpacked
unpack() {
    [ "$(dd if="$1" bs=1 skip=257 count=5 2>/dev/null)" = ustar ] || reject "$1" "is no tar archive"
    tar -tf "$1" >"$work/members" || reject "$1" "can't be read by tar"
    refuse_members "$work/members"
    if tar -tvf "$1" | grep -q '^[lh]'; then fail "$(basename "$1") has links, which A2D2 does not; not unpacked"; fi
    say "$(basename "$1"): unpacking"
    rm -rf "$work/unpacked"
    mkdir "$work/unpacked"
    set -f # tar matches the patterns, not the shell
    # shellcheck disable=SC2046 # one word each
    run tar -xf "$1" -C "$work/unpacked" $(excluded) || fail "tar could not unpack $(basename "$1")"
    set +f
    arrange "$2"
}

# stream URL FOLDER: download and unpack at once
stream() {
    say "$(basename "$1"): downloading and unpacking at once; this can't go on where it stops"
    rm -rf "$work/unpacked" "$work/pipe" "$work/copy"
    mkdir "$work/unpacked"
    mkfifo "$work/pipe" "$work/copy"
    curl -fL $meter $PATIENCE -D "$work/headers" "$1" >"$work/pipe" &
    download=$!
    echo "$download" >>"$work/lock/children"
    checksum md5 "$work/copy" >"$work/md5" &
    digest=$!
    run unpack_pipe || fail "$1: broken off or no archive ($(head -n 1 "$work/tar-error")); nothing was unpacked into $dest"
    wait "$download" || fail "$1: the download broke off; nothing was unpacked into $dest"
    wait "$digest" || fail "the checksum of $1 could not be taken; nothing was unpacked into $dest"
    [ "$(header content-length "$work/headers")" = "$length" ] ||
        fail "$1: the server sent another size than it had told; nothing was unpacked into $dest"
    ! is_md5 "$etag" || [ "$(cat "$work/md5")" = "$etag" ] ||
        fail "$1 does not have the server's checksum $etag; nothing was unpacked into $dest"
    grep -q 'Removing leading' "$work/tar-error" && fail "the archive has a member outside its folder"
    refuse_members "$work/members"
    [ -z "$(find "$work/unpacked" -type l)" ] || fail "$1 has links, which A2D2 does not; not unpacked"
    arrange "$2"
}

# unpack_pipe: to the end of the download, whose last bytes tar does not read
unpack_pipe() {
    set -f
    # shellcheck disable=SC2046 # one word each
    tee "$work/copy" <"$work/pipe" | {
        tar -xvf - -C "$work/unpacked" $(excluded) >"$work/members" 2>"$work/tar-error" && cat >/dev/null
    }
}

# arrange FOLDER: move what was unpacked there, without the archive's wrapper folder
arrange() {
    for root in "$work/unpacked" "$work/unpacked"/*; do
        for scene in "$root"/$SCENE; do [ ! -d "$scene" ] || break 2; done
        root=
    done
    [ -n "$root" ] || fail "the archive holds no scenes; is $base_url a mirror of A2D2?"
    if [ -d "$dest/$1" ]; then # such as more cameras than the last time
        (cd "$root" && find . -type d) | while IFS= read -r folder; do mkdir -p "$dest/$1/$folder"; done
        (cd "$root" && find . -type f) | while IFS= read -r file; do mv "$root/$file" "$dest/$1/$file"; done
    else
        mv "$root" "$dest/$1"
    fi
    rm -rf "$work/unpacked"
}

# ---- the whole of one archive ----------------------------------------------------------------------------------

# done_already NAME: unpacked by an earlier run, with the cameras that are asked for
done_already() { grep -qx all "$work/$1.done" 2>/dev/null || { [ -z "$all_cameras" ] && [ -f "$work/$1.done" ]; }; }

# get NAME FOLDER
get() {
    url=$base_url/$1 file=$work/$1
    if done_already "$1"; then
        say "$1: is there already"
        return
    fi
    ask "$url"
    have=$(size_of "$file") free=$(free_bytes)
    # the archive, and at most as much again unpacked
    needed=$((length + (length - have)))
    [ -z "$stream" ] || needed=$length
    say "$1: $(gigabytes "$length"), needs up to $(gigabytes "$needed") of disk; $(gigabytes "$free") free in $dest"
    [ -z "$dry_run" ] || return 0
    [ "$free" -ge "$needed" ] || fail "not enough disk in $dest for $1: free some, choose another --dest, or try --stream"
    if [ -n "$stream" ]; then
        stream "$url" "$2"
    else
        download "$url" "$file"
        verify "$file" "$sha256"
        unpack "$file" "$2"
        [ -n "$keep_archives" ] || rm -f "$file" "$file.etag"
    fi
    if [ -n "$all_cameras" ]; then echo all; else echo front_center; fi >"$work/$1.done"
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
    images=$dest/$BBOXES_FOLDER
    scenes=$(find "$images" -maxdepth 1 -type d -name "$SCENE" 2>/dev/null | wc -l)
    frames=$(find "$images" -path '*/camera/cam_front_center/*.png' 2>/dev/null | wc -l)
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

dest=${A2D2_DATA:-Datasets} base_url=$BASE_URL base_url_given='' only='' all_cameras='' keep_archives='' stream=''
sha256='' sample='' weights='' dry_run='' reporter=''
while [ $# -gt 0 ]; do
    case $1 in
        --dest | --base-url | --only | --sha256) [ $# -ge 2 ] || misused "$1 needs a value" ;;
    esac
    case $1 in
        --dest) dest=${2%/} && shift ;;
        --base-url) base_url=${2%/} base_url_given=1 && shift ;;
        --only) only=$2 && shift ;;
        --sha256) sha256=$2 && shift ;;
        --all-cameras) all_cameras=1 ;;
        --keep-archives) keep_archives=1 ;;
        --stream) stream=1 ;;
        --sample) sample=1 ;;
        --weights) weights=1 ;;
        --dry-run) dry_run=1 ;;
        --help | -h) usage && exit 0 ;;
        *) misused "unknown option $1" ;;
    esac
    shift
done
case $only in '' | bboxes | bus) ;; *) misused "--only $only: there are bboxes and bus" ;; esac
[ -z "$sha256" ] || [ -n "$only" ] || misused "--sha256 needs --only: it is the checksum of one archive"
[ -z "$sha256" ] || [ -z "$stream" ] || misused "--stream can't check --sha256 before it unpacks"

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
[ "$only" = bus ] || get "$BBOXES_ARCHIVE" "$BBOXES_FOLDER"
[ "$only" = bboxes ] || get "$BUS_ARCHIVE" "$BUS_FOLDER"
[ -n "$dry_run" ] || summary
