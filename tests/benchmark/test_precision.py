"""All cells of a folder are trained in one precision, whatever is faster where each of them is made."""

import pytest

from semgan import artifacts, config
from semgan.benchmark import precision as module
from semgan.benchmark.precision import changes_for, precision_of
from semgan.benchmark.run import benchmark


@pytest.fixture
def faster(monkeypatch):
    """``faster("float32")``: what this machine would say from now on."""
    return lambda found: monkeypatch.setattr(module, "faster_precision", lambda kind: found)


def finished_cell(out, precision):
    logs = out / "cells" / "lungs-9-unet-seed0" / "logs"
    logs.mkdir(parents=True)
    settings = config.override(config.Settings(), {"baseline": {"precision": precision}})
    (logs / "config.yaml").write_text(config.dump(settings))


def test_the_first_process_decides_for_the_folder(tmp_path, faster):
    faster("float32")
    assert precision_of(tmp_path, "cpu", keep=False) == "float32" and not list(tmp_path.iterdir())
    assert precision_of(tmp_path, "cpu", keep=True) == "float32"
    faster("bfloat16")  # another machine
    assert precision_of(tmp_path, "cpu", keep=True) == precision_of(tmp_path, "cpu", keep=False) == "float32"


@pytest.mark.parametrize(("cells", "found"), [("bfloat16", "bfloat16"), ("auto", "float32")])
def test_a_folder_of_before_goes_on_as_its_cells_began(tmp_path, faster, cells, found):
    faster("float32")
    finished_cell(tmp_path, cells)
    assert precision_of(tmp_path, "cpu", keep=True) == found
    assert artifacts.read_json(tmp_path / "precision.json") == {"precision": found}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"precision": "auto"}', '{"precision": 16}'])
def test_a_file_that_says_something_else_is_told(tmp_path, content):
    (tmp_path / "precision.json").write_text(content)
    with pytest.raises(ValueError, match="one of float32, bfloat16, float16; correct it"):
        precision_of(tmp_path, "cpu", keep=True)


def test_what_is_named_in_settings_stays():
    named = config.override(config.Settings(), {"gan": {"precision": "float16"}})
    assert changes_for(named, "float32") == {
        f"{name}.precision": "float32" for name in module.SECTIONS if name != "gan"
    }


@pytest.mark.usefixtures("without_reports")
def test_cells_are_trained_in_it(grids, tmp_path, faster):
    faster("bfloat16")

    def change(grid):
        grid["methods"] = ["unet", "mean-teacher"]
        for section in ("gan", "encoder", "baseline", "inversion"):
            grid["tasks"][0]["settings"].get(section, {}).pop("precision", None)
        grid["settings"] = {"mean-teacher": {"baseline": {"precision": "float32"}}}

    path, out = grids.write(change), tmp_path / "out"
    assert benchmark(path, out, only=["chests/4/unet"], device="cpu").count("done") == 1
    faster("float32")  # another machine goes on
    assert benchmark(path, out, device="cpu").count("done") == 2
    saved = {cell: config.load(out / "cells" / cell / "logs" / "config.yaml") for cell in cells_in(out)}
    assert [saved[f"chests-4-{name}-seed0"].baseline.precision for name in ("unet", "mean-teacher")] == [
        "bfloat16",
        "float32",
    ]
    assert saved["chests-4-mean-teacher-seed0"].inversion.precision == "bfloat16"


def cells_in(out):
    return [path.name for path in (out / "cells").iterdir() if path.is_dir()]
