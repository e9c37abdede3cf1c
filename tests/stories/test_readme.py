"""What the README tells people to type, typed: on a few phantoms, with the recipe `debug`."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from semgan.cli import app, main
from semgan.data.phantoms import write_phantom_dataset

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every line of every sh block, without comments, as words."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def people_folder(tmp_path_factory) -> Path:
    """A working folder with ``mine/``: images, labels, unlabelled, new, new_labels, as the README supposes."""
    folder = tmp_path_factory.mktemp("readme")
    mine = folder / "mine"
    write_phantom_dataset(mine, "chests", size_px=48, labelled=12, validation=0, unlabelled=16, test=2, seed=3)
    (mine / "manifest.csv").unlink()
    (mine / "test" / "standard" / "images").rename(mine / "new")
    (mine / "test" / "standard" / "labels").rename(mine / "new_labels")
    shutil.rmtree(mine / "test")
    first = min((mine / "new").iterdir())
    for folder_name in ("new", "new_labels"):
        (mine / folder_name / first.name).rename(mine / folder_name / "first.png")
    return folder


SHORT = ("gan.images=64", "encoder.images=32", "inversion.steps=2")


def shortened(words: list[str]) -> list[str]:
    """The command with any real recipe replaced by a short `debug`: the same code, seconds instead of hours."""
    if "--recipe" not in words:
        return words
    replaced = list(words)
    replaced[replaced.index("--recipe") + 1] = "debug"
    return replaced + [word for change in SHORT for word in ("--set", change)]


def test_readme_has_the_two_commands_and_the_five():
    assert {"make demo", "make test", "pip install ."} <= {" ".join(words) for words in commands()}
    verbs = [" ".join(words[1:3]) if words[1] == "data" else words[1] for words in commands() if words[0] == "semgan"]
    assert verbs[:5] == ["data prepare", "data split", "train", "segment", "evaluate"]


def test_make_commands_of_the_readme_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    wanted = [words[1] for words in commands() if words[0] == "make"]
    assert wanted and set(wanted) <= targets


def test_recipes_and_methods_named_in_the_readme_exist():
    from semgan import methods, recipes

    named = {words[words.index("--recipe") + 1] for words in commands() if "--recipe" in words}
    named |= set(re.findall(r"`((?:lungs|skin|faces)-64)`", README))
    assert named and named <= set(recipes.names())
    assert set(re.findall(r"--method ([a-z-]+)", README)) <= set(methods.METHODS)


@pytest.mark.timeout(600)
def test_every_semgan_command_of_the_readme_works(people_folder, monkeypatch, capsys):
    monkeypatch.chdir(people_folder)
    for words in commands():
        if words[0] in ("make", "pip"):
            continue
        assert words[0] == "semgan", f"README tells people to run {words[0]}; this test does not know it."
        with pytest.raises(SystemExit) as leave:
            main(shortened(words[1:]))
        assert not leave.value.code, f"{' '.join(words)}\n{capsys.readouterr().err}"
    assert {path.name for path in (people_folder / "masks").glob("*.png")} == {"first.png", "test_00001.png"}
    assert (people_folder / "masks" / "scores.json").is_file()


@pytest.mark.timeout(600)
def test_the_python_of_the_readme_works_in_under_15_lines(people_folder):
    (program,) = blocks("python")
    assert len([line for line in program.splitlines() if line.strip()]) < 15
    assert 'recipe="debug"' in program
    program = program.replace('recipe="debug"', f'recipe="debug", changes={list(SHORT)}')
    folder = people_folder / "python"
    folder.mkdir()
    (folder / "mine").symlink_to(people_folder / "mine")
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    assert "(48, 48)" in done.stdout


def test_links_and_pictures_of_readme_and_docs_lead_somewhere():
    broken = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken


def test_verbs_and_options_named_in_the_docs_exist():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    shown = [match for line in lines for match in re.findall(r"(?:^ {4}|`)(semgan [a-z][^`|#(]*)", line)]
    assert len(shown) > 15
    wrong = [text for text in shown if not parses(text.split())]
    assert not wrong


@functools.cache
def whole_command():
    return typer.main.get_command(app)


def parses(words: list[str]) -> bool:
    """Whether the verb exists and has all the options of a command, which may name no files or end in "..."."""
    command = whole_command()
    rest = words[1:]
    while rest and hasattr(command, "commands"):
        if rest[0] not in command.commands:
            return False
        command, rest = command.commands[rest[0]], rest[1:]
    known = {name for item in command.params for name in item.opts} | {"--help"}
    return {word for word in rest if re.fullmatch(r"--?[a-z-]+", word)} <= known
