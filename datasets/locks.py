"""One process at a time: a lock file that says who has it, for file systems of one machine and of many.

No flock, which some network file systems lack: who makes the file has the lock, and as long as it lives it touches the
file. So a dead owner is noticed: on its own machine at once, elsewhere when the file has not been touched for a while.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError

from datasets.files import read_bytes, start_of, temporary_path
from errors import UserError
from progress import warn
from strict import StrictModel

HEARTBEAT = 30  # seconds
DEAD_AFTER = 180  # seconds without a heartbeat; network file systems show a file's time up to a minute late


def _restart() -> str | None:
    return os.environ.get("SLURM_RESTART_COUNT")


class Owner(StrictModel):
    """Who has a lock: what stands in its file."""

    host: str
    pid: int = Field(ge=1)
    process_start: str | None  # as of `start_of`
    job: str | None  # of Slurm
    restart: str | None  # of the job: how many times it was requeued
    since: str
    token: str = Field(pattern=r"^[0-9a-f]{16}$")  # unlike any other owner's

    @classmethod
    def this_process(cls) -> Self:
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            process_start=start_of(os.getpid()),
            job=os.environ.get("SLURM_JOB_ID"),
            restart=_restart(),
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
            token=secrets.token_hex(8),
        )

    def has_ended(self, silent: float) -> bool:
        """Whether it lives no more; `silent`: seconds since its last heartbeat."""
        if self.host == socket.gethostname():
            return start_of(self.pid) != self.process_start
        if self.job and self.job == os.environ.get("SLURM_JOB_ID") and self.restart != _restart():
            return True  # this job was requeued after its node had failed
        return silent > DEAD_AFTER

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"


class Lock:
    """Held within a `with` block. UserError if another process has it: one line with its host and pid.

    what: what only one process may use at once, as the message begins: "runs/ours", "the depth labels in DIR".
    """

    def __init__(self, path: Path, what: str):
        self.path, self.what = path, what
        self._content = Owner.this_process().model_dump_json().encode()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        try:
            self._take()
        except OSError as error:
            raise UserError(f"{self.path} can't be made: {error.strerror}") from None
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with suppress(OSError):
            if self._is_mine():
                self.path.unlink()

    def _take(self) -> None:
        mine = temporary_path(self.path)
        try:
            mine.write_bytes(self._content)
            while not self._link(mine):
                self._remove_dead(now=mine.stat().st_mtime)  # by the clock of the file's server, as heartbeats are
        finally:
            mine.unlink(missing_ok=True)

    def _link(self, mine: Path) -> bool:
        try:
            os.link(mine, self.path)  # of several processes that do so at once, exactly one succeeds
        except FileExistsError:
            return False
        return True

    def check(self) -> None:
        """UserError if another process has it. Nothing is taken."""
        self._dead_owner(now=time.time())

    def _remove_dead(self, now: float) -> None:
        """Remove the lock of an owner that has ended. UserError: it lives."""
        if (content := self._dead_owner(now)) is None:
            return
        # one process alone, lest a slow one removes what a faster one has taken meanwhile; it may die of it, too
        owner = _owner_in(content)
        token = owner.token if owner else "unknown"
        with Lock(self.path.with_name(f"{self.path.name}-{token}"), self.what), suppress(FileNotFoundError):
            if read_bytes(self.path) == content:
                self.path.unlink()

    def _dead_owner(self, now: float) -> bytes | None:
        """What the file of an owner says that has ended; None where there is no file. UserError: it lives."""
        try:
            content, silent = read_bytes(self.path), now - self.path.stat().st_mtime
        except FileNotFoundError:
            if self.path.is_symlink():
                raise UserError(f"{self.path} is a link to nothing, where a lock should be; delete it") from None
            return None  # given back a moment ago
        owner = _owner_in(content)
        if not (silent > DEAD_AFTER if owner is None else owner.has_ended(silent)):
            raise UserError(
                f"{self.what} is in use by {owner or 'another process'}; wait for it or stop it (if you know that it "
                f"has ended: delete {self.path})"
            )
        return content

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            with suppress(OSError):  # of a file server that does not answer for a while
                if not self._is_mine():
                    self._warn_of_loss()
                    return
                os.utime(self.path)

    def _warn_of_loss(self) -> None:
        if not self._ended.is_set():  # else given back a moment ago
            warn(
                f"warning: {self.path} is no longer this process's, which showed no life for {DEAD_AFTER} s or whose "
                f"lock was deleted: another process may use {self.what} by now; stop one of them"
            )

    def _is_mine(self) -> bool:
        """OSError: the file can't be read at the moment."""
        try:
            return read_bytes(self.path) == self._content
        except FileNotFoundError:
            return False


@contextmanager
def shared(path: Path, what: str) -> Iterator[None]:
    """Held with others that share it, but not beside one that has it `alone`. UserError as of `Lock`."""
    with Lock(path.with_name(f"{path.name}-shared-{socket.gethostname()}-{os.getpid()}"), what):
        Lock(path, what).check()
        yield


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Held beside no other, `shared` or `alone`. UserError as of `Lock`."""
    with Lock(path, what):
        for other in path.parent.glob(f"{path.name}-shared-*"):
            Lock(other, what).check()
        yield


def _owner_in(content: bytes) -> Owner | None:
    """None: the file does not say."""
    try:
        return Owner.model_validate_json(content)
    except ValidationError:
        return None
