"""File formats: whole or not at all, read back to the bit, and never mistaken for one another."""

import errno
import fcntl
import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semgan import artifacts
from semgan.artifacts import RunFolder, load_checkpoint, load_tensors, read_metrics, save_checkpoint, save_tensors
from semgan.config import Settings, override


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def cut_short(tensors, path, metadata=None):
    """A writer that dies on a full disk after some bytes."""
    Path(path).write_bytes(b"some bytes")
    no_space()


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# ---------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_text_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch, moment):
    path = tmp_path / "notes.json"
    artifacts.write_json(path, {"old": 1})
    monkeypatch.setattr(os, moment, no_space)
    with pytest.raises(OSError, match="space"):
        artifacts.write_json(path, {"new": 2})
    assert artifacts.read_json(path) == {"old": 1} and everything_in(tmp_path) == {"notes.json"}


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_weights_that_cannot_be_finished_leave_the_old_ones(tmp_path, monkeypatch, moment):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {"x": torch.ones(3)})
    if moment == "write":
        monkeypatch.setattr("safetensors.torch.save_file", cut_short)
    else:
        monkeypatch.setattr(os, moment, no_space)
    with pytest.raises(OSError, match="space"):
        save_checkpoint(path, {"x": torch.zeros(3)})
    assert load_checkpoint(path)["x"].tolist() == [1, 1, 1] and everything_in(tmp_path) == {"a.safetensors"}


def test_a_truncated_json_file_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"format": 1, "meth')
    with pytest.raises(ValueError, match="config.json is not valid JSON"):
        artifacts.read_json(path)


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_is_read_back_to_the_bit(tmp_path):
    torch.manual_seed(0)
    state = {
        "weights": {"a.b": torch.randn(3, 4), "half": torch.randn(5).bfloat16(), "empty": torch.zeros(0, 3)},
        "odd": torch.tensor([float("inf"), -0.0, 1e-42, 2.0**100]),
        "whole": {"n": torch.tensor(7), "flags": torch.tensor([True, False]), "bytes": torch.arange(3).byte()},
        "numbers": {"i": 3, "f": 0.1 + 0.2, "none": None, "text": "é\n", "flag": True, 5: "a number as key"},
        "list": [1, [torch.ones(2), "x"], {"deep": torch.zeros(1)}],
    }
    save_checkpoint(tmp_path / "c.safetensors", state)
    found = load_checkpoint(tmp_path / "c.safetensors")
    assert found["numbers"] == state["numbers"] and found["list"][0] == 1 and found["list"][1][1] == "x"
    for group in ("weights", "whole"):
        for name, value in state[group].items():
            assert torch.equal(found[group][name], value) and found[group][name].dtype == value.dtype
    assert torch.equal(found["odd"].view(torch.int32), state["odd"].view(torch.int32))
    assert torch.equal(found["list"][1][0], torch.ones(2)) and torch.equal(found["list"][2]["deep"], torch.zeros(1))


def test_keys_with_slashes_are_told_apart_from_levels(tmp_path):
    state = {
        "a": {"b": torch.zeros(1), "~1": torch.ones(1)},
        "a/b": torch.full((1,), 2.0),
        "a//": torch.full((1,), 3.0),
    }
    save_checkpoint(tmp_path / "c.safetensors", state)
    assert plain(load_checkpoint(tmp_path / "c.safetensors")) == plain(state)


