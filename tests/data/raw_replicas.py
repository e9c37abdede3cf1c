"""Tiny replicas of published downloads: right names of files and folders, bit depths and quirks, drawn pixels."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

SIZE = 32


def noise(seed: int, *shape: int, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape or (SIZE, SIZE), dtype=dtype)


def lungs(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Left and right lung as bool ``[size, size]``; the right one is on the left."""
    left, right = np.zeros((2, size, size), bool)
    quarter = size // 8
    right[2 * quarter : 6 * quarter, quarter : 3 * quarter] = True
    left[2 * quarter : 6 * quarter, 5 * quarter : 7 * quarter] = True
    return left, right


def chest(seed: int, size: int = SIZE, white: int = 255) -> np.ndarray:
    """A film with dark lungs, ``white`` the brightest value; uint8, or uint16 beyond 255."""
    left, right = lungs(size)
    film = np.where(left | right, 0.25, 0.8) + np.random.default_rng(seed).normal(0, 0.04, (size, size))
    return np.rint(np.clip(film, 0, 1) * white).astype(np.uint8 if white == 255 else np.uint16)


def put(file: Path, pixels: np.ndarray, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)
    return file


def put_palette(file: Path, shown: np.ndarray) -> Path:
    """A palette file whose index 0 is white, as some programs write masks."""
    picture = Image.fromarray((~shown).astype(np.uint8), "P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)
    return file


def write_jsrt(root: Path, count: int = 6, size: int = SIZE) -> tuple[Path, Path]:
    """JSRT as 16-bit PNG, every other one without nodule; SCR masks at twice their size, GIF with a palette."""
    for number in range(count):
        name = f"JPC{'LN'[number % 2]}N{number + 1:03d}"
        put(root / "JSRT/All247images" / f"{name}.png", chest(number, size, 4095))
        for side, shown in zip(("left lung", "right lung"), lungs(2 * size), strict=True):
            masks = root / "SCR/scratch" / f"fold{1 + number % 2}" / "masks" / side
            put_palette(masks / f"{name}.gif", shown)
        put(root / "SCR/scratch/fold1/masks/heart" / f"{name}.gif", np.full((size, size), 255, np.uint8))
    return root / "JSRT", root / "SCR"


def write_film(file: Path, dark_is_high: np.ndarray) -> Path:
    """A JSRT .IMG: big-endian uint16 without header."""
    file.parent.mkdir(parents=True, exist_ok=True)
    dark_is_high.astype(">u2").tofile(file)
    return file


def write_raw_jsrt(root: Path, size: int, count: int = 4) -> tuple[Path, Path]:
    """JSRT as .IMG of ``size`` px, air bright; SCR as landmarks for odd numbers, as PNG masks for even ones."""
    left, right = lungs(1024)
    for number in range(1, count + 1):
        name = f"JPC{'LN'[number % 2]}N{number:03d}"
        write_film(root / "All247images" / f"{name}.IMG", 4095 - chest(number, size, 4095).astype(int))
        scr = root / "SCR" / f"fold{2 - number % 2}"
        if number % 2:
            (scr / "landmarks").mkdir(parents=True, exist_ok=True)
            text = ["{"]
            for label, shown in (("right lung", right), ("left lung", left)):
                (top, bottom), (near, far) = (np.flatnonzero(shown.any(axis))[[0, -1]] for axis in (1, 0))
                corners = ((near, top), (far, top), (far, bottom), (near, bottom))
                text += [f"  {{ [Label={label}]", *(f"    {{ {x}.0, {y}.0 }}," for x, y in corners), "  },"]
            (scr / "landmarks" / f"{name}.pfs").write_text("\n".join([*text, "}"]))
        else:
            for side, shown in (("left lung", left), ("right lung", right)):
                put(scr / "masks" / side / f"{name}.png", shown.astype(np.uint8) * 255)
    return root / "All247images", root / "SCR"


def litter(root: Path) -> None:
    """What desktops, packers and publishers leave beside data."""
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "README.txt", "LICENSE.md", "checksums.csv", "._1.png"):
            (folder / name).write_bytes(b"\0not data")
        (folder / "__MACOSX").mkdir()
        (folder / "__MACOSX/._ISIC_0000000.jpg").write_bytes(b"\0resource fork")


