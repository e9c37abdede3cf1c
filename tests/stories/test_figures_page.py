"""What docs/figures.md tells people to type, typed: on the weights that come with the package."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typed_pages import run, run_programs, typed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder in which every command of the page has been run."""
    place = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run_programs("figures.md")
        typed("figures.md")
    return place


def test_every_command_of_the_page_draws_its_figures(folder):
    assert sorted(path.name for path in (folder / "story").glob("test_00000.*")) == [
        f"test_00000.{name}" for name in ("gif", "pdf", "png", "webp")
    ]
    for name in ("story_drawing/test_00000.webp", "ablation/ablation.png", "walk_z/video.webp", "walk_w/video.gif"):
        assert Image.open(folder / name).size[0] > 300
    assert (folder / "story" / "masks" / "step_0050" / "test_00000.png").is_file()


def test_the_shipped_weights_explain_their_own_kind_of_image_better_with_steps(folder):
    scores = json.loads((folder / "story" / "scores.json").read_text())
    rows = (folder / "story" / "explain.csv").read_text().splitlines()
    names = rows[0].split(",")
    losses = [float(row.split(",")[names.index("loss")]) for row in rows[1:52]]
    assert losses[50] < 0.7 * losses[0] and 0.1 < scores["0"] < 1


def test_walks_in_w_plus_are_smoother_than_in_z(folder):
    found = {name: json.loads((folder / name / "smoothness.json").read_text()) for name in ("walk_z", "walk_w")}
    assert 0 < found["walk_w"]["path_length"] < found["walk_z"]["path_length"]
    assert "not LPIPS" in found["walk_z"]["distance"] and found["walk_z"]["of"].startswith("great circles")


def test_bad_input_is_one_message_and_exit_2(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(folder)
    out = str(tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    picture = "faces/test/photo/images/test_00000.png"
    for words, named in (
        (("explain", "-m", "model", "-i", picture, "-o", out, "--format", "png,mp4"), "mp4"),
        (("explain", "-m", "model", "-i", picture, "-o", out, "--steps", "0,ten"), "0,ten"),
        (("explain", "-m", "model", "-i", picture, "-o", str(tmp_path / "mine")), "other files"),
        (("ablate", "-m", "model", "dataset", "-o", out), "--vary"),
        (("ablate", "-m", "model", "dataset", "-o", out, "--vary", "inversion.lambda_pxel=1"), "lambda_pixel"),
        (("interpolate", "-m", "model", "-o", out, "--seeds", "1"), "two codes"),
        (("interpolate", "-m", "model", "-o", out, picture), "-i"),
        (("interpolate", "-m", "model", "-o", out, "-i", picture, picture), "--space w+"),
    ):
        capsys.readouterr()
        assert run(*words) == 2
        message = capsys.readouterr().err
        (error,) = [line for line in message.splitlines() if line.startswith("Error: ")]
        assert named in error and "Traceback" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