numbers = st.integers() | st.floats(0, 1e9, allow_subnormal=False)
trees = st.recursive(
    st.none() | st.booleans() | numbers | st.text() | st.just(torch.ones(1)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~.0", max_size=3), inner, max_size=4),
    max_leaves=8,
)


def numbered(tree, count):
    """The tree with a different tensor at every tensor's place."""
    if isinstance(tree, torch.Tensor):
        count[0] += 1
        return torch.tensor([float(count[0])])
    if isinstance(tree, dict):
        return {key: numbered(value, count) for key, value in tree.items()}
    return [numbered(value, count) for value in tree] if isinstance(tree, list) else tree


def plain(tree):
    if isinstance(tree, torch.Tensor):
        return ("tensor", tree.tolist())
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(value) for value in tree] if isinstance(tree, list) else tree


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text("ab/~", max_size=3), trees, max_size=4))
def test_any_nested_state_survives_a_checkpoint(tmp_path_factory, tree):
    state = numbered(tree, [0])
    path = tmp_path_factory.mktemp("tree") / "c.safetensors"
    save_checkpoint(path, state)
    assert plain(load_checkpoint(path)) == plain(state)


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimiser_goes_on_from_its_checkpoint_as_if_nothing_had_been(tmp_path, fused):
    def parts():
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        return layer, torch.optim.Adam(layer.parameters(), lr=0.1, betas=(0.0, 0.99), fused=fused)

    def step(layer, adam, x):
        adam.zero_grad()
        layer(torch.full((1, 3), x)).square().sum().backward()
        adam.step()

    layer, adam = parts()
    step(layer, adam, 1.0)
    save_checkpoint(tmp_path / "c.safetensors", {"layer": layer.state_dict(), "adam": adam.state_dict()})
    step(layer, adam, 2.0)
    other, its_adam = parts()
    state = load_checkpoint(tmp_path / "c.safetensors")
    other.load_state_dict(state["layer"])
    its_adam.load_state_dict(state["adam"])
    step(other, its_adam, 2.0)
    assert torch.equal(layer.weight, other.weight)


def test_views_and_shared_tensors_are_saved_as_their_own_values(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"row": whole[1], "turned": whole.t(), "again": whole, "expanded": torch.ones(1).expand(3)}
    save_checkpoint(tmp_path / "c.safetensors", state)
    found = load_checkpoint(tmp_path / "c.safetensors")
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_what_a_checkpoint_cannot_hold_is_named(tmp_path):
    with pytest.raises(TypeError, match="'/a/b' is set"):
        save_checkpoint(tmp_path / "c.safetensors", {"a": {"b": {1, 2}}})
    assert everything_in(tmp_path) == set()


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_weights_file_is_named(tmp_path, kept):
    path = tmp_path / "generator.safetensors"
    save_tensors(path, {"a": torch.randn(100)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="generator.safetensors is not a readable safetensors file"):
        load_tensors(path)


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("unpickled",))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_given_as_checkpoint_is_refused_and_never_run(tmp_path, monkeypatch, writer):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    if writer == "torch":
        torch.save({"a": torch.ones(1), "trap": Trap()}, path)
    else:
        path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="weights.pth is not a readable safetensors file"):
        load_checkpoint(path)
    assert not (tmp_path / "unpickled").exists()


def test_weights_are_not_taken_for_a_checkpoint(tmp_path):
    save_tensors(tmp_path / "generator.safetensors", {"a": torch.ones(1)})
    with pytest.raises(ValueError, match="holds weights, not a checkpoint"):
        load_checkpoint(tmp_path / "generator.safetensors")


def test_a_missing_weights_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"):
        load_tensors(tmp_path / "nowhere.safetensors")


# ---------------------------------------------------------------- run folder


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path / "runs" / "first")
    assert run.create(Settings(), "lungs 0123") is False
    return run


def test_a_new_run_records_settings_and_environment(run):
    record = artifacts.read_json(run.environment)
    assert record["dataset"] == "lungs 0123" and record["seed"] == 0 and record["command"].startswith("semgan")
    assert set(record["versions"]) >= {"python", "torch", "semgan"} and record["commit"]
    assert run.samples.is_dir() and run.checkpoints.is_dir()
    assert override(Settings(), artifacts.config.read_overrides(run.config)) == Settings()


def test_the_same_settings_go_on_with_a_run_and_keep_its_record(run):
    before = run.environment.read_text(), run.config.read_text()
    assert run.create(Settings(), "lungs 0123") is True
    assert (run.environment.read_text(), run.config.read_text()) == before


