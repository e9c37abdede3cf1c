"""Ctrl-C during training: exit code 130, a checkpoint, and the same command goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semgan.cli import main
from semgan.data.phantoms import write_phantom_dataset
from semgan.data.prepare.folder import prepare_folder


@pytest.fixture
def dataset(tmp_path) -> Path:
    plain = write_phantom_dataset(
        tmp_path / "plain", "chests", size_px=32, labelled=4, validation=0, unlabelled=4, test=0, seed=2
    )
    prepare_folder(plain / "images", plain / "labels", tmp_path / "dataset", unlabelled=plain / "unlabelled")
    return tmp_path / "dataset"


def wait_for_lines(file: Path, process: subprocess.Popen, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if file.is_file() and file.read_text().count("\n"):
            return
        time.sleep(0.1)
    pytest.fail(f"training wrote no metrics: exit code {process.poll()}")


@pytest.mark.timeout(600)
def test_interrupted_training_exits_with_130_and_the_same_command_goes_on(dataset, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", str(dataset), "-o", str(run), "--recipe", "debug", "--set", "gan.images=1000000", "--json"]
    program = [sys.executable, "-m", "semgan", *words]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_lines(run / "metrics.jsonl", process, 300)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=250)
    assert process.returncode == 130, err
    assert json.loads(out) == {"error": "interrupted"}
    assert "Traceback" not in err and "same command goes on" in err
    assert (run / "checkpoints" / "gan.safetensors").is_file()

    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    with pytest.raises(SystemExit) as leave:
        main([*words, "--max-minutes", "0.02"])
    assert not leave.value.code
    result = json.loads(capsys.readouterr().out)
    assert not result["finished"] and result["images_seen"] >= first["images_seen"]


def test_a_training_stopped_by_max_minutes_says_that_the_same_command_goes_on(dataset, tmp_path, capsys):
    words = ["train", str(dataset), "-o", str(tmp_path / "run"), "--recipe", "debug", "--set", "gan.images=1000000"]
    with pytest.raises(SystemExit) as leave:
        main([*words, "--max-minutes", "0.02"])
    assert not leave.value.code
    assert "the same command goes on" in capsys.readouterr().out


def test_resume_insists_on_an_earlier_run(dataset, tmp_path, capsys):
    with pytest.raises(SystemExit) as leave:
        main(["train", str(dataset), "-o", str(tmp_path / "run"), "--recipe", "debug", "--resume"])
    assert leave.value.code == 2
    assert "--resume" in capsys.readouterr().err and not (tmp_path / "run").exists()
