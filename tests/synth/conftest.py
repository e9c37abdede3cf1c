from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import write_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny_model") / "model")
