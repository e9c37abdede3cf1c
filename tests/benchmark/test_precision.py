"""All cells of a folder are trained in one precision, whatever is faster where each of them is made."""

import pytest

from semgan import artifacts, config
from semgan.benchmark import precision as module
from semgan.benchmark.precision import precision_of
from semgan.benchmark.run import benchmark


@pytest.fixture
def faster(monkeypatch):
    """``faster("float32")``: what this machine would say from now on."""
    return lambda found: monkeypatch.setattr(module, "faster_precision", lambda kind: found)


def finished_cell(out, name, **precisions):
    logs = out / "cells" / name / "logs"
    logs.mkdir(parents=True)
    changes = {section: {"precision": value} for section, value in precisions.items()}
    settings = config.override(config.Settings(), {"method": name.split("-")[2], **changes})
    (logs / "config.yaml").write_text(config.dump(settings))


def test_the_first_process_decides_for_the_folder(tmp_path, faster):
    faster("float32")
    assert precision_of(tmp_path, "cpu", keep=False) == "float32" and not list(tmp_path.iterdir())
    assert precision_of(tmp_path, "cpu", keep=True) == "float32"
    faster("bfloat16")  # another machine
    assert precision_of(tmp_path, "cpu", keep=True) == precision_of(tmp_path, "cpu", keep=False) == "float32"


def test_a_folder_of_before_goes_on_as_most_of_its_cells_began(tmp_path, faster):
    faster("float32")
    finished_cell(tmp_path, "lungs-9-advssl-seed0", baseline="float32")  # named by its grid
    finished_cell(tmp_path, "lungs-9-gct-seed0", baseline="auto")
    for name in ("lungs-9-semgan-seed0", "lungs-9-unet-seed0"):  # a section that is not trained does not count
        finished_cell(tmp_path, name, gan="bfloat16", encoder="bfloat16", baseline="bfloat16", inversion="float32")
    (tmp_path / "cells" / "lungs-9-zzz-seed0" / "logs").mkdir(parents=True)
    (tmp_path / "cells" / "lungs-9-zzz-seed0" / "logs" / "config.yaml").write_text("gan: [")  # damaged
    assert precision_of(tmp_path, "cpu", keep=True) == "bfloat16"
    assert artifacts.read_json(tmp_path / "precision.json") == {"precision": "bfloat16"}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"precision": "auto"}', '{"precision": 16}'])
def test_a_file_that_says_something_else_is_told(tmp_path, content):
    (tmp_path / "precision.json").write_text(content)
    with pytest.raises(ValueError, match="one of float32, bfloat16, float16; correct it"):
        precision_of(tmp_path, "cpu", keep=True)


@pytest.mark.usefixtures("without_reports")
def test_cells_are_trained_in_it(grids, tmp_path, faster, monkeypatch):
    faster("bfloat16")
    monkeypatch.setattr("semgan.train.faster_precision", lambda kind: pytest.fail("the folder decides"))

    def change(grid):
        grid["methods"] = ["unet", "mean-teacher"]
        for section in config.PRECISION_SECTIONS:
            grid["tasks"][0]["settings"].setdefault(section, {})["precision"] = "auto"
        grid["settings"] = {"mean-teacher": {"baseline": {"precision": "float32"}}}

    path, out = grids.write(change), tmp_path / "out"
    first = benchmark(path, out, only=["chests/4/unet"], device="cpu")
    assert first.count("done") == 1 and not first.unfair
    faster("float32")  # another machine goes on
    assert benchmark(path, out, only=["chests/4/unet"], dry_run=True, device="cpu").count("done") == 1
    both = benchmark(path, out, device="cpu")
    assert both.count("done") == 2
    unet, teacher = (
        config.load(out / "cells" / f"chests-4-{name}-seed0" / "logs" / "config.yaml")
        for name in ("unet", "mean-teacher")
    )
    assert {getattr(unet, section).precision for section in config.PRECISION_SECTIONS} == {"bfloat16"}
    assert (teacher.baseline.precision, teacher.inversion.precision) == ("float32", "bfloat16")
    assert any("differ in precision" in each for each in both.unfair)  # what the grid names is told


@pytest.mark.usefixtures("without_reports")
def test_a_cell_that_was_begun_goes_on_in_its_own(grids, tmp_path, faster):
    def change(grid):
        grid["methods"] = ["unet"]
        for section in config.PRECISION_SECTIONS:
            grid["tasks"][0]["settings"].setdefault(section, {})["precision"] = "auto"

    path, out = grids.write(change), tmp_path / "out"
    faster("float32")
    assert benchmark(path, out, device="cpu", max_minutes=0.001).count("done") == 0
    assert list(out.glob("cells/*/run/config.yaml"))
    artifacts.write_json(out / "precision.json", {"precision": "bfloat16"})
    assert benchmark(path, out, device="cpu").count("done") == 1
    run = config.load(out / "cells" / "chests-4-unet-seed0" / "logs" / "config.yaml")
    assert run.baseline.precision == "float32"


def test_a_folder_with_its_precision_alone_may_be_given(grids, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    artifacts.write_json(out / "precision.json", {"precision": "float32"})
    result = benchmark(grids.write(), out, only=["chests/4/unet"], device="cpu", max_minutes=0)
    assert result.count("open") == 1