def write_montgomery(root: Path, count: int = 2) -> Path:
    """8-bit films with one 1-bit mask per lung, and readings as text."""
    folder = root / "MontgomerySet"
    for number in range(count):
        name = f"MCUCXR_{number + 1:04d}_{number % 2}.png"
        put(folder / "CXR_png" / name, chest(10 + number))
        for side, shown in zip(("leftMask", "rightMask"), lungs(), strict=True):
            put(folder / "ManualMask" / side / name, shown)
    (folder / "ClinicalReadings").mkdir()
    (folder / "ClinicalReadings/MCUCXR_0001_0.txt").write_text("Patient's Sex: F\n")
    return folder


def write_shenzhen(root: Path, count: int = 2, without_mask: int = 1) -> Path:
    """RGB films with equal channels; the mask of the first is RGB, the others' grey with alpha."""
    folder = root / "ChinaSet_AllFiles"
    for number in range(count + without_mask):
        name = f"CHNCXR_{number + 1:04d}_0"
        put(folder / "CXR_png" / f"{name}.png", np.dstack([chest(20 + number)] * 3))
        mask = (lungs()[0] | lungs()[1]).astype(np.uint8) * 255
        planes = [mask] * 3 if number == 0 else [mask, np.full_like(mask, 255)]
        if number < count:
            put(folder / "mask" / f"{name}_mask.png", np.dstack(planes))
    return folder


def write_nih(root: Path, count: int = 2) -> Path:
    folder = root / "XLSor_data/data"
    for number in range(count):
        put(folder / f"NIH/images/0000000{number + 1}_001.png", chest(30 + number))
        put(folder / f"NIH/masks/0000000{number + 1}_001_mask.png", (lungs()[0] | lungs()[1]).astype(np.uint8) * 255)
    put(folder / "Augmentation/images/0001.png", chest(39))
    put(folder / "Augmentation/masks/0001.png", lungs()[0])
    return folder.parent


