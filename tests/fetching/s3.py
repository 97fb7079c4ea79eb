"""A pretend S3: moto in server mode, seeded from the synthetic sample, behind a proxy that commits faults."""

import contextlib
import hashlib
import http.client
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from werkzeug.serving import WSGIRequestHandler

from datasets.a2d2.raw import RawData
from errors import run_as_script
from fetching.__main__ import main
from fetching.bucket import Bucket, Patience
from fetching.plan import Plan, make_plan

ROOT = Path(__file__).parents[2]
BUCKET = "audi-autonomous-driving-dataset"
BOXES, SEMANTIC, BUS = "camera_lidar_semantic_bboxes", "camera_lidar_semantic", "camera_lidar_semantic_bus"
ACCESS_DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>'


# ---- the bucket ---------------------------------------------------------------------------------------------------


def backend():
    return s3_backends["123456789012"]["aws"]


def make_bucket(name: str, files: dict[str, bytes]) -> None:
    """A bucket that everybody may read, with these files and nothing else."""
    if name in backend().buckets:
        for key in list(backend().buckets[name].keys):
            backend().delete_object(name, key)
    else:
        backend().create_bucket(name, "eu-central-1")
        allowed = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket", "s3:HeadObject"]}
        resource = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
        policy = {"Version": "2012-10-17", "Statement": [allowed | {"Resource": resource}]}
        backend().put_bucket_policy(name, json.dumps(policy).encode())
    for key, content in files.items():
        backend().put_object(name, key, content)


def bucket_files(raw: RawData) -> dict[str, bytes]:
    """The synthetic sample as the real bucket holds A2D2: calibration and licence at its root, other cameras beside."""
    files = {"cams_lidars.json": raw.calibration_path.read_bytes(), "LICENSE": b"CC BY-ND 4.0", "README.txt": b"A2D2"}
    files[f"{SEMANTIC}/class_list.json"] = raw.class_list_path.read_bytes()
    for path in sorted(raw.images_dir.glob("*_*/**/*")):
        if path.is_file():
            files[f"{BOXES}/{path.relative_to(raw.images_dir)}"] = path.read_bytes()
    for scene, path in raw.bus_paths().items():
        files[f"{BUS}/{scene}/bus/{path.name}"] = path.read_bytes()
    for name in [name for name in files if "/camera/cam_front_center/" in name]:
        left = name.replace("front_center", "front_left").replace("frontcenter", "frontleft")
        files[left] = b"another camera's picture"
        # frames with classes but without boxes, in scenes of their own
        semantic = name.replace(BOXES, SEMANTIC).replace("2018", "2019")
        files[semantic] = files[name]
        if name.endswith(".png"):
            files[semantic.replace("/camera/", "/label/").replace("_camera_", "_label_")] = b"a label"
    scene = raw.scenes()[0].replace("2018", "2020")  # a recording without labels, with its own bus
    flat = scene.replace("_", "")
    files[f"camera_lidar/{scene}/bus/{flat}_bus_signals.json"] = b"{}"
    files[f"camera_lidar/{scene}/camera/cam_front_center/{flat}_camera_frontcenter_000000001.png"] = b"x"
    return files


def checksum_lines(files: dict[str, bytes], algorithm: str, mark: str = "  ") -> bytes:
    lines = (f"{hashlib.new(algorithm, content).hexdigest()}{mark}{key}\n" for key, content in files.items())
    return "".join(lines).encode()


# ---- the proxy ----------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    told_size: str | None = None  # where there is no body that tells it
    cut_after: int | None = None  # bytes that are sent before the connection closes
    stall_after: int | None = None  # bytes that are sent before nothing more comes


@dataclass
class Fault:
    """Something done to the first `times` answers whose path contains `where`."""

    where: str
    spoil: Callable[[Answer], Answer | None]
    times: int = 1 << 30
    after: int = 0  # answers that are let through before


def replaced(status: int, body: bytes) -> Callable[[Answer], Answer]:
    return lambda _: Answer(status, {"Content-Type": "application/xml"}, body)


def cut(answer: Answer) -> None:
    answer.cut_after = len(answer.body) // 2


