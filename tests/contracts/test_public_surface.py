"""The public surface: one loader in the package, the verbs in the modules of their names; light to import."""

from __future__ import annotations

import subprocess
import sys


def output_of(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_the_loader_and_the_verbs_are_where_they_are_said_to_be():
    program = (
        "import semgan\n"
        "from semgan.data.prepare.folder import prepare_folder\n"
        "from semgan.evaluate import evaluate\n"
        "from semgan.segment import segment\n"
        "from semgan.train import train\n"
        "print(all(map(callable, (semgan.load, prepare_folder, train, segment, evaluate))))"
    )
    assert output_of(program) == "True"


def test_importing_the_package_imports_nothing_heavy():
    program = "import sys, semgan; print([n for n in ('torch', 'numpy', 'monai', 'matplotlib') if n in sys.modules])"
    assert output_of(program) == "[]"


def test_an_unknown_name_is_an_attribute_error():
    assert output_of("import semgan; print(hasattr(semgan, 'segmnt'))") == "False"
