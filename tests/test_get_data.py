"""get_data.sh against a local server that cuts off, lies, or has something else than the data."""

import contextlib
import hashlib
import http.server
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from datasets.a2d2.raw import RawData
from datasets.frames import Frame
from models.pretrained import imagenet_path
from training.weights import main as list_weights

ROOT = Path(__file__).parents[1]
BBOXES, BUS = "camera_lidar_semantic_bboxes.tar", "camera_lidar_semantic_bus.tar"
SCENES = ("20180807_145028", "20181108_091945")
FRAMES = [Frame("a2d2", scene, f"{number:09d}") for scene in SCENES for number in (91, 135)]

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="get_data.sh needs curl")


def tar_of(files: dict[str, bytes], odd: list[tarfile.TarInfo] = [], **links: str) -> bytes:  # noqa: B006
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        for member in odd:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def bboxes_files(wrapper: str = "camera_lidar_semantic_bboxes/") -> dict[str, bytes]:
    files = {f"{wrapper}cams_lidars.json": b"{}", f"{wrapper}class_list.json": b"{}"}
    for frame in FRAMES:
        for camera in ("front_center", "front_left", "rear_center"):
            flat, stem = frame.scene.replace("_", ""), f"camera_{camera.replace('_', '')}_{frame.id}"
            folder = f"{wrapper}{frame.scene}/camera/cam_{camera}"
            files[f"{folder}/{flat}_{stem}.png"] = f"{camera} of {frame}".encode() * 500
            files[f"{folder}/{flat}_{stem}.json"] = b"{}"
    return files


def bus_files(wrapper: str = "") -> dict[str, bytes]:
    return {f"{wrapper}{s}/bus/{s.replace('_', '')}_bus_signals.json": b"[]" * 3000 for s in SCENES}


@dataclass
class Served:
    """What the server does for one path, and what has been asked of it."""

    content: bytes
    status: int = 200
    type: str = "application/x-tar"
    told_length: int | str | None = None
    etag: str | None = None
    ranges: bool = True
    cut_off: list[int] = field(default_factory=list)  # bytes after which the n-th answer ends
    failures: list[int] = field(default_factory=list)  # statuses of the first answers
    slow: float = 0.0  # seconds between two parts of an answer
    asked: list[str] = field(default_factory=list)  # GET: its range

    def answer(self, handler: http.server.BaseHTTPRequestHandler, with_body: bool) -> None:
        wanted = handler.headers.get("Range", "")
        status = self.status
        if with_body:
            self.asked.append(wanted)
            status = self.failures.pop(0) if self.failures else status
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        if status == 200 and start:
            status = 206 if start < len(self.content) else 416
        body = self.content[start:] if status in (200, 206) else b"no"
        handler.send_response(status)
        length = self.told_length if self.told_length is not None and not with_body else len(body)
        handler.send_header("Content-Length", str(length))
        handler.send_header("Content-Type", self.type)
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.etag:
            handler.send_header("ETag", f'"{self.etag}"')
        handler.end_headers()
        if with_body:
            self._send(handler, body[: self.cut_off.pop(0)] if self.cut_off else body)

    def _send(self, handler: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        for at in range(0, len(body), 4096):
            handler.wfile.write(body[at : at + 4096])
            time.sleep(self.slow)
        handler.close_connection = True


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, Served]]]:
    paths: dict[str, Served] = {
        f"/{BBOXES}": Served(tar_of(bboxes_files())),
        f"/{BUS}": Served(tar_of(bus_files())),
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self, with_body: bool) -> None:
            served = paths.get(self.path) or Served(b"", 404)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                served.answer(self, with_body)

        def do_HEAD(self) -> None:
            self._answer(False)

        def do_GET(self) -> None:
            self._answer(True)

        def log_message(self, *_: object) -> None: ...

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", {name.lstrip("/"): served for name, served in paths.items()}
    running.shutdown()


