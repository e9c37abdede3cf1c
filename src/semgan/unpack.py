"""Archives that people downloaded by hand -> folders that `semgan data prepare` reads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semgan.artifacts import locked_folder, read_json, write_json
from semgan.data import archives
from semgan.data.archives import ENDINGS
from semgan.download import NoSpace

Progress = Callable[[int, int, str], Any]
RECORD = "unpacked.json"  # in the folder: which archive each folder came from


@dataclass(frozen=True)
class Unpacked:
    """What became of some archives, by name. ``inner``: folder -> archives in it, which are left packed.

    done:   files that each archive gave; already: unpacked by an earlier call; failed: the reason
    """

    path: Path
    done: dict[str, int] = field(default_factory=dict)
    already: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    inner: dict[str, int] = field(default_factory=dict)


def unpack(packed: Sequence[Path | str], out: Path | str, *, progress: Progress | None = None) -> Unpacked:
    """Unpack each archive into a folder of its own name in ``out``, which appears whole or not at all.

    An archive that cannot be trusted or read is told in ``failed``, and the others go on. The same call again leaves
    what is done as it is. Raises FileNotFoundError for archives that are missing, ValueError for two of one name and
    for what is no archive, all before anything is written.
    """
    out = Path(out)
    names = _folder_names([Path(archive) for archive in packed])
    record = _read_record(out)
    done, already, failed, inner = {}, [], {}, {}
    for name, archive in names.items():
        identity = {"archive": archive.name, "bytes": archive.stat().st_size}
        if (out / name).exists():
            if record.get(name) == identity:
                already.append(archive.name)
            else:
                failed[archive.name] = f"{out / name} holds other files; move it away, or choose another -o."
            continue
        try:
            with _recorded(out, name, identity):
                done[archive.name] = archives.unpack(archive, out / name, keep_root=True, progress=progress)
        except NoSpace:
            raise
        except ValueError as error:
            failed[archive.name] = str(error)
            continue
        if count := sum(_ending(file) is not None for file in (out / name).rglob("*")):
            inner[name] = count
    with contextlib.suppress(OSError):
        out.rmdir()  # where nothing could be unpacked
    return Unpacked(out, done, tuple(already), failed, inner)


@contextlib.contextmanager
def _recorded(out: Path, name: str, identity: dict[str, Any]) -> Iterator[None]:
    """Write first where the folder will come from: what is there after a crash is whole, as folders appear whole."""
    _note(out, name, identity)
    try:
        yield
    except BaseException:
        _note(out, name, None)
        raise


def _note(out: Path, name: str, identity: dict[str, Any] | None) -> None:
    """Enter a folder into the record as it is by now, or with None take it out: others may unpack into OUT as well."""
    out.mkdir(parents=True, exist_ok=True)
    with locked_folder(out):
        record = _read_record(out)
        record.pop(name, None)
        record |= {} if identity is None else {name: identity}
        write_json(out / RECORD, record) if record else (out / RECORD).unlink(missing_ok=True)


def _folder_names(packed: Sequence[Path]) -> dict[str, Path]:
    """Folder -> archive."""
    names: dict[str, Path] = {}
    for archive in packed:
        if archive.is_dir():
            raise ValueError(f"{archive} is a folder; `semgan data prepare` takes it as it is.")
        if not archive.is_file():
            raise FileNotFoundError(f"Archive {archive} does not exist; check the path.")
        name = archive.name.removesuffix(_ending(archive) or "")
        name = f"{name}.unpacked" if name == archive.name else name
        if names.setdefault(name, archive).resolve() != archive.resolve():
            raise ValueError(
                f"{archive} and {names[name]} would both be unpacked into the folder {name}; unpack them one by one "
                "with different -o."
            )
    return names


def _ending(file: Path) -> str | None:
    """How an archive's name ends, in the name's own spelling; None for other files."""
    found = next((ending for ending in ENDINGS if file.name.lower().endswith(ending)), None)
    return found and file.name[-len(found) :]


def _read_record(out: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        content = read_json(out / RECORD)
        return content if isinstance(content, dict) else {}
    return {}
