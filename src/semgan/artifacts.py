"""Every file format semgan writes: one writer and one reader each. Nothing is pickled; nothing is left half-written.

Run folder:   config.yaml, environment.json, log.txt, metrics.jsonl, samples/, checkpoints/, model/, report.html
Model folder: config.json, one ``<name>.safetensors`` per network, README.md (the card)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semgan import config
from semgan.words import as_typed

if TYPE_CHECKING:
    from torch import Tensor

MODEL_FORMAT = 1
LOCK = ".lock"
_SALT = f"{secrets.randbelow(10**9):09d}"  # in containers and on other machines processes have the same numbers


def temporary_beside(path: Path, ending: str = "") -> Path:
    """The name under which a writer builds ``path`` before it renames it; ending: where a library goes by it."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}{_SALT}{ending}")


def old_beside(path: Path) -> Path:
    """The name under which a folder is kept while another takes its place."""
    return path.with_name(f".{path.name}.old-{os.getpid()}{_SALT}")


def is_temporary(path: Path) -> bool:
    """Whether a file or folder is one that a writer left behind when it was killed."""
    return path.name.startswith(".") and re.search(r"\.(tmp|old)-\d+(\.nii\.gz|\.pdf)?$", path.name) is not None


def write_text_atomic(path: Path, text: str) -> None:
    """Write a text file under a temporary name, flush it to disk, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked_folder(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """One at a time among processes: a lock on a folder, which leaves no file behind and goes when the process ends.

    Where folders cannot be locked (NFS wants a handle that may write), a hidden file in it is, and stays. Without
    ``wait``, raises BlockingIOError where another process holds it.
    """
    try:
        handle = _locked(folder, os.O_RDONLY, wait)
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.EINVAL, errno.EISDIR):
            raise
        handle = _locked(folder / LOCK, os.O_RDWR | os.O_CREAT, wait)
    try:
        yield
    finally:
        os.close(handle)


def _locked(path: Path, flags: int, wait: bool) -> int:
    handle = os.open(path, flags, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle


def write_json(path: Path, value: Any) -> None:
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises ValueError naming the file where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); it may be truncated. Write it again.") from None


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file, written atomically."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    # A strided view or channels_last weight is not contiguous; safetensors wants its own memory.
    own = {name: tensor.detach().cpu().clone(memory_format=_contiguous()) for name, tensor in tensors.items()}
    try:
        save_file(own, temporary, metadata=metadata)
        temporary.chmod(_ordinary_mode())  # safetensors makes files that only their owner can read
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _ordinary_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _contiguous() -> Any:
    import torch

    return torch.contiguous_format


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises ValueError naming the file where it is damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); it may be truncated.") from None


# ---------------------------------------------------------------- checkpoints


def _escaped(key: Any) -> str:
    """A key as part of a tensor's name: slashes divide levels."""
    return str(key).replace("~", "~0").replace("/", "~1")


def _flatten(state: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    import torch

    if isinstance(state, torch.Tensor):
        tensors[name] = state
        return {"__tensor__": name}
    if isinstance(state, Mapping):
        return {
            "__items__": [[key, _flatten(value, f"{name}/{_escaped(key)}", tensors)] for key, value in state.items()]
        }
    if isinstance(state, list | tuple):
        return {"__list__": [_flatten(value, f"{name}/{i}", tensors) for i, value in enumerate(state)]}
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise TypeError(f"A checkpoint holds tensors, numbers, strings and None; '{name}' is {type(state).__name__}.")


def _unflatten(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, dict):
        if "__tensor__" in tree:
            return tensors[tree["__tensor__"]]
        if "__list__" in tree:
            return [_unflatten(value, tensors) for value in tree["__list__"]]
        return {key: _unflatten(value, tensors) for key, value in tree["__items__"]}
    return tree


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Nested dictionaries of tensors, numbers and strings in one safetensors file, written atomically."""
    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, "", tensors)
    save_tensors(path, tensors, {"tree": json.dumps(tree)})


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote. Raises ValueError for other or damaged files."""
    tensors, notes = load_tensors(path)
    if "tree" not in notes:
        raise ValueError(f"{path} holds weights, not a checkpoint of training; name a file in checkpoints/.")
    return _unflatten(json.loads(notes["tree"]), tensors)


# ---------------------------------------------------------------- run folder


def git_commit(where: Path | None = None) -> str:
    """Commit of the source tree, with ``+`` where it has changes; "unknown" outside a checkout."""
    folder = where or Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10
        )
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--", "."], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    if commit.returncode != 0:
        return "unknown"
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = ("semgan", "torch", "monai", "numpy", "pytorch-optimizer", "safetensors", "pillow")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


