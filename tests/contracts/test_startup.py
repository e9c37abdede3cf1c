"""What starts quickly imports little: which packages each way in may bring along, whatever the machine's speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import semgan

MODEL = Path(semgan.__file__).parent / "weights" / "phantoms-faces"
TERMINAL = {"typer", "click", "rich", "markdown_it", "mdurl", "pygments", "shellingham", "typing_extensions"}
TERMINAL |= {"annotated_doc", "annotated_types", "attr", "attrs"}  # rich brings attrs where it is installed
COERCION = {"pydantic", "pydantic_core", "typing_inspection"}  # what some versions of typer bring to read options


def imported_by(program: str) -> set[str]:
    """Third-party packages that a program imports, what the interpreter brings at its start left out."""
    program = (
        "import json, sys; first = set(sys.modules)\n"
        f"{program}\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - first}\n"
        "print(json.dumps(sorted(names - set(sys.stdlib_module_names))), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names = set(json.loads(done.stderr.strip().splitlines()[-1]))
    return {name for name in names if name != "semgan" and not name.startswith("_")}


def help_of(*words: str) -> str:
    return f"from semgan.cli import main\ntry: main({[*words, '--help']!r})\nexcept SystemExit: pass"


def test_importing_the_package_imports_no_other():
    assert imported_by("import semgan") == set()


def test_help_and_version_import_what_writes_to_a_terminal_only():
    assert imported_by(help_of()) <= TERMINAL
    for name in ("segment", "train"):
        assert imported_by(help_of(name)) <= TERMINAL | COERCION
    assert imported_by(help_of().replace("--help", "--version")) <= TERMINAL


def test_loading_a_small_model_imports_neither_other_frameworks_nor_plots():
    program = f"import semgan.segment, semgan.archive.run; semgan.load({str(MODEL)!r}, device='cpu')"
    heavy = {"monai", "matplotlib", "scipy", "pandas", "nibabel", "kornia", "sklearn", "jinja2", "requests", "pooch"}
    found = imported_by(program)
    assert "torch" in found and not found & heavy
