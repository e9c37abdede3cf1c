"""The command line's contract: exit codes, one JSON document, one message per error, examples, a quick --help."""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from semgan.cli import app, main
from semgan.cli.output import AsJson, Exit, duration, plain, progress_bars, verb
from semgan.types import MOST_SEED

VERBS = (
    ("data", "prepare", "folder"),
    ("data", "fetch"),
    ("data", "unpack"),
    ("data", "phantoms"),
    ("data", "prepare", "chest-xray"),
    ("data", "prepare", "skin"),
    ("data", "prepare", "liver"),
    ("data", "prepare", "faces"),
    ("data", "check"),
    ("data", "split"),
    ("train",),
    ("benchmark",),
    ("segment",),
    ("evaluate",),
    ("sample",),
    ("explain",),
    ("ablate",),
    ("interpolate",),
    ("synth",),
    ("posterior",),
    ("calibrate",),
    ("robustness",),
    ("suggest",),
    ("trust", "fit"),
    ("trust", "judge"),
    ("report",),
    ("info",),
    ("demo",),
)
HEAVY = ("torch", "monai", "matplotlib", "numpy", "PIL", "kornia", "pydantic")


def run(*arguments: str) -> int:
    """The exit code of ``semgan ARGUMENTS``, run in this process."""
    with pytest.raises(SystemExit) as leave:
        main(list(arguments))
    return int(leave.value.code or 0)


def fake_command(body) -> typer.Typer:
    """A one-verb command line around ``body``."""
    fake = typer.Typer(pretty_exceptions_enable=False)

    @fake.command()
    @verb
    def command(as_json: AsJson = False):
        return body()

    return fake


def run_fake(body, *arguments: str) -> int:
    with pytest.raises(SystemExit) as leave:
        fake_command(body)(list(arguments))
    return int(leave.value.code or 0)


def raising(error: BaseException):
    def body():
        raise error

    return body


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_help_of_every_verb_ends_with_examples_of_that_verb(words, capsys):
    assert run(*words, "--help") == 0
    _, _, examples = capsys.readouterr().out.partition("Examples")
    assert f"semgan {' '.join(words)}" in examples


def test_every_verb_of_the_command_line_is_in_this_test():
    root = typer.main.get_command(app)
    found = set()

    def walk(command, words):
        children = getattr(command, "commands", None)
        if children is None:
            found.add(words)
        for name, child in (children or {}).items():
            walk(child, (*words, name))

    walk(root, ())
    assert found == set(VERBS)


@pytest.mark.parametrize("words", [(), *VERBS], ids=" ".join)
def test_examples_are_typed_as_the_command_line_takes_them(words):
    """Options and values are parsed, nothing is run; words in brackets after three spaces are remarks."""
    root = typer.main.get_command(app)
    command = root
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    _, *found = (command.epilog or "").split("\n\n")
    assert found
    for example in found:
        typed = shlex.split(example.replace("\\[", "[").split("   (")[0])
        rest, leaf = typed[typed.index("semgan") + 1 :], root
        while hasattr(leaf, "commands"):
            leaf = leaf.commands[rest.pop(0)]  # type: ignore[attr-defined]
        leaf.make_context("semgan", rest)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_seeds_of_more_than_64_bits_are_refused_before_any_work(words):
    """By the command line; of `train`, where they are settings, by `semgan.config`."""
    leaf = typer.main.get_command(app)
    for word in words:
        leaf = leaf.commands[word]  # type: ignore[attr-defined]
    seeds = [option for option in leaf.params if {"--seed", "--split-seed"} & set(option.opts)]
    assert words == ("train",) or all(option.max == MOST_SEED for option in seeds)  # type: ignore[attr-defined]


def test_seeds_below_0_are_wrong_usage(capsys):
    for words in (
        ("train", "d", "-o", "r", "--recipe", "debug", "--seed", "-1"),
        ("train", "d", "-o", "r", "--recipe", "debug", "--split-seed", "-1"),
        ("data", "split", "d", "--labels", "3", "--split-seed", "-1"),
    ):
        assert run(*words) == 2
        assert "greater than or" in capsys.readouterr().err


