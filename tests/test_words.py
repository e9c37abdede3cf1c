"""Commands in messages can be typed as they stand."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semgan.data.folder import Dataset
from semgan.words import as_typed


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_shell_reads_the_path_that_was_meant(name):
    assert shlex.split(f"semgan data check {as_typed(Path(name))}", posix=True)[-1] == str(Path(name))


def test_plain_paths_stay_plain():
    assert as_typed("runs/lungs-64") == "runs/lungs-64"


def test_a_folder_with_a_blank_is_quoted_in_advice(tmp_path):
    folder = tmp_path / "my data"
    with pytest.raises(FileNotFoundError, match=f"-o '{folder}'`"):
        Dataset.open(folder)
