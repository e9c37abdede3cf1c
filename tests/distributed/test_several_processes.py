"""Two processes train as one does: same results, equal processes, resuming with another number, no hanging."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from several_stages import BUILDERS, CONTROL, REAL_SCORES, UNSEEN, trained

from semgan import train as module
from semgan.artifacts import RunFolder, load_checkpoint, load_tensors, read_json, read_metrics
from semgan.objectives.augmentation import adapted_probability
from semgan.train import train

pytestmark = pytest.mark.timeout(900)  # of the slowest machines: half a minute of two cores
WORKER = Path(__file__).with_name("worker.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(rank: int, port: int) -> dict[str, str]:
    """What torchrun tells one of two processes."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    source = str(Path(module.__file__).parents[1])
    told |= {"PYTHONPATH": source, "OMP_NUM_THREADS": 1}
    return os.environ | {key: str(value) for key, value in told.items()}


@dataclass
class Pair:
    """What two processes left behind. codes: their exit codes; notes: what each saw."""

    out: Path
    codes: list[int]
    notes: list[dict]
    messages: str

    def states(self, folder: str, name: str) -> dict:
        return load_checkpoint(self.out / folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def exact(quick) -> list[str]:
    """The quick settings without the rounding of bfloat16."""
    return [*quick, *(f"{part}.precision=float32" for part in ("gan", "encoder", "baseline", "inversion"))]


@pytest.fixture(scope="module")
def alone(tiny_dataset, exact, tmp_path_factory):
    """``alone("run", ...)``: the same training in this process."""
    out = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_report", lambda run: [])
        yield lambda name, more=(), **options: train(
            tiny_dataset, out / name, recipe="debug", changes=[*exact, *more], device="cpu", **options
        )


@pytest.fixture(scope="module")
def pair(tiny_dataset, exact, tmp_path_factory, alone) -> Pair:
    """Two processes that do everything the tests ask for, one thing after the other."""
    out = tmp_path_factory.mktemp("pair")
    (out / "quick.json").write_text(json.dumps(exact))

    def stop(done, total, what):
        if what == "train gan" and done >= 12:
            raise MemoryError

    with pytest.raises(MemoryError):  # its checkpoint has 8 images
        alone(out / "one-to-two", UNSEEN, stage="gan", progress=stop)
    port = free_port()
    words = [sys.executable, str(WORKER), str(tiny_dataset), str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [subprocess.Popen(words, env=environment(rank, port), **pipes) for rank in range(2)]
    try:
        said = [process.communicate(timeout=500)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    files = [out / f"notes-{rank}.json" for rank in range(2)]
    assert all(file.is_file() for file in files), "\n".join(said)
    return Pair(out, [process.returncode for process in started], [read_json(file) for file in files], "\n".join(said))


def tensors(state, name=""):
    """Every floating tensor of a nested state by its path."""
    if isinstance(state, torch.Tensor):
        return {name: state} if state.is_floating_point() else {}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {key: value for part, inner in items for key, value in tensors(inner, f"{name}/{part}").items()}


def relative_gap(found, expected, before) -> float:
    """Distance of two states over the way that training went; moments of the optimisers count, their scale apart."""
    gap = way = 0.0
    start = tensors(before)
    for name, value in tensors(expected).items():
        moved = value - start.get(name, torch.zeros_like(value))
        scale = float(moved.norm()) or 1.0
        gap += float((found[name] - value).norm()) / scale * value.numel()
        way += value.numel()
    return gap / way


@pytest.mark.parametrize("name", BUILDERS)
def test_two_processes_take_the_steps_of_one(name, pair):
    stage, losses, before = trained(name)
    together = pair.notes[0]["stages"][name]["losses"]
    for found, expected in zip(together, losses, strict=True):
        assert found == pytest.approx(expected, rel=2e-4, abs=2e-6)
    found = tensors(pair.states("stages", name))
    assert relative_gap(found, stage.state(), before) < 0.05


def test_the_augmentation_listens_to_the_whole_batch(pair):
    expected = float(adapted_probability(torch.tensor(0.5), torch.tensor(REAL_SCORES), **CONTROL))
    assert [notes["probability"] for notes in pair.notes] == [expected, expected]


def test_processes_stay_equal_to_the_bit(pair):
    first, second = ({name: one["fingerprint"] for name, one in notes["stages"].items()} for notes in pair.notes)
    assert first == second and set(first) == set(BUILDERS)


def test_a_whole_training_ends_as_that_of_one_process(pair, alone):
    """Generator, encoder, pool, student and their answer; the first process alone has written."""
    result = alone("whole", method="semgan-student")
    one, two = RunFolder(Path(result.run)), RunFolder(pair.out / "whole")
    for network in ("generator", "encoder", "student"):
        found, expected = (load_tensors(run.model / f"{network}.safetensors")[0] for run in (two, one))
        assert relative_gap(tensors(found), expected, {}) < 0.02
    descriptions = [read_json(run.model / "config.json") for run in (one, two)]
    assert descriptions[0]["training"].keys() == descriptions[1]["training"].keys()
    pools = [np.load(run.path / "pool" / "images.npy").astype(int) for run in (one, two)]
    assert np.abs(pools[0] - pools[1]).mean() < 2
    rows = [[(row["stage"], row["images_seen"]) for row in read_metrics(run.metrics)] for run in (one, two)]
    assert rows[0] == rows[1]
    assert descriptions[0]["scores"] == pytest.approx(descriptions[1]["scores"], abs=0.05)  # of steps and shares tried


def test_the_steps_are_chosen_by_all_processes(pair, alone):
    runs = [RunFolder(Path(alone("chosen", method="semgan").run)), RunFolder(pair.out / "chosen")]
    ((one,), (two,)) = [[row for row in read_metrics(run.metrics) if row["stage"] == "inversion"] for run in runs]
    assert one == pytest.approx(two, abs=0.05)


def gan_state(run: Path) -> dict:
    saved = load_checkpoint(RunFolder(run).checkpoints / "gan.safetensors")
    assert saved["images_seen"] == 16
    return saved["state"]


def test_a_run_goes_on_with_another_number_of_processes(pair, alone):
    """Begun by one and ended by two; begun by two, interrupted in one of them, and ended by one."""
    whole = gan_state(Path(alone("gan", UNSEEN, stage="gan").run))
    assert all(notes["interrupted"] for notes in pair.notes)
    assert load_checkpoint(RunFolder(pair.out / "two-to-one").checkpoints / "gan.safetensors")["images_seen"] in (8, 12)
    assert alone(pair.out / "two-to-one", UNSEEN, stage="gan", resume=True).finished
    for name in ("one-to-two", "two-to-one"):
        assert relative_gap(tensors(gan_state(pair.out / name)), whole, {}) < 0.02


def test_a_batch_that_cannot_be_shared_is_refused_by_all_and_leaves_nothing_trained(pair):
    for notes in pair.notes:
        assert "gan.batch is 3, which 2 processes cannot share evenly" in notes["uneven"]
    assert not list((pair.out / "uneven" / "checkpoints").glob("*"))


def test_processes_with_different_perceptual_distances_train_no_encoder(pair):
    for notes in pair.notes:
        assert "The processes of this training differ in the perceptual distance" in notes["differing"]
    assert not (RunFolder(pair.out / "differing").checkpoints / "encoder.safetensors").exists()


def test_a_killed_process_ends_the_other_within_a_minute_and_the_checkpoint_stays(pair):
    assert pair.codes == [2, -signal.SIGKILL], pair.messages
    lost = read_json(pair.out / "lost.json")
    assert "Process 0 of 2 has lost another one" in lost["message"] and "same command goes on" in lost["message"]
    assert lost["seconds"] < 60
    assert load_checkpoint(RunFolder(pair.out / "killed").checkpoints / "gan.safetensors")["images_seen"] == 8