def write_chest14(root: Path, patients: int = 4) -> Path:
    """Two images per patient, some of them RGBA as published, and the table with one more that is not here."""
    folder = root / "ChestX-ray14"
    rows = []
    for patient in range(1, patients + 1):
        for follow_up in range(2):
            grey = chest(40 + 2 * patient + follow_up)
            rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
            name = f"{patient:08d}_{follow_up:03d}.png"
            put(folder / f"images_00{1 + follow_up}/images" / name, rgba if follow_up else grey)
            rows.append((name, patient))
    with open(folder / "Data_Entry_2017_v2020.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerows([("Image Index", "Patient ID"), *rows, ("00009999_000.png", 9999)])
    return folder


def lesion(seed: int, height: int, width: int) -> np.ndarray:
    """A filled rectangle, bool ``[height, width]``."""
    shown = np.zeros((height, width), bool)
    shown[height // 4 : height // 2 + seed % 3, width // 4 : width // 2 + 1] = True
    return shown


def write_isic2018(root: Path, count: int = 6) -> Path:
    """JPEG of several shapes, the first turned by EXIF; masks as shown to the annotator."""
    folder = root / "ISIC2018"
    for number in range(count):
        height, width = 24 + 2 * number, 32
        file = folder / "ISIC2018_Task1-2_Training_Input" / f"ISIC_{number:07d}.jpg"
        pixels, options = noise(number, height, width, 3), {}
        if number == 0:
            turned = Image.Exif()
            turned[ExifTags.Base.Orientation] = 6
            pixels, options = np.rot90(pixels), {"exif": turned}
        put(file, np.ascontiguousarray(pixels), **options)
        mask = lesion(number, height, width).astype(np.uint8) * 255
        put(folder / "ISIC2018_Task1_Training_GroundTruth" / f"ISIC_{number:07d}_segmentation.png", mask)
    (folder / "ISIC2018_Task1-2_Training_Input/LICENSE.txt").write_text("CC-0\n")
    return folder


def write_isic2017(root: Path) -> Path:
    """Three training pictures (0 to 2), superpixels among them, and one picture (90) of the test part."""
    folder = root / "ISIC-2017"
    for number, part in ((0, "Training"), (1, "Training"), (2, "Training"), (90, "Test_v2")):
        name = f"ISIC_{number:07d}"
        put(folder / f"ISIC-2017_{part}_Data" / f"{name}.jpg", noise(number, 24, 32, 3))
        put(folder / f"ISIC-2017_{part}_Data" / f"{name}_superpixels.png", noise(number, 24, 32, 3))
        mask = lesion(number, 24, 32).astype(np.uint8) * 255
        put(folder / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{name}_segmentation.png", mask)
    return folder


def write_isic2020(root: Path, numbers: range = range(4, 9)) -> Path:
    for number in numbers:
        put(root / "ISIC_2020_Training_JPEG/train" / f"ISIC_{number:07d}.jpg", noise(number, 20, 24, 3))
    return root / "ISIC_2020_Training_JPEG"


def write_ph2(root: Path, count: int = 2) -> Path:
    """Bitmaps, the masks of 1 bit, one folder per picture, masks of regions besides."""
    folder = root / "PH2Dataset/PH2 Dataset images"
    for number in range(2, 2 + count):
        name = f"IMD{number:03d}"
        put(folder / name / f"{name}_Dermoscopic_Image" / f"{name}.bmp", noise(number, 24, 32, 3))
        put(folder / name / f"{name}_lesion" / f"{name}_lesion.bmp", lesion(number, 24, 32))
        put(folder / name / f"{name}_roi" / f"{name}_R1_Label3.bmp", lesion(number, 24, 32))
    return root / "PH2Dataset"


def write_waterloo(root: Path) -> tuple[Path, Path]:
    """Two sets of two sources each, with the same numbers in both; masks grey, RGB or palette."""
    for number, kind in ((1, "melanoma"), (2, "notmelanoma")):
        for source in ("dermis", "dermquest"):
            folder = root / f"Skin Image Data Set-{number}/skin_data/{kind}/{source}"
            put(folder / "7_orig.jpg", noise(number, 24, 32, 3))
            shown = lesion(number, 24, 32)
            if source == "dermis":
                put(folder / "7_contour.png", np.dstack([shown.astype(np.uint8) * 255] * 3))
            else:
                put_palette(folder / "7_contour.png", shown)
    return root / "Skin Image Data Set-1", root / "Skin Image Data Set-2"


def write_celebamask(root: Path, count: int = 4) -> Path:
    """Faces with skin everywhere, a hat over hair over skin and a nose; masks at half of the images' size."""
    folder = root / "CelebAMask-HQ"
    boxes = {"skin": (0, 16), "nose": (6, 8), "hair": (0, 4), "hat": (0, 2), "l_eye": (4, 5), "cloth": (14, 16)}
    for number in range(count):
        put(folder / "CelebA-HQ-img" / f"{number}.jpg", noise(number, 32, 32, 3))
        for part, (top, bottom) in boxes.items():
            shown = np.zeros((16, 16, 3), np.uint8)
            shown[top:bottom] = 255
            put(folder / "CelebAMask-HQ-mask-anno" / str(number // 2000) / f"{number:05d}_{part}.png", shown)
    return folder


def write_metfaces(root: Path, classes: int, count: int = 2) -> Path:
    """PNG with label masks of a palette, showing every class."""
    folder = root / "metfaces40"
    for number in range(count):
        put(folder / "images" / f"{number:05d}-00.png", noise(number, SIZE, SIZE, 3))
        picture = Image.fromarray((np.arange(SIZE * SIZE) % classes).astype(np.uint8).reshape(SIZE, SIZE), "P")
        picture.putpalette(list(range(30, 30 + 3 * classes)))
        (folder / "masks").mkdir(exist_ok=True)
        picture.save(folder / "masks" / f"{number:05d}-00.png")
    return folder