@dataclass
class Place:
    """A destination, the server, and the ways to start the script."""

    dest: Path
    url: str
    served: dict[str, Served]

    @property
    def raw(self) -> RawData:
        return RawData(self.dest)

    def command(self, *flags: str) -> list[str]:
        return ["sh", str(ROOT / "get_data.sh"), "--dest", str(self.dest), "--base-url", self.url, *flags]

    def environment(self) -> dict[str, str]:
        return os.environ | {"GET_DATA_BACKOFF": "0", "PYTHON": sys.executable, "no_proxy": "*"}

    def run(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*flags), env=self.environment(), capture_output=True, text=True, timeout=60, cwd=ROOT
        )

    def nothing_unpacked(self) -> bool:
        return not self.raw.images_dir.exists() and not self.raw.gateway_dir.exists()


@pytest.fixture
def place(tmp_path: Path, server: tuple[str, dict[str, Served]]) -> Place:
    return Place(tmp_path / "my data", *server)


def assert_complete(place: Place) -> None:
    assert place.raw.frames("camera") == FRAMES
    assert place.raw.calibration_path.is_file()
    assert list(place.raw.bus_paths()) == list(SCENES)
    expected = {name: content for name, content in bboxes_files().items() if "front_center" in name}
    assert all((place.dest / name).read_bytes() == content for name, content in expected.items())


def assert_refused(done: subprocess.CompletedProcess[str], place: Place, told: str) -> None:
    assert done.returncode == 1, done.stderr
    assert told in done.stderr
    assert place.nothing_unpacked()


def gets(served: Served) -> int:
    return len(served.asked)


# ---- the good way ---------------------------------------------------------------------------------------------


def test_everything_is_fetched_and_arranged(place: Place) -> None:
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert_complete(place)
    assert not list(place.dest.rglob("*rear_center*"))
    assert not list(place.dest.rglob("*.tar"))  # removed once unpacked
    assert f"{place.dest}: 4 frames in 2 scenes, bus signals of 2 scenes" in done.stdout
    assert done.stdout.splitlines()[-1] == f"next: python preprocessing/segmentation.py --data-root {place.dest}"


def test_a_second_run_fetches_nothing(place: Place) -> None:
    place.run()
    before = [gets(served) for served in place.served.values()]
    done = place.run()
    assert done.returncode == 0
    assert [gets(served) for served in place.served.values()] == before == [1, 1]
    assert "is there already" in done.stdout


def test_only_one_archive(place: Place) -> None:
    assert place.run("--only", "bus").returncode == 0
    assert list(place.raw.bus_paths()) == list(SCENES)
    assert not place.raw.images_dir.exists()
    assert gets(place.served[BBOXES]) == 0
    assert place.run().returncode == 0
    assert_complete(place)
    assert gets(place.served[BUS]) == 1


def test_all_cameras_after_the_front_one(place: Place) -> None:
    place.run()
    assert place.run("--all-cameras").returncode == 0
    assert_complete(place)
    assert len(list(place.dest.rglob("*rear_center*/*.png"))) == len(FRAMES)
    before = gets(place.served[BBOXES])
    assert place.run().returncode == 0  # all include the front one
    assert gets(place.served[BBOXES]) == before


def test_archives_are_kept_where_asked(place: Place) -> None:
    assert place.run("--keep-archives").returncode == 0
    assert {path.name for path in place.dest.rglob("*.tar")} == {BBOXES, BUS}


@pytest.mark.parametrize(("images", "bus"), [("", "camera_lidar_semantic_bus/"), ("other/", "")])
def test_wrapper_folders_make_no_difference(place: Place, images: str, bus: str) -> None:
    place.served[BBOXES].content = tar_of(bboxes_files(images))
    place.served[BUS].content = tar_of(bus_files(bus))
    assert place.run().returncode == 0
    assert_complete(place)


def test_streaming_leaves_no_archive(place: Place) -> None:
    for served in place.served.values():
        served.etag = hashlib.md5(served.content).hexdigest()
    done = place.run("--stream")
    assert done.returncode == 0, done.stderr
    assert_complete(place)
    assert "can't go on where it stops" in done.stdout


def test_a_dry_run_fetches_nothing(place: Place) -> None:
    done = place.run("--dry-run")
    assert done.returncode == 0, done.stderr
    assert all(gets(served) == 0 for served in place.served.values())
    assert place.nothing_unpacked()
    assert BBOXES in done.stdout
    assert "free in" in done.stdout


