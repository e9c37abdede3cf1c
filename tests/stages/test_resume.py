"""Every stage under the clerk: a run that was interrupted ends with the weights of one that was not, to the bit."""

import os
import signal

import pytest
import torch
from tiny_stages import BATCH, SETTINGS, tiny_encoder, tiny_gan, tiny_unet, with_changes

from semgan.artifacts import RunFolder, load_checkpoint
from semgan.runtime.loop import TrainingDiverged, checkpoint_path, run_stage

STAGES = {"gan": tiny_gan, "encoder": tiny_encoder, "baseline": tiny_unet}


def settings_of(name, precision):
    return with_changes(**{name: {"precision": precision}})


def train(stage, folder):
    run = RunFolder(folder)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    return run_stage(stage, run, SETTINGS.run)


def at(stage, images_seen, act):
    """The stage, with something to do before the step at ``images_seen``."""
    step = stage.step

    def watched(seen):
        if seen == images_seen:
            act()
        return step(seen)

    stage.step = watched
    return stage


def tensors(state, name=""):
    """Every tensor of a nested state by its path."""
    if isinstance(state, torch.Tensor):
        return {name: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {key: value for part, inner in items for key, value in tensors(inner, f"{name}/{part}").items()}


def die():
    raise MemoryError("as if killed")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", STAGES)
def test_resumed_run_equals_uninterrupted_run(name, precision, tmp_path):
    """Stopped by Ctrl-C at image 12, by a kill at image 20 (last checkpoint: 16); the length is 24."""
    build, settings = STAGES[name], settings_of(name, precision)
    whole = build(settings)
    assert train(whole, tmp_path / "whole").finished

    stopped = train(at(build(settings), 8, lambda: os.kill(os.getpid(), signal.SIGINT)), tmp_path / "parts")
    assert (stopped.images_seen, stopped.interrupted) == (12, True)
    with pytest.raises(MemoryError):
        train(at(build(settings), 20, die), tmp_path / "parts")
    last = build(settings)
    assert train(last, tmp_path / "parts").finished

    found, expected = tensors(last.state()), tensors(whole.state())
    assert found.keys() == expected.keys() and len(expected) > 20
    different = [key for key, value in expected.items() if not torch.equal(found[key], value)]
    assert not different
    files = [load_checkpoint(checkpoint_path(RunFolder(tmp_path / folder), name)) for folder in ("whole", "parts")]
    assert files[0]["images_seen"] == files[1]["images_seen"] == 24
    assert all(torch.equal(a, b) for a, b in zip(*(tensors(file).values() for file in files), strict=True))


def weight_of(stage):
    module = stage.generator if stage.name == "gan" else stage.encoder if stage.name == "encoder" else stage.network
    return next(module.parameters())


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_breaks_down_keeps_its_last_good_checkpoint(name, tmp_path):
    stage = STAGES[name]()

    def spoil():
        with torch.no_grad():
            weight_of(stage).fill_(float("nan"))

    with pytest.raises(TrainingDiverged, match="last good checkpoint is kept"):
        train(at(stage, 20, spoil), tmp_path)
    saved = load_checkpoint(checkpoint_path(RunFolder(tmp_path), name))
    assert saved["images_seen"] == 16
    assert all(torch.isfinite(value).all() for value in tensors(saved["state"]).values() if value.is_floating_point())
    healthy = STAGES[name]()
    assert train(healthy, tmp_path).finished


OTHER = {
    "gan": {"generator": {"widths": [8, 8, 4]}},
    "encoder": {"encoder": {"lateral_width": 12}},
    "baseline": {"baseline": {"widths": [4, 4, 8, 12]}},
}


@pytest.mark.parametrize("name", STAGES)
def test_a_checkpoint_of_other_settings_is_refused_by_the_stage(name, tmp_path):
    train(at(STAGES[name](), 4, lambda: os.kill(os.getpid(), signal.SIGINT)), tmp_path)
    with pytest.raises(ValueError, match=rf"{name}.safetensors does not fit these settings.*another folder with -o"):
        train(STAGES[name](with_changes(**OTHER[name])), tmp_path)


@pytest.mark.parametrize("name", STAGES)
def test_steps_depend_on_the_images_seen_and_not_on_torchs_generator(name):
    found = []
    for seed in (1, 2):
        stage = STAGES[name]()
        torch.manual_seed(seed)
        found.append({key: value.item() for key, value in stage.step(2 * BATCH).items()})
    assert found[0] == found[1]
    other = STAGES[name]().step(3 * BATCH)
    assert other["loss/image_critic" if name == "gan" else next(iter(other))] != next(iter(found[0].values()))