class RunFolder:
    """Where one training run keeps everything."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.log = self.path / "log.txt"
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.report = self.path / "report.html"

    def create(self, settings: config.Settings, dataset: str) -> bool:
        """Start the folder, or go on with it. Returns True where a run with these settings already exists.

        Raises FileExistsError for a folder with other content, ValueError for a run with other settings or data.
        """
        exists = self.check(settings)
        self._check_same_dataset(dataset)
        if not exists:
            # The settings come first: a folder that a kill leaves half-made is then known as a run and completed.
            write_text_atomic(self.config, config.dump(settings))
        self._complete(dataset, settings.seed)
        return exists

    def check(self, settings: config.Settings) -> bool:
        """Whether a run with these settings exists; raises as `create` and changes nothing."""
        if self.config.is_file():
            self._check_same_settings(config.dump(settings))
            return True
        if self.path.exists() and not all(is_temporary(path) or path.name == LOCK for path in self.path.iterdir()):
            raise FileExistsError(
                f"{self.path} exists and is not a semgan run; give another folder with -o, or empty this one."
            )
        return False

    def _complete(self, dataset: str, seed: int) -> None:
        """Make what a run has from its start, and remove what a kill left half-written."""
        for folder in (self.samples, self.checkpoints):
            folder.mkdir(exist_ok=True)
        for path in [*self.path.glob(".*"), *self.samples.glob(".*"), *self.checkpoints.glob(".*")]:
            if is_temporary(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not self.environment.is_file():
            self.record_environment(dataset, seed)

    def _check_same_dataset(self, dataset: str) -> None:
        if self.environment.is_file():
            earlier = read_json(self.environment).get("dataset", dataset)
            if earlier != dataset:
                raise ValueError(
                    f"{self.path} was trained on the dataset '{earlier}'; this one is '{dataset}' (name and contents). "
                    "Give another folder with -o, or the same dataset to go on."
                )

    def _check_same_settings(self, text: str) -> None:
        # Fields added by later versions take their defaults, so compare resolved values rather than text.
        old, new = config.load(self.config).model_dump(mode="json"), config.yaml.safe_load(text)
        different = sorted(set(_differences(old, new)))
        if different:
            raise ValueError(
                f"{self.path} is a run with other settings ({', '.join(different[:4])}); "
                "give another folder with -o, or the same settings to go on."
            )

    def record_environment(self, dataset: str, seed: int) -> None:
        record = {
            "command": " ".join(["semgan", *sys.argv[1:]]),
            "dataset": dataset,
            "seed": seed,
            "commit": git_commit(),
            "versions": versions(),
            "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        write_json(self.environment, record)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")

    def truncate_metrics(self, stage: str, images_seen: int) -> None:
        """Drop lines of a stage after ``images_seen``: a resumed run writes them again."""
        if not self.metrics.is_file():
            return
        kept = [
            line for line in read_metrics(self.metrics) if line["stage"] != stage or line["images_seen"] <= images_seen
        ]
        write_text_atomic(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; a last line cut off by a kill is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in old.keys() | new.keys():
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b and prefix + key not in ("device", "threads"):
            found.append(prefix + key)
    return found


# ---------------------------------------------------------------- model folder


def save_model(
    folder: Path, description: Mapping[str, Any], weights: Mapping[str, Mapping[str, Tensor]], card: str
) -> None:
    """Write a model folder beside its final name, then swap it in whole."""
    temporary = temporary_beside(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name, state in weights.items():
            save_tensors(temporary / f"{name}.safetensors", state)
        write_json(temporary / "config.json", {"format": MODEL_FORMAT, **description, "versions": versions()})
        write_text_atomic(temporary / "README.md", card)
        old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(temporary, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def find_model(path: Path) -> Path:
    """The model folder for RUN or RUN/model. Raises FileNotFoundError saying what is missing."""
    path = Path(path)
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            return folder
    if (path / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{path} is a run without a model yet; let `semgan train ... -o {as_typed(path)}` finish a stage."
        )
    raise FileNotFoundError(f"No model at {path}: expected a run folder or a model folder with config.json.")


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """config.json and every network's tensors of a model folder."""
    folder = find_model(folder)
    description = read_json(folder / "config.json")
    if description.get("format") != MODEL_FORMAT:
        raise ValueError(
            f"{folder}/config.json has format {description.get('format')!r}; this version reads {MODEL_FORMAT}. "
            "Install the version of semgan that wrote it, or train again."
        )
    weights = {path.stem: load_tensors(path)[0] for path in sorted(folder.glob("*.safetensors"))}
    return description, weights