def test_checksums_that_fit(place: Place) -> None:
    served = place.served[BUS]
    served.etag = hashlib.md5(served.content).hexdigest()
    assert place.run("--only", "bus", "--sha256", hashlib.sha256(served.content).hexdigest()).returncode == 0
    place.served[BBOXES].etag = f"{'0' * 32}-5"  # of an upload in parts: no MD5
    assert place.run().returncode == 0
    assert_complete(place)


def test_the_ways_of_the_default_destination(place: Place, tmp_path: Path) -> None:
    command = [part for part in place.command("--only", "bus") if part not in ("--dest", str(place.dest))]
    environment = place.environment() | {"A2D2_DATA": str(tmp_path / "scratch")}
    subprocess.run(command, env=environment, check=True, cwd=ROOT, capture_output=True)
    assert list(RawData(tmp_path / "scratch").bus_paths()) == list(SCENES)


# ---- a bad connection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[100], [0, 0, 5000], [1, 10, 100, 1000]])
def test_a_cut_off_download_goes_on_where_it_stopped(place: Place, cuts: list[int]) -> None:
    served = place.served[BUS]
    served.cut_off = list(cuts)
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert_complete(place)
    sizes = [int(asked.removeprefix("bytes=").removesuffix("-") or 0) for asked in served.asked]
    assert sizes == [sum(cuts[:i]) for i in range(len(cuts) + 1)]


def test_busy_servers_are_asked_again(place: Place) -> None:
    place.served[BUS].failures = [503, 500, 429]
    assert place.run().returncode == 0
    assert_complete(place)


def test_a_server_that_always_cuts_off_is_given_up_and_the_next_run_goes_on(place: Place) -> None:
    served = place.served[BUS]
    served.cut_off = [3000] + [0] * 50
    assert_refused(place.run("--only", "bus"), place, "run again to go on")
    assert gets(served) < 20
    served.cut_off, served.asked = [], []
    assert place.run("--only", "bus").returncode == 0
    assert served.asked == ["bytes=3000-"]
    assert list(place.raw.bus_paths()) == list(SCENES)


def test_a_server_without_ranges_starts_again(place: Place) -> None:
    served = place.served[BUS]
    served.ranges, served.cut_off = False, [3000]
    done = place.run("--only", "bus")
    assert done.returncode == 0, done.stderr
    assert list(place.raw.bus_paths()) == list(SCENES)


def test_a_changed_file_is_not_joined_to_an_old_part(place: Place) -> None:
    served = place.served[BUS]
    served.etag, served.cut_off = "old-1", [3000] + [0] * 50
    place.run("--only", "bus")
    served.etag, served.cut_off, served.asked = "new-1", [], []
    served.content = tar_of(dict.fromkeys(bus_files(), b"[1]" * 3000))
    assert place.run("--only", "bus").returncode == 0
    assert served.asked[0] in ("", "bytes=0-")
    assert all(path.read_bytes() == b"[1]" * 3000 for path in place.raw.bus_paths().values())


def test_a_complete_archive_that_was_not_unpacked_is_not_fetched_again(place: Place) -> None:
    work = place.dest / ".get_data"
    work.mkdir(parents=True)
    (work / BUS).write_bytes(place.served[BUS].content)
    (work / f"{BUS}.etag").write_text("\n")
    assert place.run("--only", "bus").returncode == 0
    assert gets(place.served[BUS]) == 0
    assert list(place.raw.bus_paths()) == list(SCENES)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("flags", [[], ["--stream"]])