def test_every_option_has_a_help_text():
    root = typer.main.get_command(app)
    for words in VERBS:
        command = root
        for word in words:
            command = command.commands[word]  # type: ignore[attr-defined]
        silent = [item.name for item in command.params if not getattr(item, "help", None)]
        assert not silent, f"{words}: {silent}"


def test_help_imports_nothing_heavy_and_answers_in_half_a_second():
    program = (
        "import sys, time; start = time.process_time()\n"
        "from semgan.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.argv[1:] if name in sys.modules], time.process_time() - start, file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):  # the best of three: other programs may keep this machine busy
        done = subprocess.run([sys.executable, "-c", program, *HEAVY], capture_output=True, text=True, check=True)
        heavy, _, used = done.stderr.strip().splitlines()[-1].rpartition(" ")
        assert heavy == "[]"
        seconds.append(float(used))
    assert min(seconds) < 0.5


def test_python_dash_m_runs_the_same_program():
    done = subprocess.run([sys.executable, "-m", "semgan", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("semgan ")


def test_version_is_the_installed_one(capsys):
    from importlib.metadata import version

    assert run("--version") == 0
    assert capsys.readouterr().out == f"semgan {version('semgan')}\n"


# ---------------------------------------------------------------- exit codes and messages


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mask.png holds 7; expected 0 to 3. Give --mapping."),
        FileNotFoundError("Folder x does not exist. Check the path."),
        FileExistsError("Folder x has other content. Choose another -o."),
        PermissionError(errno.EACCES, "Permission denied", "x/file"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_users_error_is_one_message_on_stderr_and_exit_2(error, capsys):
    assert run_fake(raising(error)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ") and err.count("\n") == 1
    assert "Traceback" not in err
    assert (error.filename if isinstance(error, PermissionError) else str(error)) in err


def test_a_long_message_stays_on_one_line(capsys):
    run_fake(raising(ValueError(60 * "word [red] ")))
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.count("[red]") == 60


def test_a_full_disk_is_a_users_error_that_says_so(capsys):
    assert run_fake(raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/model"))) == 2
    assert "No space left" in capsys.readouterr().err


def test_a_full_disk_noticed_by_safetensors_is_a_users_error(capsys):
    from safetensors import SafetensorError

    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert run_fake(raising(SafetensorError(text))) == 2
    assert "No space left" in capsys.readouterr().err


def test_a_full_device_memory_is_a_users_error_that_names_the_settings(capsys):
    import torch

    assert run_fake(raising(torch.OutOfMemoryError("CUDA out of memory"))) == 2
    assert "gan.batch" in capsys.readouterr().err


def test_a_full_memory_is_a_users_error_however_it_is_said(capsys):
    import torch

    for fault in (raising(MemoryError()), lambda: torch.empty(2**60, dtype=torch.uint8)):
        assert run_fake(fault) == 2
        assert "memory is full" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        fake_command(lambda: 1 / 0)([])


def test_a_fault_of_ours_shows_a_traceback_and_exits_with_1():
    program = (
        "import typer; from semgan.cli.output import verb\n"
        "app = typer.Typer(pretty_exceptions_enable=False)\n"
        "app.command()(verb(lambda: 1 / 0)); app()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_log_lines_of_the_package_are_seen_once(capsys):
    def body():
        logging.getLogger("semgan.segment").warning("2 files are no images")

    run_fake(body)
    run_fake(body)
    assert capsys.readouterr().err.splitlines() == 2 * ["2 files are no images"]


def test_an_interruption_exits_with_130(capsys):
    assert run_fake(raising(KeyboardInterrupt())) == 130
    assert "Interrupted" in capsys.readouterr().err


def test_wrong_usage_exits_with_2(capsys):
    assert run("train") == 2
    assert run("trian") == 2
    assert run("evaluate", "a", "b", "--metric", "dcie") == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "words",
    [
        ("data", "check", "nowhere"),
        ("data", "split", "nowhere", "--labels", "3"),
        ("train", "nowhere", "-o", "run", "--recipe", "debug"),
        ("benchmark", "nowhere", "-o", "out"),
        ("segment", "-m", "nowhere", "-i", "nowhere", "-o", "out"),
        ("evaluate", "nowhere", "nowhere", "--metric", "dice"),
        ("sample", "-m", "nowhere", "-o", "out"),
        ("explain", "-m", "nowhere", "-i", "nowhere", "-o", "out"),
        ("ablate", "-m", "nowhere", "nowhere", "-o", "out"),
        ("interpolate", "-m", "nowhere", "-o", "out"),
        ("suggest", "-m", "nowhere", "nowhere", "-o", "out"),
        ("trust", "fit", "-m", "nowhere", "nowhere"),
        ("trust", "judge", "nowhere", "--labels", "nowhere", "--metric", "dice", "-o", "out"),
        ("info", "nowhere"),
    ],
    ids=" ".join,
)
def test_a_missing_path_is_named_and_nothing_is_written(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*words, "--json") == 2
    out, err = capsys.readouterr()
    assert "nowhere" in err and err.count("\n") == 1
    assert "nowhere" in json.loads(out)["error"]
    assert not list(tmp_path.iterdir())


def test_a_misspelt_path_gets_a_suggestion(tmp_path, capsys):
    (tmp_path / "dataset").mkdir()
    assert run("info", str(tmp_path / "datset")) == 2
    assert f"Did you mean {tmp_path / 'dataset'}?" in capsys.readouterr().err


# ---------------------------------------------------------------- json


def test_json_is_one_document_alone_on_stdout(capsys):
    def chatty():
        print("a library says hello")
        return {"score": 0.5}

    assert run_fake(chatty, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"score": 0.5} and out.count("\n") == 1
    assert "hello" in err


def test_without_json_no_document_is_printed(capsys):
    assert run_fake(lambda: {"score": 0.5}) == 0
    assert capsys.readouterr().out == ""


def test_json_of_a_failing_verb_holds_the_message(capsys):
    assert run_fake(raising(ValueError("bad mask")), "--json") == 2
    assert json.loads(capsys.readouterr().out) == {"error": "bad mask"}


def test_a_verb_may_leave_with_a_code_and_a_result(capsys):
    assert run_fake(raising(Exit(2, {"errors": 3})), "--json") == 2
    assert json.loads(capsys.readouterr().out) == {"errors": 3}


def test_results_become_plain_json_values():
    import numpy as np
    import torch

    from semgan.config import Preprocessing
    from semgan.types import LabelSpace

    value = {
        "path": Path("a/b"),
        "array": np.array([1, 2]),
        "number": np.float32(0.5),
        "tensor": torch.tensor([[1.0]]),
        "nan": float("nan"),
        "labels": LabelSpace(("background", "lung")),
        "settings": Preprocessing(size_px=32),  # type: ignore[call-arg]
        3: (True, None),
    }
    found = json.loads(json.dumps(plain(value), allow_nan=False))
    assert found["path"] == "a/b" and found["array"] == [1, 2] and found["number"] == 0.5
    assert found["tensor"] == [[1.0]] and found["nan"] is None and found["3"] == [True, None]
    assert found["labels"] == {"names": ["background", "lung"]} and found["settings"]["size_px"] == 32


def test_info_without_a_path_tells_versions_and_devices(capsys):
    assert run("info", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"] and "cpu" in found["devices"]
    assert "debug" in found["recipes"] and "semgan" in found["methods"]


def test_weights_that_lie_beside_the_settings_of_their_run_are_a_model(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"method": "semgan", "settings": {}}')
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    assert run("info", str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "model"


def test_settings_of_another_program_are_no_model(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"hidden_size": 768}')
    assert run("info", str(tmp_path)) == 2
    assert "names no method" in " ".join(capsys.readouterr().err.split())


# ---------------------------------------------------------------- progress


def test_progress_in_a_file_is_a_few_lines_with_the_time_left(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress_bars() as report:
        for done in range(101):
            report(done, 100, "images")
            clock[0] += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert 5 <= len(lines) <= 8
    assert lines[0].startswith("images: 15/100 in 15 s") and lines[0].endswith("left")
    assert lines[-1].startswith("images: 100/100")


def test_durations_are_readable():
    assert [duration(seconds) for seconds in (3.2, 75.2, 7300)] == ["3 s", "1 min 15 s", "2 h 1 min"]
