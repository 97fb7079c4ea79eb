"""One public S3 bucket, through obstore: listing and reading without an account. What a server says is data."""

import random
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import S3Store

if TYPE_CHECKING:  # there for type checkers alone
    from obstore import GetOptions, ObjectMeta

REGION = "eu-central-1"
CHUNK_BYTES = 1 << 20
LONGEST_WAIT = 60  # seconds between two tries

_MD5 = re.compile(r"[0-9a-f]{32}")

Result = TypeVar("Result")


class UnavailableError(Exception):
    """The bucket is not there or refuses access: another try is of no use, another source may be."""


class ObjectError(Exception):
    """One object can't be had: another try is of no use."""


class TransientError(Exception):
    """Something that another try may mend: a busy server, a broken connection, an answer that does not fit."""


@dataclass(frozen=True)
class Object:
    """A file in the bucket as the listing tells it."""

    key: str
    size: int  # bytes
    etag: str | None = None  # without quotes

    @property
    def md5(self) -> str | None:
        """The ETag where it is the MD5 of the content: an upload in one part."""
        return self.etag if self.etag and _MD5.fullmatch(self.etag) else None


class Patience:
    """How often and how long the same thing is tried again; `stop` ends all waiting."""

    def __init__(self, tries: int, backoff: float, stop: threading.Event | None = None):
        self.tries, self.backoff = tries, backoff  # the second in seconds, doubled with each try
        self.stop = stop or threading.Event()

    def __call__(self, action: Callable[[], Result]) -> Result:
        """The action's result. TransientError: it failed `tries` times; other errors at once."""
        for attempt in range(1, self.tries + 1):
            try:
                return action()
            except TransientError as error:
                if attempt == self.tries or self.stop.is_set():
                    raise TransientError(f"{error} ({attempt} tries)") from None
                # not all transfers at the same moment: half of the wait is drawn by lot
                wait = min(self.backoff * 2 ** (attempt - 1), LONGEST_WAIT)
                self.stop.wait(wait * random.uniform(0.5, 1))
        raise AssertionError("tries is positive")


class Bucket:
    """A public bucket; `endpoint`: another server than Amazon's, addressed as ENDPOINT/BUCKET."""

    def __init__(self, name: str, endpoint: str | None, read_timeout: float, patience: Patience):
        self.name, self.patience = name, patience
        self._store = S3Store(
            name,
            endpoint=endpoint or f"https://{name}.s3.{REGION}.amazonaws.com",
            virtual_hosted_style_request=endpoint is None,
            region=REGION,
            skip_signature=True,
            # a stalled transfer ends by the read timeout; a slow one may take as long as it needs
            client_options={
                "allow_http": endpoint is not None,
                "read_timeout": timedelta(seconds=read_timeout),
                "connect_timeout": timedelta(seconds=30),
                "timeout": timedelta(days=1),
            },
            retry_config={"max_retries": 0},  # `patience` tries again, and can be stopped
        )

    def __str__(self) -> str:
        return f"s3://{self.name}"

    def level(self, prefix: str) -> tuple[list[str], list[Object]]:
        """Folders and files right below `prefix`, which was listed itself ('' is the root), by their whole keys."""
        return self.patience(lambda: self._level(prefix))

    def _level(self, prefix: str) -> tuple[list[str], list[Object]]:
        listed = self._told(lambda: obstore.list_with_delimiter(self._store, prefix or None))
        folders, objects = sorted(listed["common_prefixes"]), self._objects(listed["objects"], prefix)
        self._check_any(folders or objects, prefix)
        return folders, objects

    def _check_any(self, found: Any, prefix: str) -> None:
        """What was listed is not empty: such an answer is a proxy's page, or a cut one."""
        if not found:
            raise TransientError(f"the listing of {self}/{prefix} is empty")

    def objects(self, prefix: str) -> list[Object]:
        """All files below `prefix`, which was listed itself, however many pages they take."""
        found: dict[str, Object] = {}
        # a page may break off, or claim to be the last one: what comes after the last key is asked for until it is
        # nothing
        while self.patience(lambda: self._list_on(prefix, found)):
            pass
        return list(found.values())

    def _list_on(self, prefix: str, found: dict[str, Object]) -> int:
        """Add what comes after the last key found; how many there were."""
        before = len(found)
        pages = self._told(lambda: obstore.list(self._store, prefix, offset=max(found, default=None), chunk_size=1000))
        while (page := self._told(lambda: next(pages, None))) is not None:
            found.update((entry.key, entry) for entry in self._objects(page, prefix))
        self._check_any(found, prefix)
        return len(found) - before

    def _objects(self, entries: "Sequence[ObjectMeta]", prefix: str) -> list[Object]:
        below = f"{prefix}/" if prefix else ""
        objects = [Object(entry["path"], entry["size"], (entry["e_tag"] or "").strip('"')) for entry in entries]
        if strange := [entry.key for entry in objects if not entry.key.startswith(below)]:
            raise TransientError(f"the listing of {self}/{prefix} names {strange[0]!r}")
        return objects

    def read(self, wanted: Object) -> Iterator[bytes]:
        """The content of a listed file in pieces; the file must still be the listed one."""
        options: GetOptions | None = {"if_match": f'"{wanted.etag}"'} if wanted.etag else None
        answer = self._told(lambda: obstore.get(self._store, wanted.key, options=options))
        told = answer.meta
        if wanted.etag and (told["e_tag"] or "").strip('"') != wanted.etag:
            raise TransientError(f"the server sends ETag {told['e_tag']}, its listing has {wanted.etag}")
        pieces = answer.stream(min_chunk_size=CHUNK_BYTES)
        while (piece := self._told(lambda: next(pieces, None))) is not None:
            yield piece

    def _told(self, ask: Callable[[], Result]) -> Result:
        """What obstore answers, its errors as those of this module."""
        try:
            return ask()
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise UnavailableError(f"access denied ({_first_line(error)})") from None
        except PreconditionError:
            raise ObjectError("the server's file has changed since it was listed; run again") from None
        except FileNotFoundError:
            raise ObjectError("the server no longer has it") from None
        except BaseError as error:
            # of listings obstore does not tell apart what went wrong
            if "NoSuchBucket" in str(error):
                raise UnavailableError("there is no such bucket") from None
            if "status code: 403" in str(error):
                raise UnavailableError(f"access denied ({_first_line(error)})") from None
            raise TransientError(_first_line(error)) from None


def _first_line(error: Exception) -> str:
    line = str(error).strip().splitlines()[0]
    return re.sub(r"^.*? - (?=HTTP|Server)|: <.*", "", line).rstrip(": ")[:200]
