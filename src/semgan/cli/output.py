"""What people and programs see: progress and messages on stderr, at most one JSON document on stdout."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from semgan.memory import was_full

if TYPE_CHECKING:
    from rich.console import Console

USER_ERRORS = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
INTERRUPTED = "Interrupted. The same command goes on where this one stopped, or begins anew where it cannot."
LINE_EVERY_S = 15.0  # between progress lines where stderr is a file

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
Progress = Callable[..., None]
Verb = TypeVar("Verb", bound=Callable[..., Any])


def examples(*commands: str) -> str:
    """The epilog of a ``--help`` page: one example per paragraph."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"  {command.replace('[', chr(92) + '[')}" for command in commands)])


def console() -> Console:
    """Where people read: stderr. Made anew on each call, because tests and ``--json`` swap the streams."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def is_heard() -> bool:
    """Whether this process talks to people: the only one, or the first of those that torchrun has started."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def say(message: str) -> None:
    """One plain line for people."""
    console().print(message, markup=False)


def plain(value: Any) -> Any:
    """Dataclasses, settings, paths, arrays and tensors as what JSON knows; nan and infinity as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    for method in ("model_dump", "tolist"):  # settings; arrays and tensors
        if hasattr(value, method):
            return plain(getattr(value, method)())
    return str(value)


def _user_message(error: Exception) -> str | None:
    """The message for a mistake that the person in front can mend; None where the fault is ours."""
    kind, number = type(error).__name__, getattr(error, "errno", None)
    file = getattr(error, "filename", None)
    # safetensors reports a full disk as its own kind of error, with the system's number in the text.
    if number == errno.ENOSPC or (kind == "SafetensorError" and "os error 28" in str(error)):
        where = f" while writing {file}" if file else ""
        return f"No space left on the disk{where}. Free some space, then run the same command again."
    if number in (errno.EROFS, errno.EDQUOT):
        return f"{file or 'The output folder'} cannot be written: {os.strerror(number)}. Choose another place with -o."
    if kind == "OutOfMemoryError":
        return "The device's memory is full. Take smaller batches: --set gan.batch=8 (encoder.batch, inversion.batch)."
    if was_full(error):
        return "This machine's memory is full. Take smaller batches or images, or end other programs."
    if not isinstance(error, USER_ERRORS):
        return None
    if isinstance(error, OSError) and file and number:
        return f"{file}: {os.strerror(number)}. Check the path and its permissions."
    return str(error)


def verb(function: Verb) -> Verb:
    """Run a verb so that user errors end with one message and code 2, an interruption with code 130.

    The verb's return value is its result; with ``--json`` it is printed as one document, and whatever else is printed
    on the way goes to stderr. A failing verb's document is ``{"error": message}``.
    """

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> None:
        as_json = bool(options.get("as_json"))
        code = 0
        _hear_the_log()
        try:
            with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
                result = function(*args, **options)
        except typer.Exit:
            raise
        except Exit as leave:
            result, code = leave.result, leave.code
        except KeyboardInterrupt:
            if is_heard():
                say(INTERRUPTED)
            result, code = {"error": "interrupted"}, 130
        except Exception as error:
            message = _user_message(error)
            if message is None:
                raise
            where = "" if is_heard() else f" in process {os.environ['RANK']}"
            console().print(f"Error{where}: {message}", markup=False, style="red")
            result, code = {"error": message}, 2
        if as_json and is_heard():
            print(json.dumps(plain(result), allow_nan=False))
        if code:
            raise typer.Exit(code)

    return run  # type: ignore[return-value]


class _Aloud(logging.Handler):
    """Log lines of the package, for people: on stderr, above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def _hear_the_log() -> None:
    log = logging.getLogger("semgan")
    if not any(isinstance(handler, _Aloud) for handler in log.handlers):
        log.addHandler(_Aloud())
        log.setLevel(logging.INFO if is_heard() else logging.ERROR)


class Exit(Exception):
    """Leave a verb with a code and still hand over its result."""

    def __init__(self, code: int, result: Any) -> None:
        super().__init__(code)
        self.code = code
        self.result = result


@contextlib.contextmanager
def progress_bars() -> Iterator[Progress]:
    """``report(done, total, what)``: one bar per ``what`` with the time left; lines where no terminal is."""
    screen = console()
    if not is_heard():
        yield lambda *_: None
    elif screen.is_terminal:
        with _bars(screen) as report:
            yield report
    else:
        yield _lines()


@contextlib.contextmanager
def _bars(screen: Console) -> Iterator[Progress]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=screen) as bars:
        tasks: dict[str, Any] = {}

        def report(done: int, total: int, what: str = "images") -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, completed=0)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def _lines() -> Progress:
    started: dict[str, tuple[float, int]] = {}
    last: dict[str, float] = {}

    def report(done: int, total: int, what: str = "images") -> None:
        now = time.monotonic()
        began, first = started.setdefault(what, (now, done))
        if done < total and now - last.setdefault(what, now) < LINE_EVERY_S:
            return
        if last.get(what) == math.inf:  # the last line of this task was already written
            return
        last[what] = now if done < total else math.inf
        speed = (done - first) / (now - began) if now > began else 0.0
        left = f", {duration((total - done) / speed)} left" if speed > 0 and done < total else ""
        say(f"{what}: {done}/{total} in {duration(now - began)}{left}")

    return report


def duration(seconds: float) -> str:
    """``75.2`` -> ``1 min 15 s``."""
    whole = int(round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def show(title: str, rows: Mapping[str, Any]) -> None:
    """A result for people: aligned names and values on stdout (on stderr with ``--json``)."""
    print(title)
    lines: list[tuple[str, str]] = []
    for name, value in rows.items():
        if isinstance(value, Mapping) and any(isinstance(item, Mapping) for item in value.values()):
            lines += [(f"{name} {key}", _short(item)) for key, item in value.items()]
        else:
            lines.append((str(name), _short(value)))
    width = max((len(name) for name, _ in lines), default=0)
    for name, text in lines:
        print(f"  {name:<{width}}  {text}".rstrip())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_short(item) for item in value)
    return str(value)


def existing(path: Path, what: str) -> Path:
    """The path itself, or FileNotFoundError that says what was looked for and names a likely neighbour."""
    if path.exists():
        return path
    from difflib import get_close_matches

    siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    close = get_close_matches(path.name, siblings, n=1)
    hint = f" Did you mean {path.parent / close[0]}?" if close else ""
    raise FileNotFoundError(f"{what} {path} does not exist.{hint} Check the path.")
