"""What `import semgan` offers: three verbs, one loader, and preparing; each stays a function whatever was imported."""

from __future__ import annotations

import subprocess
import sys


def output_of(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_the_verbs_of_the_package_stay_functions_after_their_modules_were_imported():
    program = (
        "import semgan, semgan.train, semgan.segment, semgan.evaluate\n"
        "print([name for name in semgan.__all__ for _ in range(2) if not callable(getattr(semgan, name))])"
    )
    assert output_of(program) == "[]"


def test_importing_the_package_imports_nothing_heavy():
    program = "import sys, semgan; print([n for n in ('torch', 'numpy', 'monai', 'matplotlib') if n in sys.modules])"
    assert output_of(program) == "[]"


def test_an_unknown_name_is_an_attribute_error():
    assert output_of("import semgan; print(hasattr(semgan, 'segmnt'))") == "False"
