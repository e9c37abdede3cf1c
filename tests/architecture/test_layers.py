"""The house rules that a machine can hold: layers, sizes, no pickles, no unread settings, no machine's paths."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from semgan import config

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "semgan"
FILES = sorted(SOURCE.rglob("*.py"))

# Lower numbers may not import higher ones. A top-level module that is not listed is a verb (4).
LEVELS = {
    "types": 1, "settings": 1, "config": 1, "artifacts": 1, "seeding": 1, "ranks": 1, "model_card": 1, "download": 1,
    "words": 1,
    "data": 2, "models": 2, "objectives": 2, "metrics": 2, "runtime": 2,
    "job": 2.5,
    "stages": 3, "baselines": 3,
    "student_answer": 3.1, "student": 3.2,
    "methods": 3.5,
    "cli": 5, "__main__": 6, "__init__": 5.5,
}  # fmt: skip
VERB = 4
STRANGERS = ({"data", "models", "objectives", "metrics", "runtime"}, {"stages", "baselines"})
LONGEST_FUNCTION, LONGEST_FILE = 60, 400


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def part(path: Path) -> str:
    """``src/semgan/data/readers.py`` -> ``data``; ``src/semgan/train.py`` -> ``train``."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, lazily or not, for type checking or not."""
    package = ("semgan", *path.relative_to(SOURCE).parent.parts)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{name}.{alias.name}" for alias in node.names)


def wrong_imports(importer: str, imported: str) -> bool:
    if importer == imported:
        return False
    if any({importer, imported} <= strangers for strangers in STRANGERS):
        return True
    return LEVELS.get(imported, VERB) > LEVELS.get(importer, VERB)


def test_imports_go_down_only_and_parts_do_not_know_one_another():
    parts = {part(path) for path in FILES}
    wrong = []
    for path in FILES:
        for name in imported_modules(path):
            words = name.split(".")
            if words[0] == "semgan" and len(words) > 1 and words[1] in parts and wrong_imports(part(path), words[1]):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_the_layer_rule_notices_what_it_forbids():
    assert wrong_imports("models", "stages") and wrong_imports("data", "models") and wrong_imports("train", "cli")
    assert wrong_imports("artifacts", "train") and wrong_imports("stages", "baselines")
    assert not wrong_imports("stages", "models") and not wrong_imports("train", "recipes")


def test_reports_read_artifacts_and_never_a_model():
    allowed = ("artifacts", "config", "types", "report", "data", "metrics", "masks", "results", "words")
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FILES
        if part(path) == "report"
        for name in imported_modules(path)
        if name.startswith("semgan.") and name.split(".")[1] not in allowed
    ]
    assert not wrong


def test_nothing_imports_what_needs_torchvision():
    forbidden = {"torchvision", "timm", "lpips", "segmentation_models_pytorch", "torch_fidelity"}
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in FILES
        for name in imported_modules(path)
        if name.split(".")[0] in forbidden
    ]
    assert not wrong


def unpickling_calls(module: ast.Module) -> Iterator[ast.Call]:
    """Calls of a pickle's load, of torch.load without weights_only=True, of any load with allow_pickle=True."""
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        options = {key.arg: getattr(key.value, "value", None) for key in node.keywords}
        name = ast.unparse(node.func)
        unpickles = name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load")
        unpickles |= name == "torch.load" and options.get("weights_only") is not True
        if unpickles or options.get("allow_pickle") is True:
            yield node


def test_nothing_is_unpickled():
    wrong = [f"{path.relative_to(ROOT)}:{call.lineno}" for path in FILES for call in unpickling_calls(tree(path))]
    assert not wrong


def test_the_pickle_rule_notices_what_it_forbids():
    calls = ["pickle.loads(b)", "torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)"]
    assert all(list(unpickling_calls(ast.parse(call))) for call in calls)
    assert not list(unpickling_calls(ast.parse("torch.load(p, weights_only=True); np.load(p)")))


def test_functions_and_files_are_short_or_say_why():
    """A function's docstring does not count; ``# long: reason`` in it, or at a line's start in a file, excuses it."""
    long = []
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > LONGEST_FILE and not any(line.startswith("# long:") for line in lines):
            long.append(f"{path.relative_to(ROOT)}: {len(lines)} lines")
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = lines[node.lineno - 1 : node.end_lineno]
                count = len(body) - len((ast.get_docstring(node) or "").splitlines())
                if count > LONGEST_FUNCTION and not any("# long:" in line for line in body):
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {count} lines")
    assert not long


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from setting_names(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_setting_is_read_by_some_code():
    read = {
        node.attr
        for path in FILES
        if path.name != "settings.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    unread = [name for name in setting_names(config.Settings) if name.rsplit(".", 1)[-1] not in read]
    assert not unread, "No code reads these settings: make one read them, or delete them."


def tracked_files() -> list[Path]:
    """Files that are in the repository or about to be."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a git checkout")
    paths = (ROOT / name for name in found.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file() and ".ci" not in path.parts]


def test_no_tracked_file_names_a_path_of_one_machine():
    # Put together here, so that this file does not match itself.
    pattern = re.compile("|".join(["/(?:work|root)" + "/", "/tmp" + "/[a-z]", "/home" + "/[a-z]"]).encode())
    wrong = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content[:8192] and (hit := pattern.search(content)):
            wrong.append(f"{path.relative_to(ROOT)}: {hit.group().decode()}")
    assert not wrong


def test_no_tracked_file_is_over_10_mb():
    assert not [str(path) for path in tracked_files() if path.stat().st_size > 10 * 2**20]
