"""Which files become which cases: plain folders, the masks that belong to the images, and the manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from semgan.data.dicom_pictures import Kind, dicom_kind
from semgan.data.folder import read_manifest
from semgan.data.readers import IMAGE_SUFFIXES, image_stem, is_image, is_mask, read_image, read_label
from semgan.data.splits import Protocol as SplitProtocol
from semgan.data.tree import JOINED, stem_within, walk
from semgan.data.volumes import Volume

SIDE_SUFFIXES = (".csv", ".json", ".txt", ".md", ".xml", ".yaml", ".yml")
SIDE_NAMES = ("thumbs.db", "desktop.ini", "dicomdir", "license", "readme")
Pairs = tuple[dict[str, Path], dict[str, Path]]  # images and masks by stem
VOLUME_SUFFIXES = (".nii", ".gz", ".mha", ".nrrd")


class Scan(Protocol):
    """A published volume and its mask, in however many files."""

    @property
    def files(self) -> tuple[Path, ...]: ...

    @property
    def modality(self) -> str:
        """ct or mri."""
        ...

    def look(self) -> tuple[int, tuple[str, ...]]:
        """Number of axial slices, and remarks, by the headers. Raises ValueError where volume and mask do not fit."""
        ...

    def read(self) -> tuple[Volume, np.ndarray | None]:
        """The volume and class indices of its shape, None without a mask. Raises ValueError."""
        ...


def read_one_label(files: tuple[Path, ...]) -> np.ndarray:
    """The mask in one file, as stored."""
    return read_label(files[0])


@dataclass(frozen=True)
class Source:
    """One image to prepare. ``folder``: imagesTr, imagesTs or imagesUn of the dataset.

    labels:       the files that make up the mask; none without a mask
    read_image:   file -> pixels, as `semgan.data.readers.read_image`
    read_label:   the mask's files -> int32 ``[height, width]``; top-level functions, which processes can share
    label_scales: the mask is published at another size than the image, and is resized to it (nearest neighbour)
    scan:         the volume that it is, or is a slice of
    """

    stem: str
    folder: str
    image: Path
    labels: tuple[Path, ...] = ()
    read_image: Callable[[Path], np.ndarray] = read_image
    read_label: Callable[[tuple[Path, ...]], np.ndarray] = read_one_label
    label_scales: bool = False
    scan: Scan | None = None

    @property
    def label(self) -> Path | None:
        """The mask's (first) file, None without a mask."""
        return self.labels[0] if self.labels else None


@dataclass(frozen=True)
class PlainFolders:
    """The folders of the command line, as given."""

    images: Path
    labels: Path
    unlabelled: Path | None
    test_images: Path | None
    test_labels: Path | None


@dataclass(frozen=True)
class WholeVolume:
    """A volume to test on, kept whole: ``volumes/COLLECTION/images/STEM.nii.gz`` and ``labels/STEM.nii.gz``."""

    stem: str
    collection: str
    scan: Scan


@dataclass
class Inventory:
    """All sources in the order of folder and stem, what the manifest says, and what is wrong so far.

    file_ending:       .png, or .tif, which keeps values of any kind (HU) as they are
    leaves_out_broken: unlabelled images that cannot be read are left out with a warning; else nothing is written
    unlabelled_px:     see `semgan.data.prepare.pictures.Conversion`
    counted_in:        column of the manifest that labels are counted in, None: in images
    """

    sources: list[Source] = field(default_factory=list)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    protocol: SplitProtocol | None = None
    volumes: list[WholeVolume] = field(default_factory=list)
    file_ending: str = ".png"
    leaves_out_broken: bool = False
    unlabelled_px: int | None = None
    counted_in: str | None = None


def take_inventory(folders: PlainFolders, manifest: Path | None) -> Inventory:
    """List and match everything; nothing is decoded. Problems are collected, not raised."""
    inventory = Inventory()
    read_manifest_into(inventory, manifest)
    labelled = _listed(inventory, folders.images, "--images", folders)
    masks = _listed(inventory, folders.labels, "--labels", folders)
    unlabelled = _listed(inventory, folders.unlabelled, "--unlabelled", folders)
    test_images = _listed(inventory, folders.test_images, "--test-images", folders)
    test_masks = _listed(inventory, folders.test_labels, "--test-labels", folders)
    match(inventory, folders, manifest, (labelled, masks), unlabelled, (test_images, test_masks))
    return inventory