def test_killed_and_run_again(place: Place, how: signal.Signals, flags: list[str]) -> None:
    served = place.served[BUS]
    served.slow = 0.2
    process = subprocess.Popen(
        place.command("--only", "bus", *flags),
        env=place.environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_until(lambda: gets(served) == 1)
    process.send_signal(how)
    process.wait(timeout=30)
    assert process.returncode != 0
    assert place.nothing_unpacked()
    served.slow = 0.0
    done = place.run("--only", "bus", *flags)
    assert done.returncode == 0, done.stderr
    assert list(place.raw.bus_paths()) == list(SCENES)


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("waited in vain")


def test_two_runs_at_once(place: Place) -> None:
    served = place.served[BUS]
    served.slow = 0.2
    first = subprocess.Popen(
        place.command("--only", "bus"), env=place.environment(), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    wait_until(lambda: gets(served) == 1)
    second = place.run("--only", "bus")
    assert second.returncode == 1
    assert "another get_data.sh works on" in second.stderr
    served.slow = 0.0
    assert first.wait(timeout=60) == 0
    assert place.run("--only", "bus").returncode == 0  # the lock is gone


@pytest.mark.parametrize("cut", [3000, 9000])
def test_a_server_without_ranges_that_always_cuts_off_is_given_up(place: Place, cut: int) -> None:
    served = place.served[BUS]
    served.ranges, served.cut_off = False, [cut] * 200
    done = place.run("--only", "bus")
    assert_refused(done, place, "run again to go on")
    assert gets(served) < 30


# ---- what a server says is data -----------------------------------------------------------------------------------

RUNS = [
    '1;system("touch {}")',
    "1+x[$(touch {})]",
    "$(touch {})",
    "`touch {}`",
    '1}} BEGIN {{ system("touch {}") }} {{1',
]


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("header", RUNS)
def test_a_header_runs_no_code(place: Place, tmp_path: Path, shell: str, header: str) -> None:
    ran = tmp_path / "ran"
    place.served[BUS].told_length = header.format(ran)
    command = [shutil.which(shell) or pytest.skip(f"no {shell}"), *place.command("--only", "bus")[1:]]
    done = subprocess.run(command, env=place.environment(), capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert not ran.exists()
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert place.nothing_unpacked()


@pytest.mark.parametrize("length", ["-5", "010", "1e3", "99999999999999999999", "0x10", "5 5"])
def test_a_length_that_is_no_number(place: Place, length: str) -> None:
    place.served[BUS].told_length = length
    done = place.run("--only", "bus")
    assert done.returncode == 1
    assert gets(place.served[BUS]) == 0


def test_an_etag_is_no_command_either(place: Place, tmp_path: Path) -> None:
    place.served[BUS].etag = f"$(touch {tmp_path / 'ran'}); touch {tmp_path / 'ran'}"
    assert place.run("--only", "bus").returncode == 0
    assert not (tmp_path / "ran").exists()


# ---- nothing broken is ever unpacked ----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_a_missing_archive(place: Place, stream: list[str]) -> None:
    place.served[BBOXES].status = 404
    assert_refused(place.run(*stream), place, "404")


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_a_proxys_page(place: Place, stream: list[str]) -> None:
    place.served[BBOXES].content, place.served[BBOXES].type = b"<html>log in</html>" * 100, "text/html"
    assert_refused(place.run(*stream), place, "web page")
    assert not list(place.dest.rglob("*.tar"))


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_a_page_that_says_it_is_an_archive(place: Place, stream: list[str]) -> None:
    place.served[BBOXES].content = b"<html>log in</html>" * 100
    assert_refused(place.run(*stream), place, "archive")
    assert not list(place.dest.rglob("*.tar"))


@pytest.mark.parametrize("stream", [[], ["--stream"]])
@pytest.mark.parametrize("more", [700, -700])
def test_a_length_that_is_a_lie(place: Place, stream: list[str], more: int) -> None:
    served = place.served[BUS]
    served.told_length = len(served.content) + more
    done = place.run("--only", "bus", *stream)
    assert done.returncode == 1
    assert place.nothing_unpacked()


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_a_wrong_etag(place: Place, stream: list[str]) -> None:
    place.served[BUS].etag = hashlib.md5(b"something else").hexdigest()
    assert_refused(place.run("--only", "bus", *stream), place, "checksum")
    assert not list(place.dest.rglob("*.tar"))


def test_a_wrong_sha256(place: Place) -> None:
    done = place.run("--only", "bus", "--sha256", "0" * 64)
    assert_refused(done, place, "SHA-256")
    assert not list(place.dest.rglob("*.tar"))


def test_an_archive_that_does_not_fit_is_put_aside_not_deleted(place: Place) -> None:
    for number in (1, 2):
        place.run("--only", "bus", "--sha256", "0" * 64)
        kept = sorted(place.dest.rglob("*.aside*"))
        assert len(kept) == number
        assert all(path.read_bytes() == place.served[BUS].content for path in kept)
    assert place.run("--only", "bus").returncode == 0
    assert len(list(place.dest.rglob("*.aside*"))) == 2


def test_an_upper_case_checksum_fits_too(place: Place) -> None:
    sum_ = hashlib.sha256(place.served[BUS].content).hexdigest().upper()
    done = place.run("--only", "bus", "--sha256", sum_)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("sum_", ["c", "", "0" * 63, "0" * 65, "g" * 64, "*", "0" * 63 + "*"])
def test_what_is_no_checksum_checks_nothing(place: Place, sum_: str) -> None:
    done = place.run("--only", "bus", "--sha256", sum_)
    assert done.returncode == 2
    assert "64 hexadecimal digits" in done.stderr
    assert gets(place.served[BUS]) == 0


def test_only_some_scenes_keep_the_archive_for_the_others(place: Place) -> None:
    assert place.run("--scenes", SCENES[0]).returncode == 0
    assert place.raw.scenes() == [SCENES[0]]
    assert place.run().returncode == 0
    assert_complete(place)
    assert [gets(served) for served in place.served.values()] == [1, 1]


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_a_cut_stream_or_archive_is_not_taken_for_whole(place: Place, stream: list[str]) -> None:
    """Cut between two members: GNU tar finds nothing wrong."""
    served = place.served[BUS]
    served.cut_off = [512 + 6144] * 50
    done = place.run("--only", "bus", *stream)
    if stream:
        assert_refused(done, place, "broke")
    else:
        assert done.returncode == 0  # it went on by ranges


@pytest.mark.parametrize("stream", [[], ["--stream"]])
@pytest.mark.parametrize("name", ["/tmp/evil_of_a2d2", "../evil_of_a2d2", "20180807_145028/../../evil_of_a2d2"])
def test_members_outside_the_folder(place: Place, stream: list[str], name: str) -> None:
    place.served[BUS].content = tar_of(bus_files() | {name: b"evil"})
    done = place.run("--only", "bus", *stream)
    assert done.returncode == 1
    assert place.nothing_unpacked()
    assert not list(place.dest.parent.rglob("evil_of_a2d2"))
    assert not Path("/tmp/evil_of_a2d2").exists()


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_links_are_refused(place: Place, stream: list[str]) -> None:
    place.served[BUS].content = tar_of(bus_files(), **{"20180807_145028/out": "/etc"})
    assert_refused(place.run("--only", "bus", *stream), place, "links")


def odd_member(kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    member = tarfile.TarInfo(f"{SCENES[0]}/bus/odd")
    member.type, member.mode, member.devmajor, member.devminor = kind, mode, 1, 3
    return member


@pytest.mark.parametrize("stream", [[], ["--stream"]])
@pytest.mark.parametrize(
    "odd",
    [
        odd_member(tarfile.CHRTYPE),
        odd_member(tarfile.BLKTYPE),
        odd_member(tarfile.FIFOTYPE),
        odd_member(tarfile.LNKTYPE),
        odd_member(mode=0o4755),
        odd_member(mode=0o2755),
    ],
    ids=["character device", "block device", "FIFO", "hard link", "set-uid", "set-gid"],
)
def test_only_plain_files_and_folders_are_unpacked(place: Place, odd: tarfile.TarInfo, stream: list[str]) -> None:
    place.served[BUS].content = tar_of(bus_files(), [odd])
    done = place.run("--only", "bus", *stream)
    assert done.returncode == 1, done.stdout
    assert place.nothing_unpacked()
    assert "the archive has" in done.stderr


def test_rights_and_owners_of_members_are_not_taken_over(place: Place) -> None:
    member = odd_member(mode=0o777)
    member.uid = member.gid = 12345
    place.served[BUS].content = tar_of(bus_files(), [member])
    assert place.run("--only", "bus").returncode == 0
    path = place.raw.gateway_dir / member.name
    assert path.stat().st_mode & 0o022 == 0
    assert path.stat().st_uid == os.getuid()


@pytest.mark.parametrize(("name", "told"), [("a\n../../b", "outside its folder"), ("a\nb", "no plain text")])
def test_a_name_with_a_line_break_is_refused(place: Place, name: str, told: str) -> None:
    place.served[BUS].content = tar_of(bus_files() | {f"{SCENES[0]}/bus/{name}": b"x"})
    assert_refused(place.run("--only", "bus"), place, told)


def test_an_archive_without_scenes(place: Place) -> None:
    place.served[BUS].content = tar_of({"readme.txt": b"moved"})
    assert_refused(place.run("--only", "bus"), place, "no scenes")


def test_too_little_disk(place: Place, tmp_path: Path) -> None:
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "df").write_text("#!/bin/sh\necho header\necho disk 100 90 10 90% /\n")
    (fake / "df").chmod(0o755)
    environment = place.environment() | {"PATH": f"{fake}:{os.environ['PATH']}"}
    done = subprocess.run(place.command("--only", "bus"), env=environment, capture_output=True, text=True, cwd=ROOT)
    assert_refused(done, place, "not enough disk")
    assert gets(place.served[BUS]) == 0


# ---- the command line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--fast"], "unknown option --fast"),
        (["--only", "lidar"], "there are bboxes, semantic and bus"),
        (["--source", "ftp"], "there are files and tar"),
        (["--scenes", "2018"], "a scene is called such as"),
        (["--sha256", "0"], "--sha256 needs --only"),
        (["--only", "bus", "--sha256", "0", "--stream"], "--stream can't check"),
        (["--dest"], "--dest needs a value"),
    ],
)
def test_wrong_usage(place: Place, flags: list[str], told: str) -> None:
    done = place.run(*flags)
    assert done.returncode == 2
    assert told in done.stderr


def test_help_names_every_option() -> None:
    script = (ROOT / "get_data.sh").read_text()
    shown = subprocess.run(["sh", ROOT / "get_data.sh", "--help"], capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"^        (--[a-z0-9-]+)[ )]", script, re.MULTILINE))
    assert len(options) > 8
    assert all(option in shown for option in options)


