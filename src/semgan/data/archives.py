"""Downloaded archives, unpacked without trust: everything arrives inside one new folder, or nothing does."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from semgan.download import NoSpace, Progress, megabytes

MAX_RATIO = 200  # unpacked : packed; pictures and volumes stay below 20, masks below 100
RATIO_FREE = 100 * 10**6  # bytes that any archive may unpack to, however small it is
MAX_MEMBERS = 2_000_000
ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")  # of names; what a file is, its content says
JUNK = ("__macosx", ".ds_store", "thumbs.db", "desktop.ini")  # left out, and "._*": what the packer's desktop added
FOREIGN = {b"Rar!": "RAR", b"7z\xbc\xaf": "7z"}  # known by their first bytes, not unpacked here
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # the disk's fault, not the archive's


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name as stored, its unpacked bytes as announced, and how to read it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, *, keep_root: bool = False, progress: Progress | None = None) -> int:
    """Unpack a zip, tar or tar.gz into the new folder ``folder``; the number of files.

    A single folder at the archive's root is left out, or with ``keep_root`` only where it is named as ``folder`` is:
    its name may say what the files are. ``folder`` appears whole or not at all. Raises FileExistsError where it exists,
    ValueError for a damaged archive, one that needs a password, and one that would write outside the folder, make
    links or devices; NoSpace for one that would fill the disk.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; the archive {archive.name} is unpacked into a new folder only.")
    temporary = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    temporary.mkdir(parents=True)
    try:
        with _refusing(archive):
            count = _unpack_members(archive, temporary, progress)
        content = list(temporary.iterdir())
        if not content:
            raise ValueError(f"{archive.name} holds no files.")
        has_root = len(content) == 1 and content[0].is_dir()
        is_lifted = has_root and not (keep_root and content[0].name != folder.name)
        os.replace(content[0] if is_lifted else temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return count


# What libraries raise for damaged archives.
DAMAGES = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


@contextmanager
def _refusing(archive: Path) -> Iterator[None]:
    """Whatever a damaged archive makes the libraries raise, as one ValueError."""
    try:
        yield
    except DAMAGES as error:
        raise ValueError(f"{archive.name} is damaged, or of a kind that cannot be unpacked: {error}.") from error
    except OSError as error:  # gzip's own errors are OSErrors without a number
        if error.errno in DISK_ERRORS or isinstance(error, FileNotFoundError):
            raise
        reason = error.strerror or str(error)
        raise ValueError(f"{archive.name} is damaged, or holds what cannot be written here: {reason}.") from error


def _unpack_members(archive: Path, folder: Path, progress: Progress | None) -> int:
    budget = _Budget(archive, archive.stat().st_size, shutil.disk_usage(folder).free)
    count = 0
    with open(archive, "rb") as packed:
        for member in _members(packed, archive, budget):
            path = _safe_path(member.name, archive)
            if path is None:
                continue
            budget.spend(member.size)
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, _new_file(target, archive) as file:
                shutil.copyfileobj(source, file, 2**20)
                if file.tell() != member.size:
                    raise EOFError(f"{member.name} ends early")
            count += 1
            if progress:
                progress(megabytes(packed.tell()), megabytes(budget.packed), f"unpacking {archive.name}, MB")
    return count


def _new_file(target: Path, archive: Path) -> IO[bytes]:
    try:
        return open(target, "xb")
    except FileExistsError:
        raise ValueError(f"{archive.name} holds {target.name} twice, and was not unpacked.") from None


@dataclass
class _Budget:
    """What may still be unpacked: no bomb, no full disk."""

    archive: Path
    packed: int  # bytes of the archive
    free: int  # bytes on the disk
    spent: int = 0

    def spend(self, size: int) -> None:
        """Count ``size`` more bytes. Raises ValueError, NoSpace where that is too much."""
        self.spent += size
        if self.spent > RATIO_FREE and self.spent > MAX_RATIO * self.packed:
            raise ValueError(
                f"{self.archive.name} ({self.packed:,} bytes) would unpack to {self.spent:,} bytes or more, over "
                f"{MAX_RATIO} times its size: it looks like a decompression bomb and was not unpacked."
            )
        if self.spent > self.free:
            raise NoSpace(
                f"{self.archive.name} would unpack to {self.spent:,} bytes or more, and the disk has {self.free:,} "
                "free. Free some space, or choose a folder on another disk."
            )

    def announce(self, sizes: list[int]) -> None:
        """Refuse too much before anything is written, where the format lists its content first."""
        if len(sizes) > MAX_MEMBERS:
            raise ValueError(f"{self.archive.name} holds {len(sizes):,} files, over {MAX_MEMBERS:,}; not unpacked.")
        self.spend(sum(sizes))
        self.spent = 0


def _members(packed: IO[bytes], archive: Path, budget: _Budget) -> Iterator[Member]:
    """The regular files in an archive of any known kind, in its order. Raises ValueError for links and devices."""
    is_tar = _is_tar(packed)  # asked first: a tar that ends with a zip looks like that zip alone
    packed.seek(0)
    is_zip = not is_tar and zipfile.is_zipfile(packed)
    packed.seek(0)
    if is_zip:
        with zipfile.ZipFile(packed) as file:
            yield from _zip_members(file, archive, budget)
    elif is_tar:
        with tarfile.open(fileobj=packed, tarinfo=TarHeader) as file:
            yield from _tar_members(file, archive, budget)
    else:
        start = packed.read(64)
        if kind := FOREIGN.get(start[:4]):
            raise ValueError(f"{archive.name} is a {kind} archive; unpack it by hand (7-Zip, unar), give the folder.")
        is_page = start.lstrip().lower().startswith((b"<!doctype", b"<html"))
        page = " but a web page: the publisher asks for something first" if is_page else ""
        raise ValueError(f"{archive.name} is no zip and no tar archive{page}.")


def _zip_members(file: zipfile.ZipFile, archive: Path, budget: _Budget) -> Iterator[Member]:
    infos = [info for info in file.infolist() if not info.is_dir()]
    budget.announce([info.file_size for info in infos])
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise _special(archive, info.filename)
        if info.flag_bits & 1:
            raise ValueError(f"{archive.name} needs a password; unpack it by hand with the publisher's.")
        yield Member(info.orig_filename, info.file_size, lambda info=info: file.open(info))


MAX_HEADER = 2**20  # bytes
LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class LongHeader(tarfile.TarError):
    """Of a kind that tarfile does not take for the end of an archive."""


class TarHeader(tarfile.TarInfo):
    """A member's header; tarfile alone takes what comes before a cut, or before a damaged header, for a whole tar."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> tarfile.TarInfo:
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends without a tar's mark of the end: it may be cut off")
        try:
            found = super().frombuf(buf, encoding, errors)
        except tarfile.InvalidHeaderError as error:  # pyright: ignore[reportAttributeAccessIssue]  # typeshed lacks it
            raise tarfile.ReadError(f"a member's header is damaged ({error})") from None
        if found.type in LONG_HEADERS and found.size > MAX_HEADER:  # which tarfile reads into the memory
            raise LongHeader("a member's header is over 1 MB: it is damaged, or a bomb")
        return found


def _is_tar(packed: IO[bytes]) -> bool:
    """As `tarfile.is_tarfile`, which reads long headers without asking how long."""
    try:
        with tarfile.open(fileobj=packed, tarinfo=TarHeader):
            return True
    except LongHeader:
        raise
    except tarfile.TarError:
        return False


def _tar_members(file: tarfile.TarFile, archive: Path, budget: _Budget) -> Iterator[Member]:
    for number, info in enumerate(file):
        if number >= MAX_MEMBERS:
            raise ValueError(f"{archive.name} holds over {MAX_MEMBERS:,} files; not unpacked.")
        if info.isdir():
            continue
        if not info.isreg():
            raise _special(archive, info.name)
        yield Member(info.name, info.size, lambda info=info: _content(file, info))
    assert file.fileobj is not None, "it was opened for reading"
    while rest := file.fileobj.read(2**20):  # to the end, where gzip keeps its checksum
        budget.spend(len(rest))
        if rest.strip(b"\0"):
            raise tarfile.ReadError("it goes on after its mark of the end: it is damaged, or several tars in one file")


def _content(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = file.extractfile(info)
    assert content is not None, "a regular file has content"
    return content


def _special(archive: Path, name: str) -> ValueError:
    return ValueError(
        f"{archive.name} holds {name!r}, a link or device, which no data set needs; nothing was unpacked. "
        "Do not trust this file."
    )


def _safe_path(name: str, archive: Path) -> PurePosixPath | None:
    """A stored name as a path inside the folder; None for junk. Raises ValueError where it points anywhere else."""
    path = PurePosixPath(name.replace("\\", "/"))
    drive = len(path.parts) > 0 and path.parts[0].endswith(":") or name[1:2] == ":"
    if path.is_absolute() or ".." in path.parts or drive or not path.parts or "\0" in name:
        raise ValueError(
            f"{archive.name} holds the path {name!r}, which points outside its folder; nothing was unpacked. "
            "Do not trust this file."
        )
    return None if any(word.lower() in JUNK or word.startswith("._") for word in path.parts) else path