@pytest.mark.parametrize("changes", [{"device": "cpu"}, {"threads": 3}])
def test_another_device_is_no_other_run(run, changes):
    assert run.create(override(Settings(), changes), "lungs 0123") is True


def test_other_settings_are_refused_and_named(run):
    before = everything_in(run.path)
    with pytest.raises(ValueError, match=r"other settings \(gan.batch, labels\); give another folder with -o"):
        run.create(override(Settings(), {"gan": {"batch": 8}, "labels": 9}), "lungs 0123")
    assert everything_in(run.path) == before


def test_another_dataset_is_refused_and_named(run):
    before = everything_in(run.path)
    with pytest.raises(ValueError, match="'lungs 0123'.*'lungs 4567'.*another folder"):
        run.create(Settings(), "lungs 4567")
    assert everything_in(run.path) == before


def test_a_setting_that_an_older_run_does_not_know_counts_as_its_default(run):
    text = run.config.read_text()
    run.config.write_text("\n".join(line for line in text.splitlines() if "pair_augment" not in line))
    assert run.create(Settings(), "lungs 0123") is True


def test_a_folder_with_other_content_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not a semgan run; give another folder with -o"):
        RunFolder(tmp_path).create(Settings(), "lungs")
    assert everything_in(tmp_path) == {"thesis.txt"}


def test_an_empty_folder_is_taken(tmp_path):
    assert RunFolder(tmp_path).create(Settings(), "lungs") is False


@pytest.mark.parametrize("moment", ["git_commit", "versions"])
def test_a_run_that_was_killed_while_it_was_set_up_is_completed(tmp_path, monkeypatch, moment):
    def killed(*_):
        raise KeyboardInterrupt

    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            run.create(Settings(), "lungs")
    run.create(Settings(), "lungs")
    assert run.environment.is_file() and run.samples.is_dir() and run.checkpoints.is_dir()


def test_what_killed_writers_left_behind_is_removed_and_nothing_else(run):
    left = ("checkpoints/.gan.safetensors.tmp-123", ".config.yaml.tmp-9", ".ct.nii.gz.tmp-5.nii.gz")
    for name in (*left, "checkpoints/gan.safetensors", ".mine"):
        (run.path / name).write_bytes(b"0")
    (run.path / ".model.old-77").mkdir()
    run.create(Settings(), "lungs 0123")
    left = everything_in(run.path)
    assert {"checkpoints/gan.safetensors", ".mine"} < left and not [name for name in left if "-" in name]


def test_a_killed_first_write_does_not_make_the_folder_foreign(tmp_path):
    (tmp_path / ".config.yaml.tmp-4711").write_text("half")
    assert RunFolder(tmp_path).create(Settings(), "lungs") is False
    assert not list(tmp_path.glob(".*"))


def test_metrics_after_the_checkpoint_are_dropped_for_that_stage_alone(run):
    for stage, seen in [("gan", 10), ("gan", 20), ("encoder", 30), ("gan", 30)]:
        run.append_metrics({"stage": stage, "images_seen": seen, "seconds": 0.5, "loss": 1 / 3})
    with open(run.metrics, "a") as file:
        file.write('{"stage": "gan", "images_se')  # a kill in the middle of a line
    assert len(read_metrics(run.metrics)) == 4
    run.truncate_metrics("gan", 20)
    assert [(row["stage"], row["images_seen"]) for row in read_metrics(run.metrics)] == [
        ("gan", 10),
        ("gan", 20),
        ("encoder", 30),
    ]
    run.append_metrics({"stage": "gan", "images_seen": 40})
    assert [json.loads(line)["images_seen"] for line in run.metrics.read_text().splitlines()] == [10, 20, 30, 40]
    assert read_metrics(run.metrics)[0]["loss"] == 1 / 3


def test_a_run_without_metrics_has_none_to_drop(run):
    run.truncate_metrics("gan", 0)
    assert not run.metrics.exists()


# ---------------------------------------------------------------- model folder


