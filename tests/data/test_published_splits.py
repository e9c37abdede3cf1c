"""The lists that `prepare TASK` draws from whole published sets are those in splits/, for ever.

The sets whose names are known without the data: JSRT, LiTS, CelebAMask-HQ. This file, run as a program, writes the
lists; a change of them is a change of the protocol, and of every number that was measured by it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from semgan.data.prepare.inventory import Inventory, Source
from semgan.data.prepare.tasks import TASKS, _draw_sets
from semgan.data.splits import write_protocol

ROOT = Path(__file__).parents[2]
JSRT = [f"JPCLN{n:03d}" for n in range(1, 155)] + [f"JPCNN{n:03d}" for n in range(1, 94)]
NAMES = {
    "jsrt": ("chest-xray", {name: {"stratum": name[:5]} for name in JSRT}),
    "lits": ("liver", {f"lits-{n:03d}": {"patient": f"lits-{n:03d}"} for n in range(131)}),
    "celebamask-hq": ("faces", {f"celeba__{n:05d}": {} for n in range(30_000)}),
}
SIZES = {
    "jsrt": (72, 175, (9, 35, 175)),
    "lits": (13, 118, (8, 20, 118)),
    "celebamask-hq": (500, 1500, (30, 150, 1500)),
}


def drawn(name: str, folder: Path) -> dict[str, object]:
    """splits.json of the whole set, without its pixels; a volume stands for its slices."""
    task, rows = NAMES[name]
    inventory = Inventory(columns={stem: {"stem": stem, "set": "train", **row} for stem, row in rows.items()})
    inventory.sources = [Source(stem, "imagesTr", Path(stem), (Path(stem),)) for stem in rows]
    _draw_sets(inventory, TASKS[task])
    for kind in ("imagesTr", "labelsTr", "imagesUn"):
        (folder / kind).mkdir(parents=True)
    kept = [source.stem for source in inventory.sources if source.folder == "imagesTr"]
    for stem in kept:
        (folder / f"imagesTr/{stem}_0000.png").touch()
        (folder / f"labelsTr/{stem}.png").touch()
    description = {"channel_names": {"0": "grey"}, "file_ending": ".png", "labels": {"background": 0, "object": 1}}
    (folder / "dataset.json").write_text(json.dumps(description))
    patients = [f"{stem},{rows[stem].get('patient', '')}\n" for stem in kept]
    (folder / "manifest.csv").write_text("stem,patient\n" + "".join(patients))
    test = [stem for stem in kept if inventory.columns[stem]["set"] == "test"]
    (folder / "splits.json").write_text(json.dumps({"test": test, "metric": TASKS[task].protocol.metric}))
    return {"set": name, **write_protocol(folder, TASKS[task].protocol)}


@pytest.mark.parametrize("name", NAMES)
def test_the_lists_of_a_whole_set_are_the_shipped_ones_with_the_papers_sizes(name, tmp_path):
    shipped = json.loads((ROOT / f"splits/{name}.json").read_text())
    assert drawn(name, tmp_path) == shipped
    test, pool, budgets = SIZES[name]
    assert len(shipped["test"]) == test and len(shipped["pool"]) == pool
    assert not set(shipped["test"]) & set(shipped["pool"])
    for seed in range(3):
        lists = [shipped[f"labelled_{budget}_seed{seed}"] for budget in budgets]
        assert [len(names) for names in lists] == list(budgets)
        assert set(lists[0]) < set(lists[1]) < set(lists[2]) == set(shipped["pool"])


if __name__ == "__main__":
    for known in NAMES:
        with tempfile.TemporaryDirectory() as place:
            content = json.dumps(drawn(known, Path(place)), indent=1)
        (ROOT / f"splits/{known}.json").write_text(content + "\n")
