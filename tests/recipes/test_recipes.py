"""Every recipe loads, tells its cost, fits every method, and describes networks that can be built."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch

from semgan import config, recipes
from semgan.baselines.networks import build_network
from semgan.config import Settings
from semgan.methods import METHODS
from semgan.stages.stage1_gan import build_generator, build_image_critic, build_pair_critic
from semgan.types import LabelSpace

FOLDER = Path(recipes.__file__).parent
NAMES = recipes.names()


def test_names_are_those_of_the_files_and_hold_what_the_interfaces_promise():
    files = {path.stem.replace("_", "-") for path in FOLDER.glob("*.py")} - {"--init--"}
    assert set(NAMES) == files and list(NAMES) == sorted(NAMES)
    promised = {"debug", "lungs-64", "skin-64", "faces-64", "chest-xray", "skin", "liver-ct", "faces", "phantoms"}
    promised |= {"chest-xray-64", "liver-ct-64"}
    assert promised <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_knows_its_name_and_its_header_tells_command_cost_score_and_source(name):
    assert recipes.load(name).recipe == name
    header = importlib.import_module(f"semgan.recipes.{name.replace('-', '_')}").__doc__ or ""
    assert re.search(rf"^Command: .*--recipe {name}\b", header, re.MULTILINE)
    for line in ("Cost", "Score", "Source"):
        assert re.search(rf"^{line}: +\S", header, re.MULTILINE), line


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_every_method_resolves_on_every_recipe(name, method):
    changes = METHODS[method].changes(recipes.load(name))
    settings = config.override(recipes.load(name), changes | {"method": method})
    assert settings.method == method
    for group, values in changes.items():
        for key, value in values.items():
            assert getattr(getattr(settings, group), key) == value


@pytest.mark.parametrize("name", NAMES)
def test_the_networks_of_a_recipe_can_be_built(name):
    settings, labels = recipes.load(name), LabelSpace(("background", "one", "two"))
    with torch.device("meta"):
        assert build_generator(settings, labels).size_px == settings.preprocessing.size_px
        build_image_critic(settings)
        build_pair_critic(settings, labels)
        build_network(settings, labels.channels)


def test_a_recipe_that_is_not_there_comes_with_a_suggestion():
    with pytest.raises(ValueError, match=r"Unknown recipe 'lung-64'. Did you mean 'lungs-64'\? There are: .*debug"):
        recipes.load("lung-64")


def written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_a_yaml_file_overrides_the_defaults_key_by_key(tmp_path):
    found = recipes.load(written(tmp_path, "gan:\n  batch: 6\nseed: 3\n"))
    assert found == config.override(Settings(), {"recipe": "mine", "seed": 3, "gan": {"batch": 6}})


def test_a_yaml_file_can_start_from_a_recipe(tmp_path):
    found = recipes.load(str(written(tmp_path, "recipe: debug\ngan:\n  batch: 6\n")))
    assert found == config.override(recipes.load("debug"), {"gan": {"batch": 6}})


def test_the_saved_settings_of_a_run_are_a_recipe_that_gives_the_same_settings(tmp_path):
    settings = config.override(recipes.load("lungs-64"), {"gan": {"batch": 6}, "classes": ["a", "b", "c"]})
    assert recipes.load(written(tmp_path, config.dump(settings))) == settings


def test_a_yaml_file_that_is_missing_or_wrong_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.yaml does not exist; --recipe takes a name \("):
        recipes.load(tmp_path / "nowhere.yaml")
    with pytest.raises(ValueError, match=r"'gan.bach' in .*mine.yaml. Did you mean 'gan.batch'"):
        recipes.load(written(tmp_path, "gan: {bach: 3}"))


@pytest.mark.parametrize("text", ["recipe: lung-64\ngan:\n  batch: 6\n", "recipe: [debug]\n"])
def test_a_yaml_file_that_starts_from_a_recipe_that_is_not_there_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"Unknown recipe .*in .*mine.yaml.*There are: .*debug"):
        recipes.load(written(tmp_path, text))


def test_saved_settings_of_a_recipe_of_ones_own_are_taken_as_they_are(tmp_path):
    settings = config.override(Settings(), {"recipe": "my-own", "gan": {"batch": 6}})
    assert recipes.load(written(tmp_path, config.dump(settings))).gan.batch == 6


@pytest.mark.parametrize("name", NAMES)
def test_results_that_a_header_names_are_there(name):
    header = importlib.import_module(f"semgan.recipes.{name.replace('-', '_')}").__doc__ or ""
    for found in re.findall(r"results/([a-z0-9-]+)", header):
        assert (FOLDER.parents[2] / "results" / found).is_dir(), found
