"""Get a published data set: download, verify and unpack its archives into a folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from semgan.data import archives
from semgan.data.sets import Archive, DataSet
from semgan.download import DownloadFailed, NoSpace, Progress, ensure_space, retrieve
from semgan.result_folder import ResultFolder
from semgan.words import as_typed

MARKER = "fetched.json"  # in the folder: which data set it holds, from where, under which terms
DOWNLOADS = ".downloads"  # archives on their way, in the partial folder only


@dataclass(frozen=True)
class Fetched:
    """A data set on the disk. ``files``: unpacked now, 0 where it was there already; ``steps``: left to do by hand."""

    name: str
    path: Path
    files: int
    steps: tuple[str, ...]
    next: str


def fetch(item: DataSet, out: Path, *, progress: Progress | None = None) -> Fetched:
    """Download the archives of ``item`` and unpack them into the folder ``out``; one that holds them already is kept.

    After an interruption the same call goes on where it stopped (``out.partial`` keeps what came). Whether the licence
    was accepted is the caller's to ask. Raises ValueError for a gated set, a failed download and an archive that is not
    to be trusted, FileExistsError where ``out`` has other content.
    """
    if not item.archives:
        raise ValueError(f"{item.name} is handed out on {item.page} only; it cannot be fetched.")
    folder = _result_folder(item, out)
    count = 0
    if not folder.is_finished():
        folder.begin()
        with _alone(folder.partial):
            count = _fill(item, folder, progress)
    return Fetched(item.name, out, count, item.steps, next_command(item, out))


def _fill(item: DataSet, folder: ResultFolder, progress: Progress | None) -> int:
    """Bring what the partial folder lacks, and give it its final name; the number of files unpacked."""
    count = 0
    try:
        ensure_space(folder.partial, _missing_bytes(item, folder.partial), item.name)
        for archive in item.archives:
            if not (folder.partial / archive.folder).exists():
                count += _bring(archive, folder.partial, progress)
        shutil.rmtree(folder.partial / DOWNLOADS, ignore_errors=True)
        folder.finish()
    except NoSpace:
        raise
    except DownloadFailed as error:
        raise DownloadFailed(
            f"{error} Try the same command again: it keeps what is good. If it still fails, see {item.page}: the "
            f"publisher may have moved {item.name}."
        ) from error
    finally:
        _discard_if_empty(folder)
    return count


def next_command(item: DataSet, out: Path) -> str:
    """What to type once the folder ``out`` holds the set."""
    return f"semgan data prepare {item.task} {as_typed(out)} -o DATASET"


def is_fetched(item: DataSet, out: Path) -> bool:
    """Whether ``out`` holds the set already. Raises FileExistsError where it holds another one."""
    return _result_folder(item, out).is_finished()


@contextlib.contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """Raises FileExistsError where another process is filling the folder."""
    with open(partial / MARKER, "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(
                f"Another process is filling {partial}; wait for it, or give another folder."
            ) from None
        yield


def _result_folder(item: DataSet, out: Path) -> ResultFolder:
    request = {
        "data_set": item.name,
        "title": item.title,
        "page": item.page,
        "licence": item.licence,
        "citation": item.citation,
        "archives": [{"url": archive.url, "checksum": archive.checksum} for archive in item.archives],
    }
    folder = ResultFolder(out, MARKER, request)
    if (out / MARKER).is_file() and not folder.is_finished():
        raise FileExistsError(f"{out} holds another data set, or this one by an older list; give a new folder with -o.")
    return folder


def _missing_bytes(item: DataSet, partial: Path) -> int:
    """Published bytes of the archives not yet unpacked, less what has come of them; 0 for unknown sizes."""
    missing = [archive for archive in item.archives if not (partial / archive.folder).exists()]
    came = sum(file.stat().st_size for file in (partial / DOWNLOADS).glob("*"))
    return max(0, sum(archive.size or 0 for archive in missing) - came)


def _bring(archive: Archive, partial: Path, progress: Progress | None) -> int:
    """One archive, downloaded, unpacked into the partial folder, and removed; the number of files."""
    packed = partial / DOWNLOADS / archive.folder
    retrieve(archive.url, packed, checksum=archive.checksum, size=archive.size, keep_part=True, progress=progress)
    try:
        count = archives.unpack(packed, partial / archive.folder, progress=progress)
    except NoSpace:
        raise
    except ValueError as error:
        packed.unlink()
        raise ValueError(f"{archive.url}: {error}") from error
    packed.unlink()
    return count


def _discard_if_empty(folder: ResultFolder) -> None:
    """Take the partial folder away where nothing in it is worth going on from."""
    downloads = folder.partial / DOWNLOADS
    if downloads.is_dir() and not any(downloads.iterdir()):
        downloads.rmdir()
    if folder.partial.is_dir() and [path.name for path in folder.partial.iterdir()] == [MARKER]:
        folder.discard()
