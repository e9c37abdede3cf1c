"""``semgan trust judge``: tables and masks made by hand, whose order of trust is known."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from semgan.cli import main
from semgan.trust.judge import judge

COUNT = 10


def run(*words):
    with pytest.raises(SystemExit) as left:
        main(list(map(str, words)))
    return int(left.value.code or 0)


def truth():
    mask = np.zeros((20, 20), np.uint8)
    mask[:, :10] = 1
    return mask


@pytest.fixture
def labels(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    for number in range(COUNT):
        Image.fromarray(truth()).save(folder / f"case{number}.png")
    return folder


def predictions(folder, columns, *, probabilities=False, temperature=None):
    """Case k misses k of ten columns of the object; ``columns`` name -> value of each case."""
    folder.mkdir()
    rows = []
    for number in range(COUNT):
        mask = truth()
        mask[:, :number] = 0
        Image.fromarray(mask).save(folder / f"case{number}.png")
        rows.append({"stem": f"case{number}", "steps": 0, **{name: values[number] for name, values in columns.items()}})
        if probabilities:
            (folder / "probabilities").mkdir(exist_ok=True)
            sure = np.where(mask == 1, 0.999, 0.001)
            both = np.stack([1 - sure, sure]).astype(np.float16)
            np.savez(folder / "probabilities" / f"case{number}.npz", probabilities=both)
    with open(folder / "segmentation.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    options = {} if temperature is None else {"temperature": temperature}
    (folder / "segmentation.json").write_text(json.dumps({"options": options}))
    return folder


RIGHT = {"entropy": np.arange(COUNT) / 10, "confidence": 1 - np.arange(COUNT) / 20}
WRONG = {"entropy": 1 - np.arange(COUNT) / 10, "seconds": np.ones(COUNT)}


def by_signal(rows, name="ours"):
    return {row.signal: row for row in rows if row.predictions == name}


def test_signals_are_judged_by_their_own_direction(labels, tmp_path):
    ours, theirs = predictions(tmp_path / "ours", RIGHT), predictions(tmp_path / "theirs", WRONG)
    rows = judge([ours, theirs], labels, tmp_path / "out", metric="dice")
    good, bad = by_signal(rows), by_signal(rows, "theirs")
    assert set(good) == {"score", "entropy", "confidence"} and set(bad) == {"score", "entropy"}
    for signal in ("score", "entropy", "confidence"):
        assert good[signal].auroc == 1 and good[signal].rank_correlation == pytest.approx(1)
        assert good[signal].aurc == pytest.approx(good["score"].aurc)
    assert bad["entropy"].auroc == 0 and bad["entropy"].rank_correlation == pytest.approx(-1)
    assert bad["entropy"].aurc > bad["entropy"].mean_risk > good["entropy"].aurc
    scores = np.array([2 * (10 - k) / (20 - k) for k in range(COUNT)])
    assert good["score"].mean_risk == pytest.approx(1 - scores.mean())
    assert good["entropy"].risk_at_80 == pytest.approx(1 - scores[:8].mean())
    assert good["score"].failures == bad["score"].failures == 2  # the worst fifth of all
    assert np.isnan(good["entropy"].auroc_domain)
    table = list(csv.DictReader((tmp_path / "out/trust.csv").open()))
    assert [(row["predictions"], row["signal"]) for row in table] == [(row.predictions, row.signal) for row in rows]
    curve = [row for row in csv.DictReader((tmp_path / "out/curves.csv").open()) if row["signal"] == "confidence"]
    assert [float(row["coverage"]) for row in curve] == pytest.approx(np.arange(1, 11) / 10)
    assert Image.open(tmp_path / "out/trust.png").size[0] > 500 and not (tmp_path / "out/calibration.csv").exists()


def test_a_given_limit_says_what_fails(labels, tmp_path):
    ours = predictions(tmp_path / "ours", RIGHT)
    rows = by_signal(judge([ours], labels, tmp_path / "out", metric="jaccard", limit=0.55, signals=["entropy"]))
    assert set(rows) == {"score", "entropy"} and rows["entropy"].failures == 5 and rows["entropy"].limit == 0.55
    none = by_signal(judge([ours], labels, tmp_path / "out", metric="jaccard", limit=0.0))
    assert none["entropy"].failures == 0 and np.isnan(none["entropy"].auroc)


def test_images_of_another_domain_are_told_from_those_at_home(labels, tmp_path):
    ours = predictions(tmp_path / "ours", RIGHT)
    home = predictions(tmp_path / "home", {"entropy": np.full(COUNT, -0.5), "confidence": np.full(COUNT, 0.2)})
    rows = by_signal(judge([ours], labels, tmp_path / "out", metric="dice", in_domain=[home]))
    assert rows["entropy"].auroc_domain == 1 and rows["confidence"].auroc_domain == 0
    assert np.isnan(rows["score"].auroc_domain)
    with pytest.raises(ValueError, match="one of in-domain images; got 1 and 2"):
        judge([ours], labels, tmp_path / "out", metric="dice", in_domain=[home, home])


def test_saved_probabilities_are_judged_before_and_after_the_models_temperature(labels, tmp_path):
    ours = predictions(tmp_path / "ours", RIGHT, probabilities=True, temperature=4.0)
    judge([ours], labels, tmp_path / "out", metric="dice")
    before, after = csv.DictReader((tmp_path / "out/calibration.csv").open())
    assert float(before["temperature"]) == 1 and float(after["temperature"]) == 4
    assert float(after["ece"]) < float(before["ece"]) and float(after["nll"]) < float(before["nll"])
    assert int(before["pixels"]) == COUNT * 400
    bare = predictions(tmp_path / "bare", RIGHT)
    judge([bare], labels, tmp_path / "out", metric="dice")  # into the same folder, without probabilities
    assert not (tmp_path / "out/calibration.csv").exists()


def test_files_that_are_damaged_are_named_and_nothing_is_written(labels, tmp_path):
    def refused(words, folder):
        with pytest.raises(ValueError, match=words):
            judge([folder], labels, tmp_path / "out", metric="jaccard")
        assert not (tmp_path / "out").exists()

    cut = predictions(tmp_path / "cut", RIGHT, probabilities=True)
    saved = cut / "probabilities" / "case3.npz"
    saved.write_bytes(saved.read_bytes()[:100])
    refused("case3.npz cannot be read .*; segment its image again", cut)
    saved.write_bytes(b"")
    refused("case3.npz cannot be read", cut)
    table = predictions(tmp_path / "odd", RIGHT) / "segmentation.csv"
    whole = table.read_text()
    table.write_text(whole.replace("case1,0,0.1,", "case1,0,,"))
    refused("segmentation.csv, line 3, has '' as entropy", table.parent)
    table.write_text(whole[: whole.index("case4,0") + 7])
    refused("segmentation.csv, line 6, has 'None' as entropy", table.parent)
    table.write_text(whole.splitlines(keepends=True)[0])
    refused("segmentation.csv lists no image", table.parent)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file is a file; give a folder"):
        judge([predictions(tmp_path / "good", RIGHT)], labels, tmp_path / "file", metric="jaccard")


def test_the_command_tells_one_document(labels, tmp_path, capsys):
    ours = predictions(tmp_path / "ours", RIGHT)
    assert run("trust", "judge", ours, "--labels", labels, "--metric", "dice", "-o", tmp_path / "out", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["signal"] for row in found["rows"]] == ["score", "entropy", "confidence"]
    assert found["rows"][0]["auroc_domain"] is None


def test_names_keyed_by_the_values_of_the_true_masks_mean_these_values(labels, tmp_path):
    """The classes.json of `data prepare`, and masks as they were stored: 7 is the lung."""
    stored, ours = tmp_path / "stored", predictions(tmp_path / "ours", RIGHT)
    stored.mkdir()
    for file in labels.glob("*.png"):
        Image.fromarray(np.asarray(Image.open(file)) * np.uint8(7)).save(stored / file.name)
    (tmp_path / "classes.json").write_text(json.dumps({"0": "background", "7": "lung"}))
    found = {}
    for name, truth, words in (("as", labels, ()), ("by", stored, ("--classes", tmp_path / "classes.json"))):
        out = tmp_path / name
        assert run("trust", "judge", ours, "--labels", truth, "--metric", "dice", "-o", out, *words) == 0
        found[name] = [path.read_text() for path in sorted(out.glob("*.csv"))]
    assert found["as"] == found["by"]


def test_what_cannot_be_judged_is_one_message(labels, tmp_path, capsys):
    ours = predictions(tmp_path / "ours", RIGHT)
    bare, fewer, volumes = tmp_path / "bare", tmp_path / "fewer", tmp_path / "volumes"
    for folder, lines in ((bare, None), (fewer, 4), (volumes, 0)):
        folder.mkdir()
        table = (ours / "segmentation.csv").read_text().splitlines(keepends=True)
        if lines is not None:
            (folder / "segmentation.csv").write_text("".join(table[: lines + 1]) if lines else "stem,slices\na,3\n")
    (tmp_path / "stems.json").write_text('["case0", "case77"]')
    out = ("--labels", labels, "--metric", "dice", "-o", tmp_path / "out")
    for words, named in (
        ((bare, *out), "segmentation.csv; make it with `semgan segment --signals"),
        ((ours, fewer, *out), "case4"),
        ((volumes, *out), "holds volumes"),
        ((ours, ours, *out), "ours is given twice"),
        ((ours, *out, "--signal", "disagreement"), "has no signal disagreement; it has entropy, confidence"),
        ((ours, *out, "--stems", tmp_path / "stems.json"), "case77"),
        ((ours, "--labels", tmp_path / "nowhere", *out[2:]), "nowhere does not exist"),
    ):
        capsys.readouterr()
        assert run("trust", "judge", *words) == 2
        message = capsys.readouterr().err
        assert named in message and "Traceback" not in message and message.count("Error") == 1
    assert not (tmp_path / "out").exists()
    for number in range(COUNT - 1):
        (labels / f"case{number}.png").unlink()
    assert run("trust", "judge", ours, *out) == 2 and "no mask for 9 of the cases" in capsys.readouterr().err