def test_the_codes_own_folder_is_noticed(place: Place) -> None:
    place.dest.mkdir()
    (place.dest / "layout.py").touch()  # what Datasets/ holds where the file system ignores case
    done = place.run()
    assert done.returncode == 1
    assert "ignores case" in done.stderr
    assert "--dest" in done.stderr


def test_weights_are_fetched_and_checked(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = tmp_path / "hub"
    fake = tmp_path / "python"
    content = b"weights" * 1000
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    fake.write_text(f"#!/bin/sh\necho 'https://nowhere.invalid/models/{name}' '{hub}/checkpoints/{name}'\n")
    fake.chmod(0o755)
    place.served[BUS].content = content
    url_path = f"{place.url}/{BUS}"
    environment = place.environment() | {"PYTHON": str(fake)}
    fake.write_text(f"#!/bin/sh\necho '{url_path}' '{hub}/checkpoints/{name}'\n")
    command = [part for part in place.command("--weights") if part not in ("--base-url", place.url)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (hub / "checkpoints" / name).read_bytes() == content
    place.served[BUS].content = b"another" * 1000
    (hub / "checkpoints" / name).unlink()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "SHA-256" in done.stderr
    assert not (hub / "checkpoints" / name).exists()


def test_the_weights_are_those_of_the_configs(capsys: pytest.CaptureFixture[str]) -> None:
    list_weights()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {url.rsplit("/", 1)[-1].split("-")[0] for url, _ in lines} == {"resnet50", "densenet169"}
    from torchvision.models import ResNet50_Weights

    entry = next(path for url, path in lines if "resnet50" in url)
    assert Path(entry).name.startswith("resnet50")
    assert Path(entry).parent == imagenet_path(ResNet50_Weights.IMAGENET1K_V1).parent


def test_it_is_posix_shell() -> None:
    shell = shutil.which("dash") or "sh"
    for script in ("get_data.sh", "fetching/archives.sh"):
        assert subprocess.run([shell, "-n", ROOT / script]).returncode == 0
