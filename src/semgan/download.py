"""Files from the net: resumed where the connection broke, checked against a published checksum, whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from requests import Response

RETRIES = 5  # of one download, each only after the last one brought something
PAUSE_S = 1.0  # before the first retry; doubled for each further one
CHUNK = 2**16

Progress = Callable[[int, int, str], None]  # done, total, what


class DownloadFailed(ValueError):
    """A file could not be had; the message says why."""


class NoSpace(DownloadFailed):
    """The disk is too small for it."""


class _BrokenDownload(DownloadFailed):
    """Failed, but what came so far is good."""


class _BrokenOff(OSError):
    """The connection closed before the announced length."""


def megabytes(count: int) -> int:
    """Bytes as whole MB, rounded up: what progress bars of files count in."""
    return -(-count // 10**6)


def is_whole(path: Path, checksum: str | None) -> bool:
    """Whether the file is there with the published content (any content where ``checksum`` is None)."""
    import pooch

    return path.is_file() and (checksum is None or pooch.hashes.hash_matches(str(path), checksum))


def retrieve(
    url: str,
    target: Path,
    *,
    checksum: str | None = None,
    size: int | None = None,
    timeout_s: float = 60.0,
    keep_part: bool = False,
    progress: Progress | None = None,
) -> Path:
    """The file ``target`` with the content of ``url``; downloaded unless it is there and whole.

    It appears under its name only when complete and verified. checksum: ``sha256:...`` or ``md5:...``, None where none
    is published. size: published bytes. timeout_s: longest silence of the server. ``keep_part`` leaves what came of a
    broken download in ``target.part``, where the next call goes on. ``progress`` gets MB. Raises DownloadFailed,
    NoSpace, and OSError where the disk refuses.
    """
    if is_whole(target, checksum):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with _exclusive(part) as file:
        if is_whole(target, checksum):  # another process has just brought it
            part.unlink()
            return target
        transfer = _Transfer(url, file, part.with_name(part.name + ".tag"), target.name, size, timeout_s, progress)
        keep = False
        if checksum is None and not transfer.tag_file.is_file():
            file.truncate(0)  # of a version that nobody knows, and nothing would tell a mixture
        try:
            transfer.run()
            file.flush()
            os.fsync(file.fileno())
            if not is_whole(part, checksum):
                raise DownloadFailed(
                    f"{url} did not come with the published content ({checksum}) and was thrown away: the download "
                    "was cut off, the publisher changed the file, or a proxy answered in its place."
                )
            os.replace(part, target)
        except (_BrokenDownload, NoSpace, KeyboardInterrupt, OSError):
            keep = keep_part and file.seek(0, os.SEEK_END) > 0
            raise
        finally:
            if not keep:
                part.unlink(missing_ok=True)
                transfer.tag_file.unlink(missing_ok=True)
    return target


@contextlib.contextmanager
def _exclusive(part: Path) -> Iterator[BinaryIO]:
    """The part file, open for reading and appending, for one process at a time."""
    while True:
        with open(part, "ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat()):
                yield file
                return
        # The process that had it before has renamed or removed it meanwhile: lock the new one.


@dataclass
class _Transfer:
    """One file on its way: appends to ``file`` until everything is there."""

    url: str
    file: BinaryIO
    tag_file: Path  # the server's name for the version that the part belongs to
    name: str
    size: int | None
    timeout_s: float
    progress: Progress | None

    def run(self) -> None:
        """Receive the whole file, after breaks from where it broke. Raises DownloadFailed."""
        import requests

        furthest, retries = self._length(), 0
        while True:
            try:
                self._receive()
                return
            except (requests.RequestException, _BrokenOff) as error:
                reason = self._reason(error)
                status = getattr(error, "response", None)
                if self._length() <= furthest or retries == RETRIES or status is not None:
                    raise _BrokenDownload(f"Could not download {self.url}: {reason}.") from error
            furthest = self._length()
            time.sleep(PAUSE_S * 2**retries)
            retries += 1

    def _length(self) -> int:
        return self.file.seek(0, os.SEEK_END)

    def _receive(self) -> None:
        """One request for what is missing; from the start where the server has another version or knows no ranges."""
        import requests

        have = self._length()
        headers = {"Accept-Encoding": "identity"}
        known = self.tag_file.read_text(encoding="latin-1") if have and self.tag_file.is_file() else ""
        if have:
            headers["Range"] = f"bytes={have}-"
        if known:
            headers["If-Range"] = known
        with requests.get(self.url, headers=headers, stream=True, timeout=self.timeout_s) as answer:
            asked_range = re.match(r"bytes (?:\*|(\d+)-\d+)/(\d+|\*)", answer.headers.get("Content-Range", ""))
            if have and answer.status_code == 416 and asked_range and asked_range[2] == str(have):
                return  # nothing is missing
            is_other = bool(known) and _version(answer) not in ("", known)  # where a server does not heed If-Range
            fits = answer.status_code == 206 and asked_range and asked_range[1] == str(have) and not is_other
            if have and not fits and answer.status_code in (206, 416):
                self.file.truncate(0)
                return self._receive()
            answer.raise_for_status()
            if not fits:
                self.file.truncate(0)
                have = 0
                self._remember(answer)
            self._append(answer, have)

    def _remember(self, answer: Response) -> None:
        """Note the version that this download begins with, so that no other one is appended to it."""
        if tag := _version(answer):
            self.tag_file.write_text(tag, encoding="latin-1")
        else:
            self.tag_file.unlink(missing_ok=True)

    def _append(self, answer: Response, have: int) -> None:
        announced = answer.headers.get("Content-Length", "")
        total = have + int(announced) if announced.isdigit() else None
        if self.size is not None and total is not None and total != self.size:
            self.file.truncate(0)
            raise DownloadFailed(
                f"{self.url} announces {total:,} bytes where the published file has {self.size:,}: the publisher "
                "changed the file, or a proxy answered in its place. Nothing was kept."
            )
        total = total if total is not None else self.size
        ensure_space(Path(self.file.name).parent, (total or 0) - have, self.name)
        for chunk in answer.iter_content(CHUNK):
            self.file.write(chunk)
            have += len(chunk)
            if self.progress and total:
                self.progress(megabytes(have), megabytes(total), f"{self.name}, MB")
        if total is not None and have != total:  # urllib3 before 2 does not tell
            raise _BrokenOff(f"{have:,} of {total:,} bytes came")

    def _reason(self, error: Exception) -> str:
        from requests import exceptions as failures

        if isinstance(error, failures.HTTPError) and error.response is not None:
            return f"the server answered {error.response.status_code} {error.response.reason}"
        if isinstance(error, failures.Timeout):
            return f"no answer within {self.timeout_s:g} s"
        if isinstance(error, (failures.ChunkedEncodingError, _BrokenOff)) or "Read timed out" in str(error):
            return f"the connection broke after {self._length():,} bytes"
        if isinstance(error, failures.ConnectionError):
            return f"no connection to {urlsplit(self.url).hostname} (no network, or a proxy or firewall in between)"
        return str(error)


def _version(answer: Response) -> str:
    """What tells a file's version in an If-Range: its ETag, unless a weak one, else its date, else nothing."""
    tag = answer.headers.get("ETag", "")
    return answer.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag


def ensure_space(folder: Path, needed: int, what: str) -> None:
    """Raises NoSpace where ``folder``'s disk has not the ``needed`` bytes for ``what``."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpace(
            f"{what} needs {megabytes(needed):,} MB more, and the disk of {folder} has {free // 10**6:,} MB free. "
            "Free some space, or choose a folder on another disk."
        )
