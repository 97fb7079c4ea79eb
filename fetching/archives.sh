#!/bin/sh
# A2D2's archives: download, verify, unpack. Read by get_data.sh, which sets the variables; what a server says is data.
# shellcheck disable=SC2034,SC2086,SC2154 # variables of get_data.sh; options in variables are several words

OTHER_CAMERAS="cam_front_left cam_front_right cam_side_left cam_side_right cam_rear_center"

TRIES=8                              # in a row without more bytes than ever before
BACKOFF=${GET_DATA_BACKOFF:-5}       # seconds before the second try, twice as many before each further one
PATIENCE="--connect-timeout 30 --speed-limit 1000 --speed-time 60" # a download that stalls is broken off and goes on

gigabytes() { awk -v bytes="$1" 'BEGIN { printf "%.2f GB", bytes / 1e9 }'; }
size_of() { if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi; }

# ---- what the server says ------------------------------------------------------------------------------------

# header NAME FILE: the value in the last answer of a chain of redirects, unquoted; ? for what is no plain text
header() {
    awk -v name="$1:" '
        tolower($1) == name { value = $0; sub(/^[^:]*:[ \t]*/, "", value) }
        END { gsub(/[\r"]/, "", value); gsub(/[^-A-Za-z0-9.\/+;=]/, "?", value); print value }' "$2"
}

# is_size TEXT: whether it is a number that the shell and awk take for just that
is_size() { case $1 in '' | *[!0-9]* | 0?* | ????????????????*) return 1 ;; esac; }

# ask URL: sets length, etag; unavailable=1 (and no more) where the server denies it or does not have it
ask() {
    unavailable='' code=$(curl -sSIL --connect-timeout 30 -o "$work/headers" -w '%{http_code}' "$1" 2>"$work/error") ||
        fail "$1: $(tail -n 1 "$work/error")"
    case $code in
        2??) ;;
        403 | 404) unavailable=1 && return ;;
        *) fail "$1: the server answers $code" ;;
    esac
    case $(header content-type "$work/headers") in
        text/html*) fail "$1: the server answers with a web page, not with an archive (a proxy's login page?)" ;;
    esac
    length=$(header content-length "$work/headers") etag=$(header etag "$work/headers")
    is_size "$length" || fail "$1: the server does not tell the size, so that no download could be checked"
}

free_bytes() { df -Pk "$dest" | awk 'NR == 2 { printf "%.0f", $4 * 1024 }'; }

# ---- download --------------------------------------------------------------------------------------------------

# download URL FILE: until FILE has $length bytes; goes on where an earlier run stopped
download() {
    if [ -f "$2" ] && [ "$(cat "$2.etag" 2>/dev/null)" != "$etag" ]; then
        say "$(basename "$2"): the server's file has changed; starting again"
        put_aside "$2"
    fi
    printf '%s\n' "$etag" >"$2.etag"
    tries=0 wait=$BACKOFF most=$(size_of "$2")
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
        # more than ever before: a server that always starts again, and always breaks off, must not go on for ever
        if [ "$(size_of "$2")" -gt "$most" ]; then tries=0 wait=$BACKOFF most=$(size_of "$2"); fi
        [ "$(size_of "$2")" -lt "$length" ] || break
        tries=$((tries + 1))
        [ "$tries" -lt "$TRIES" ] || fail "$1: no more than $(size_of "$2") of $length bytes after $TRIES tries \
(curl exit $status); run again to go on"
        sleep "$wait"
        wait=$((wait * 2))
    done
}

# verify FILE SUM: size and whatever checksum there is (SUM may be its beginning); a bad file is put aside
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

# put_aside FILE: under the first free name; sets aside. Nothing that was fetched is deleted because it does not fit
put_aside() {
    aside=$1.aside number=1
    while [ -e "$aside" ]; do number=$((number + 1)) aside=$1.aside-$number; done
    mv "$1" "$aside"
    rm -f "$1.etag"
}

reject() {
    put_aside "$1"
    fail "$(basename "$1") $2; it is now $aside (remove it for more disk), run again to fetch it anew"
}

is_sha256() { printf '%s' "$1" | grep -Eqx '[0-9a-f]{64}'; }

# is_md5 ETAG: whether it is the checksum of an upload in one part
is_md5() { printf '%s' "$1" | grep -Eqx '[0-9a-f]{32}'; }

# checksum md5|sha256 FILE
checksum() {
    if command -v "${1}sum" >/dev/null; then "${1}sum" "$2"; else openssl dgst "-$1" -r "$2"; fi | cut -d ' ' -f 1
}

# ---- unpack ----------------------------------------------------------------------------------------------------

# untar FILE: below $work/unpacked; only plain files and folders of the cameras and scenes that are asked for
untar() {
    set -- "$1" "$work/unpacked"
    [ -n "$all_cameras" ] || set -- "$@" --without $OTHER_CAMERAS
    [ -z "$scenes" ] || set -- "$@" --scenes $scenes
    exec "$PYTHON" -m fetching.archives "$@"
}

# unpack FILE FOLDER: scenes appear below FOLDER when all of them are unpacked
unpack() {
    say "$(basename "$1"): unpacking"
    rm -rf "$work/unpacked"
    mkdir "$work/unpacked"
    status=0
    run untar "$1" || status=$?
    [ "$status" -ne 4 ] || reject "$1" "is no whole tar archive"
    [ "$status" -eq 0 ] || fail "$(basename "$1") was not unpacked"
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
    arrange "$2"
}

# unpack_pipe: to the end of the download
unpack_pipe() { tee "$work/copy" <"$work/pipe" | untar - 2>"$work/tar-error"; }

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
    [ -z "$unavailable" ] || return 0
    have=$(size_of "$file") free=$(free_bytes)
    # the archive, and at most as much again unpacked
    needed=$((length + (length - have)))
    [ -z "$stream" ] || needed=$length
    say "$url: $(gigabytes "$length"), needs up to $(gigabytes "$needed") of disk; $(gigabytes "$free") free in $dest"
    [ -z "$dry_run" ] || return 0
    [ "$free" -ge "$needed" ] || fail "not enough disk in $dest for $1: free some, choose another --dest, or try --stream"
    if [ -n "$stream" ]; then
        stream "$url" "$2"
    else
        download "$url" "$file"
        verify "$file" "$sha256"
        unpack "$file" "$2"
        [ -n "$keep_archives$scenes" ] || rm -f "$file" "$file.etag"
    fi
    [ -z "$scenes" ] || return 0 # the archive holds more than was asked for
    if [ -n "$all_cameras" ]; then echo all; else echo front_center; fi >"$work/$1.done"
}