def test_a_model_folder_is_swapped_in_whole(tmp_path):
    folder = tmp_path / "model"
    artifacts.save_model(folder, {"method": "a"}, {"old": {"x": torch.ones(1)}, "both": {"x": torch.ones(1)}}, "card")
    artifacts.save_model(folder, {"method": "b"}, {"both": {"x": torch.zeros(1)}}, "new card")
    described, weights = artifacts.read_model(tmp_path)
    assert (
        described["method"] == "b"
        and described["format"] == artifacts.MODEL_FORMAT
        and "torch" in described["versions"]
    )
    assert set(weights) == {"both"} and weights["both"]["x"].item() == 0
    assert (folder / "README.md").read_text() == "new card"
    assert everything_in(tmp_path) == {
        "model",
        *(f"model/{n}" for n in ("config.json", "README.md", "both.safetensors")),
    }


@pytest.mark.parametrize("moment", ["write", "swap"])
def test_a_model_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, moment):
    folder = tmp_path / "model"
    artifacts.save_model(folder, {"method": "a"}, {"network": {"x": torch.ones(1)}}, "card")
    if moment == "write":
        monkeypatch.setattr("safetensors.torch.save_file", cut_short)
    else:
        replace = os.replace

        def refuse_the_new_one(source, target):
            no_space() if ".tmp-" in str(source) and Path(target) == folder else replace(source, target)

        monkeypatch.setattr(os, "replace", refuse_the_new_one)
    with pytest.raises(OSError, match="space"):
        artifacts.save_model(folder, {"method": "b"}, {"network": {"x": torch.zeros(1)}}, "card")
    assert artifacts.read_model(folder)[0]["method"] == "a"
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_model_of_another_format_is_refused(tmp_path):
    artifacts.save_model(tmp_path / "model", {"method": "a"}, {}, "card")
    description = artifacts.read_json(tmp_path / "model" / "config.json")
    artifacts.write_json(tmp_path / "model" / "config.json", description | {"format": 99})
    with pytest.raises(ValueError, match="format 99; this version reads 1"):
        artifacts.read_model(tmp_path)


def test_a_run_or_a_model_folder_may_be_named_and_what_is_missing_is_said(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="is a run without a model yet"):
        artifacts.find_model(run.path)
    artifacts.save_model(run.model, {"method": "a"}, {}, "card")
    assert artifacts.find_model(run.path) == artifacts.find_model(run.model) == run.model
    with pytest.raises(FileNotFoundError, match="expected a run folder or a model folder"):
        artifacts.find_model(tmp_path / "nothing")


def test_the_commit_of_a_checkout_is_marked_where_files_were_changed(tmp_path):
    assert artifacts.git_commit(tmp_path) == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    (tmp_path / "a.txt").write_text("1")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        artifacts.subprocess.run([*git, *words], check=True)
    clean = artifacts.git_commit(tmp_path)
    assert len(clean) == 12
    (tmp_path / "a.txt").write_text("2")
    assert artifacts.git_commit(tmp_path) == clean + "+"


@pytest.mark.parametrize("like_nfs", [False, True])
def test_a_locked_folder_lets_one_in_at_a_time_also_where_folders_cannot_be_locked(tmp_path, monkeypatch, like_nfs):
    own, inside, most = fcntl.flock, [], []

    def flock(handle, how):
        if like_nfs and os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EBADF, "Bad file descriptor")
        own(handle, how)

    def visit(_):
        with artifacts.locked_folder(tmp_path):
            inside.append(1)
            time.sleep(0.01)
            most.append(len(inside))
            inside.pop()

    monkeypatch.setattr(fcntl, "flock", flock)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(visit, range(8)))
    assert max(most) == 1 and len(most) == 8
    assert [path.name for path in tmp_path.iterdir()] == ([".lock"] if like_nfs else [])


def test_what_else_hinders_a_lock_is_an_error(tmp_path, monkeypatch):
    def flock(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="No locks"), artifacts.locked_folder(tmp_path):
        pass