def shorter(answer: Answer) -> None:
    """Half of the content, told to be all of it."""
    answer.body = answer.body[: len(answer.body) // 2]


def stalled(answer: Answer) -> None:
    answer.stall_after = len(answer.body) // 2


def flipped(answer: Answer) -> None:
    answer.body = bytes([answer.body[0] ^ 1]) + answer.body[1:]


def other_etag(answer: Answer) -> None:
    answer.headers["ETag"] = '"' + "0" * 32 + '"'


@dataclass
class Proxy:
    """Passes requests on to moto; `faults` says what it does to the answers, `asked` what was asked for."""

    upstream: int
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    port: int = 0
    stalls: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))  # one for each stall begun
    lock: threading.Lock = field(default_factory=threading.Lock)
    release: threading.Event = field(default_factory=threading.Event)  # ends the stalls

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def objects_asked(self) -> list[str]:
        """Keys of the objects that were asked for."""
        return [path.partition(f"/{BUCKET}/")[2] for path in self.asked if "?" not in path]

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        with self.lock:
            self.asked.append(handler.path)
        answer = self._spoiled(handler.path, self._upstream(handler))
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", answer.told_size or str(len(answer.body)))
        handler.send_header("Connection", "close")
        handler.end_headers()
        ends = [end for end in (answer.cut_after, answer.stall_after) if end is not None]
        if handler.command == "GET":
            handler.wfile.write(answer.body[: min([*ends, len(answer.body)])])
            handler.wfile.flush()
        if answer.stall_after is not None:
            self.stalls.release()
            self.release.wait()
        handler.close_connection = True

    def _upstream(self, handler: http.server.BaseHTTPRequestHandler) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream)
        passed = {name: value for name, value in handler.headers.items() if name.lower() in ("range", "if-match")}
        connection.request(handler.command, handler.path, headers=passed)
        response = connection.getresponse()
        body = response.read()
        size = response.headers["Content-Length"] if handler.command == "HEAD" else None
        kept = ("etag", "content-type", "last-modified", "content-range")
        headers = {name: value for name, value in response.getheaders() if name.lower() in kept}
        connection.close()
        return Answer(response.status, headers, body, size)

    def _spoiled(self, path: str, answer: Answer) -> Answer:
        with self.lock:
            for fault in self.faults:
                if fault.where not in path or fault.times == 0:
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                answer = fault.spoil(answer) or answer
        return answer


@contextlib.contextmanager
def running_moto() -> Iterator[int]:
    WSGIRequestHandler.disable_nagle_algorithm = True  # else each answer waits 40 ms
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@contextlib.contextmanager
def running_proxy(upstream: int) -> Iterator[Proxy]:
    proxy = Proxy(upstream)

    class Handler(http.server.BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                proxy.answer(self)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield proxy
    proxy.release.set()
    server.shutdown()


# ---- a run --------------------------------------------------------------------------------------------------------


@dataclass
class Place:
    """A destination, and the ways to fetch into it from the pretend S3."""

    dest: Path
    proxy: Proxy
    files: dict[str, bytes]  # of the bucket

    @property
    def raw(self) -> RawData:
        return RawData(self.dest)

    def environment(self) -> dict[str, str]:
        waits = {"GET_DATA_BACKOFF": "0", "GET_DATA_PATIENCE": "30", "no_proxy": "*"}
        return os.environ | waits | {"PYTHON": sys.executable, "A2D2_S3_ENDPOINT": self.proxy.url}

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, "-m", "fetching", "--dest", str(self.dest), *flags]

    def run(self, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A run in this process: starting another one takes longer than fetching the sample."""
        out, err = io.StringIO(), io.StringIO()
        environment = mock.patch.dict(os.environ, self.environment() | variables)
        with environment, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                run_as_script(lambda: main(["--dest", str(self.dest), *flags]))
            except SystemExit as end:
                return subprocess.CompletedProcess(flags, end.code, out.getvalue(), err.getvalue())

    def start(self, *flags: str) -> subprocess.Popen:
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(self.command(*flags), env=self.environment(), cwd=ROOT, **silent)

    def bucket_and_plan(self) -> tuple[Bucket, Plan]:
        """What a run without flags fetches, for tests of its later steps alone."""
        bucket = Bucket(BUCKET, self.proxy.url, 30, Patience(3, 0))
        return bucket, make_plan(bucket, self.raw, ["bboxes", "bus"], None, False)

    def expected(self, *parts: str) -> dict[Path, bytes]:
        """The front center camera's files of the parts and where they belong, the slow way."""
        found = {}
        folders = {BOXES: self.raw.images_dir, SEMANTIC: self.raw.semantic_dir, BUS: self.raw.gateway_dir}
        for part in parts:
            for key, content in self.files.items():
                if key.startswith(f"{part}/") and ("cam_front_center" in key or part == BUS):
                    found[folders[part] / key.removeprefix(f"{part}/")] = content
            if part != BUS:
                found[folders[part] / "cams_lidars.json"] = self.files["cams_lidars.json"]
                found[folders[part] / "class_list.json"] = self.files[f"{SEMANTIC}/class_list.json"]
                found[folders[part] / "LICENSE"] = self.files["LICENSE"]
        return found

    def there(self) -> dict[Path, bytes]:
        """All files at the destination but those of the run itself."""
        paths = (path for path in self.dest.rglob("*") if path.is_file() and ".get_data" not in path.parts)
        return {path: path.read_bytes() for path in paths}