def match(
    inventory: Inventory,
    folders: PlainFolders,
    manifest: Path | None,
    labelled: Pairs,
    bare: dict[str, Path],
    test: Pairs,
) -> None:
    """Add a source for every image, in order; ``labelled`` and ``test`` are images and masks by stem."""
    if folders.test_labels is not None and folders.test_images is None:
        inventory.problems.append("--test-labels is given without --test-images; give both.")
    _refuse_repeated_stems(inventory, {"--images": labelled[0], "--unlabelled": bare, "--test-images": test[0]})
    _add_labelled(inventory, *labelled, folders.labels)
    _add_test(inventory, *test, folders.test_labels)
    for stem, image in bare.items():
        _expect_set(inventory, stem, "unlabelled", image)
        inventory.sources.append(Source(stem, "imagesUn", image))
    _check_manifest_stems(inventory, manifest)
    inventory.sources.sort(key=lambda source: (source.folder, source.stem))


def _listed(inventory: Inventory, folder: Path | None, option: str, folders: PlainFolders) -> dict[str, Path]:
    """``{stem: file}`` of a folder and its sub-folders (a/b.png has the stem a__b), reporting what is no image."""
    if folder is None:
        return {}
    if not folder.is_dir():
        inventory.problems.append(f"{option}: {folder} is not a folder; check the path.")
        return {}
    is_wanted = is_mask if option.endswith("labels") else is_image
    others = {other.resolve() for other in vars(folders).values() if other is not None} - {folder.resolve()}
    found: dict[str, Path] = {}
    ignored: list[str] = []
    tree = walk(folder, lambda inner: inner.resolve() in others, hidden_files=True)
    for path in (path for _, files in tree for path in files):
        if _is_side_file(path.name):
            ignored.append(path.name)
        elif is_wanted(path):
            _take(inventory, found, stem_within(folder, path, image_stem(path)), path)
        elif (kind := dicom_kind(path)) is Kind.other:
            ignored.append(path.name)
        else:
            inventory.problems.append(_not_wanted(path, kind, option))
    if ignored:
        inventory.warnings.append(f"{option}: {len(ignored)} file(s) that are no images left out: {ignored[0]}, ...")
    if not found:
        inventory.problems.append(f"{option}: {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    return dict(sorted(found.items()))


def _take(inventory: Inventory, found: dict[str, Path], stem: str, path: Path) -> None:
    if stem in found:
        inventory.problems.append(f"{path} and {found[stem]} have the same stem '{stem}'; rename or remove one.")
    found.setdefault(stem, path)


def _is_side_file(name: str) -> bool:
    plain = name.lower()
    return plain.startswith(".") or plain in SIDE_NAMES or Path(plain).suffix in SIDE_SUFFIXES


def _not_wanted(path: Path, kind: Kind | None, option: str) -> str:
    if path.suffix.lower() in VOLUME_SUFFIXES or kind is Kind.slice:
        return f"{path} is a volume among pictures; give folders of one kind."
    what = f"a {kind}, which {option} does not take" if kind is not None else "no image"
    return f"{path} is {what} ({', '.join(IMAGE_SUFFIXES)} are read); move it out of the folder."


def _refuse_repeated_stems(inventory: Inventory, listed: dict[str, dict[str, Path]]) -> None:
    first_of: dict[str, Path] = {}
    for files in listed.values():
        for stem, path in files.items():
            if stem in first_of:
                inventory.problems.append(
                    f"{path} and {first_of[stem]} have the same stem '{stem}', and stems name cases; rename one "
                    "(or remove it, if it is the same picture)."
                )
            first_of.setdefault(stem, path)


def _set_of(inventory: Inventory, stem: str) -> str:
    return inventory.columns.get(stem, {}).get("set", "")


def _expect_set(inventory: Inventory, stem: str, expected: str, image: Path) -> None:
    named = _set_of(inventory, stem)
    if named not in ("", expected):
        inventory.problems.append(
            f"The manifest puts '{stem}' into '{named}', but {image} was given as {expected}; correct the manifest, or "
            "move the image."
        )


def _add_labelled(inventory: Inventory, images: dict[str, Path], masks: dict[str, Path], folder: Path) -> None:
    for stem, image in images.items():
        set_name = _set_of(inventory, stem)
        if set_name == "unlabelled":
            inventory.sources.append(Source(stem, "imagesUn", image))
            continue
        inventory.sources.append(
            Source(stem, "imagesTs" if set_name == "test" else "imagesTr", image, _found(masks, stem))
        )
    wanted = {stem: image for stem, image in images.items() if _set_of(inventory, stem) != "unlabelled"}
    cure = "Add the mask, or move the image to the --unlabelled folder."
    _refuse_unpaired(inventory, wanted, masks, folder, cure, known=images)


def _found(masks: dict[str, Path], stem: str) -> tuple[Path, ...]:
    return (masks[stem],) if stem in masks else ()


def _refuse_unpaired(
    inventory: Inventory,
    images: dict[str, Path],
    masks: dict[str, Path],
    folder: Path,
    cure: str,
    known: Collection[str],
) -> None:
    """Images without a mask, and masks whose stem is not ``known``; names that all differ in one way are told once.

    A folder without images or without masks has been told as such.
    """
    if not images or not masks:
        return
    bare = {stem: image for stem, image in images.items() if stem not in masks}
    lonely = {stem: mask for stem, mask in sorted(masks.items()) if stem not in known}
    if renamed := pairs_but_for_one_affix(list(bare), list(lonely)):
        where, of_image, of_mask, pairs = renamed
        stem, other = pairs[0]
        instead = f" in place of '{of_image}'" if of_image else ""
        inventory.problems.append(
            f"{len(pairs)} masks are named as their images but for '{of_mask}'{instead} at the {where}, such as "
            f"{lonely[other]} for {bare[stem]}. A mask needs its image's name (the ending .png aside): rename them."
        )
        bare = {stem: image for stem, image in bare.items() if stem not in dict(pairs)}
        lonely = {}
    for stem, image in bare.items():
        inventory.problems.append(f"{image} has no mask: {folder} has no file with the stem '{stem}'. {cure}")
    for stem, mask in lonely.items():
        inventory.problems.append(f"{mask} has no image with the stem '{stem}'; add it, or remove the mask.")


def pairs_but_for_one_affix(images: list[str], masks: list[str]) -> tuple[str, str, str, list[tuple[str, str]]] | None:
    """Where ("end", "beginning") every mask's stem differs from an image's, by what on either side, and the pairs.

    None where fewer than two masks are given, or where something else sets one of them apart.
    """
    if len(masks) < 2:
        return None
    for where, turn in (("end", 1), ("beginning", -1)):
        turned = {stem[::turn]: stem for stem in masks}
        of_mask, of_image = (_common_end([stem[::turn] for stem in stems]) for stems in (masks, images))
        for ending in dict.fromkeys(("", of_image)):
            heads = {stem[::turn].removesuffix(ending): stem for stem in images}
            found = {head: other for head in heads if (other := turned.get(head + of_mask)) is not None}
            if len(found) == len(masks):
                pairs = [(heads[head], other) for head, other in found.items()]
                return where, *_where_they_differ(ending[::turn], of_mask[::turn]), pairs
    return None


def _where_they_differ(one: str, other: str) -> tuple[str, str]:
    """Two texts without the beginning, and then without the end, that both have."""
    start = len(os.path.commonprefix([one, other]))
    one, other = one[start:], other[start:]
    end = len(_common_end([one, other]))
    return one[: len(one) - end], other[: len(other) - end]


def _common_end(names: list[str]) -> str:
    return os.path.commonprefix([name[::-1] for name in names])[::-1]


def _add_test(inventory: Inventory, images: dict[str, Path], masks: dict[str, Path], folder: Path | None) -> None:
    for stem, image in images.items():
        _expect_set(inventory, stem, "test", image)
        inventory.sources.append(Source(stem, "imagesTs", image, _found(masks, stem)))
    if images and folder is None:
        inventory.warnings.append("The test images have no masks (--test-labels); they can be segmented, not scored.")
    if folder is not None:
        _refuse_unpaired(inventory, images, masks, folder, "Add it.", known=images)


def read_manifest_into(inventory: Inventory, manifest: Path | None) -> None:
    """Take over the manifest's lines, where there is one."""
    if manifest is None:
        return
    if not manifest.is_file():
        inventory.problems.append(f"--manifest: {manifest} does not exist.")
        return
    try:
        inventory.columns = read_manifest(manifest)
    except (ValueError, OSError) as error:
        inventory.problems.append(str(error))


def _check_manifest_stems(inventory: Inventory, manifest: Path | None) -> None:
    stems = {source.stem for source in inventory.sources}
    unknown = [stem for stem in inventory.columns if stem not in stems]
    in_a_set = [stem for stem in unknown if _set_of(inventory, stem)]
    if in_a_set or (unknown and len(unknown) == len(inventory.columns)):
        names = in_a_set or unknown
        inventory.problems.append(
            f"{manifest} lists {len(names)} stem(s) that no folder has, such as '{names[0]}'; a stem is the file name "
            f"without its ending (sub-folders joined by '{JOINED}')."
        )
    elif unknown:
        inventory.warnings.append(f"{manifest}: {len(unknown)} stem(s) are in no folder, such as '{unknown[0]}'.")
