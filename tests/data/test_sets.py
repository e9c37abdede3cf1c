import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from semgan.data.sets import SETS, find, table

PAGE = Path(__file__).parents[2] / "docs" / "data-sets.md"
ITEMS = pytest.mark.parametrize("item", SETS.values(), ids=lambda item: item.name)


@ITEMS
def test_every_set_says_where_from_under_which_terms_and_what_to_do(item):
    assert item.task in ("chest-xray", "skin", "liver", "faces")
    assert item.archives or item.steps, "either an address or steps"
    assert item.title and item.licence and item.citation and item.layout
    assert urlsplit(item.page).scheme in ("http", "https") and urlsplit(item.page).hostname


@ITEMS
def test_archives_have_secure_addresses_well_formed_checksums_and_folders_of_their_own(item):
    folders = [archive.folder for archive in item.archives]
    assert len(set(folders)) == len(folders) and len({archive.url for archive in item.archives}) == len(folders)
    for archive in item.archives:
        assert urlsplit(archive.url).scheme == "https"
        assert re.fullmatch(r"[\w-]+", archive.folder)
        if archive.checksum is not None:
            assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", archive.checksum)


def test_published_sizes_agree_with_the_rounded_one():
    for item in SETS.values():
        sizes = [archive.size for archive in item.archives]
        if sizes and None not in sizes:
            assert item.about_gb == pytest.approx(sum(sizes) / 1e9, abs=0.06)


def test_every_set_of_the_paper_is_there():
    tasks = {item.task: [other.name for other in SETS.values() if other.task == item.task] for item in SETS.values()}
    assert tasks == {
        "chest-xray": ["jsrt", "montgomery", "shenzhen", "chestxray14", "xlsor"],
        "skin": ["isic2017", "isic2018", "isic2020", "ph2", "dermis-dermquest"],
        "liver": ["lits17", "chaos"],
        "faces": ["celebamask-hq", "metfaces", "metfaces40"],
    }


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"'ISIC2018'\. Did you mean isic2018\? Known: jsrt,"):
        find("ISIC2018")


def test_the_table_in_the_docs_is_the_list_in_the_code():
    shown = PAGE.read_text(encoding="utf-8")
    assert table() in shown, "put the output of `semgan.data.sets.table()` into docs/data-sets.md"
