"""What `data prepare folder` says of folders that do not fit: once for each cause, with the cure."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plain_folders import mask, picture, save, write_pairs

from semgan.data.prepare.folder import prepare_folder


def refusal(root, **options) -> str:
    with pytest.raises(ValueError) as error:
        prepare_folder(root / "images", root / "labels", root / "out", workers=1, **options)
    return str(error.value)


def test_only_values_without_a_class_come_with_masks_that_hold_them(tmp_path):
    write_pairs(tmp_path, 3, values=(0, 1, 2, 255))
    assert "add --ignore 255" in refusal(tmp_path)
    message = refusal(tmp_path, classes=["background", "one", "two"])
    assert "Examples: 255 in" in message and "0 in" not in message.partition("Examples")[2]
    (tmp_path / "classes.json").write_text('["background", ')
    message = refusal(tmp_path, classes=tmp_path / "classes.json")
    assert "not valid JSON" in message and "Examples" not in message


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("case_{}_mask", "but for '_mask' at the end"),
        ("seg_{}", "but for 'seg' in place of 'case' at the beginning"),
        ("case_{}", None),
    ],
)
def test_masks_named_otherwise_throughout_are_told_once(name, told, tmp_path):
    for number in range(12):
        save(tmp_path / "images", f"case_{number:02d}", picture(number))
        if number < 11:
            save(tmp_path / "labels", name.format(f"{number:02d}"), mask(number))
    message = refusal(tmp_path)
    assert "case_11.png has no mask" in message
    if told is None:
        assert "; 1 problem(s)" in message
    else:
        assert f"11 masks are named as their images {told}" in message and "; 3 problem(s)" in message


@pytest.mark.parametrize("absent", ["images", "labels"])
def test_a_wrong_folder_is_told_without_a_line_for_every_file_of_the_other(absent, tmp_path):
    write_pairs(tmp_path, 20)
    (tmp_path / absent).rename(tmp_path / "elsewhere")
    message = refusal(tmp_path)
    assert f"--{absent}: " in message and "is not a folder" in message and "; 2 problem(s)" in message


def test_a_manifest_of_other_names_is_told_how_stems_are_made(tmp_path):
    write_pairs(tmp_path, 3)
    (tmp_path / "manifest.csv").write_text("stem,set\nnobody,train\n")
    message = refusal(tmp_path, manifest=tmp_path / "manifest.csv")
    assert "such as 'nobody'" in message and "(sub-folders joined by '__')" in message


def test_masks_in_colour_become_indices_by_the_program_of_the_page(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    expected = mask(0, values=(0, 1, 2, 255))
    colours = np.zeros((256, 3), np.uint8)
    colours[[1, 2, 255]] = (128, 64, 128), (220, 20, 60), (1, 2, 3)
    save(tmp_path / "colour_masks", "case_0", colours[expected])
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "docs/own-data.md", "exec"), {})
    assert np.array_equal(np.asarray(Image.open("masks/case_0.png")), expected)
