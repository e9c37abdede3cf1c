"""The data sets of the paper's four tasks: where each is published, under which terms, and how to get it.

An address or checksum stands here only where it is known to be right: CHAOS's MD5 is Zenodo's own, the ISIC sums were
recorded by several projects independently. ``None`` means that the publisher gives none.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Archive:
    """A published archive, and the folder of the data set into which it is unpacked."""

    url: str
    folder: str
    checksum: str | None = None  # "sha256:..." or "md5:..."
    size: int | None = None  # bytes


@dataclass(frozen=True)
class DataSet:
    """A published data set. ``steps`` are for people: all there is to do without ``archives``, what is left with them.

    about_gb: what is downloaded. layout: what the folder holds afterwards, and `semgan data prepare` reads.
    """

    name: str
    task: str  # of `semgan data prepare`
    title: str
    page: str
    licence: str
    citation: str
    layout: str
    about_gb: float | None
    archives: tuple[Archive, ...] = ()
    steps: tuple[str, ...] = ()

    @property
    def access(self) -> str:
        """``open``, ``partly`` (archives, then steps by hand) or ``gated`` (steps only)."""
        if not self.archives:
            return "gated"
        return "partly" if self.steps else "open"


_ISIC = "https://isic-challenge-data.s3.amazonaws.com/"
_ISIC_PAGE = "https://challenge.isic-archive.com/data/"
_ISIC_LICENCE = (
    "stated per year on the challenge page (CC0 1.0 or CC BY-NC 4.0) and in the archives' LICENSE.txt; treat as "
    "non-commercial where they do not tell, and attribute"
)
_NLM = "https://openi.nlm.nih.gov/imgs/collections/"
_NLM_PAGE = "https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html#tuberculosis-image-data-sets"
_NLM_LICENCE = "free for research and education by the terms of the U.S. National Library of Medicine; cite both papers"
_NLM_CITATION = (
    "Jaeger et al., Two public chest X-ray datasets for computer-aided screening of pulmonary diseases, QIMS 2014; "
    "Candemir et al., Lung segmentation in chest radiographs using anatomical atlases, IEEE TMI 2014"
)
_WATERLOO = (
    "https://uwaterloo.ca/vision-image-processing-lab/sites/ca.vision-image-processing-lab/files/uploads/files/"
)
_BOX = "https://nihcc.box.com/shared/static/"  # the list of the publisher's own batch_download_zips.py


SETS: dict[str, DataSet] = {
    item.name: item
    for item in (
        DataSet(
            name="jsrt",
            task="chest-xray",
            title="JSRT chest X-rays with SCR lung masks (247)",
            page="http://db.jsrt.or.jp/eng.php",
            licence="JSRT: free after registration; SCR: research and education, no redistribution, no commercial use",
            citation=(
                "Shiraishi et al., Development of a digital image database for chest radiographs, AJR 2000; "
                "van Ginneken et al., Segmentation of anatomical structures in chest radiographs, MedIA 2006"
            ),
            layout="*.IMG (2048 x 2048, 12 bit, big-endian) or PNG conversions; fold1/masks/left lung/*.gif, ...",
            about_gb=2.0,
            steps=(
                "Register at http://db.jsrt.or.jp/eng.php and download All247images.zip (JPCLN*.IMG, JPCNN*.IMG).",
                "Download the SCR masks (or landmarks) from https://zenodo.org/records/7056076, where they moved from "
                "https://www.isi.uu.nl/Research/Databases/SCR/.",
            ),
        ),
        DataSet(
            name="montgomery",
            task="chest-xray",
            title="NLM Montgomery County chest X-rays with left and right lung masks (138)",
            page=_NLM_PAGE,
            licence=_NLM_LICENCE,
            citation=_NLM_CITATION,
            layout="MontgomerySet/CXR_png/*.png, MontgomerySet/ManualMask/leftMask and rightMask",
            about_gb=0.6,
            archives=(Archive(_NLM + "NLM-MontgomeryCXRSet.zip", "MontgomerySet"),),
        ),
        DataSet(
            name="shenzhen",
            task="chest-xray",
            title="NLM Shenzhen Hospital chest X-rays (662), lung masks for 566",
            page=_NLM_PAGE,
            licence=_NLM_LICENCE + "; the masks have their own terms on their page",
            citation=(
                _NLM_CITATION + "; masks: Stirenko et al., Chest X-ray analysis of tuberculosis by deep learning with "
                "segmentation and augmentation, ELNANO 2018"
            ),
            layout="ChinaSet_AllFiles/CXR_png/*.png, mask/*_mask.png; images without mask are skipped and counted",
            about_gb=3.8,
            archives=(Archive(_NLM + "ChinaSet_AllFiles.zip", "ChinaSet_AllFiles"),),
            steps=(
                "Sign in at https://www.kaggle.com/yoctoman/shcxr-lung-mask and download the masks (*_mask.png).",
            ),
        ),
        DataSet(
            name="chestxray14",
            task="chest-xray",
            title="NIH ChestX-ray14, unlabelled pool (112,120)",
            page="https://nihcc.app.box.com/v/ChestXray-NIHCC",
            licence="free use; link the page, cite the paper, name the NIH Clinical Center as the data's provider",
            citation=(
                "Wang et al., ChestX-ray8: hospital-scale chest X-ray database and benchmarks on weakly-supervised "
                "classification and localization of common thorax diseases, CVPR 2017"
            ),
            layout="images_001 ... images_012 with *.png, Data_Entry_2017*.csv",
            about_gb=45.0,
            archives=tuple(
                Archive(f"{_BOX}{key}.gz", f"images_{number:03}")
                for number, key in enumerate(
                    (
                        "vfk49d74nhbxq3nqjg0900w5nvkorp5c",
                        "i28rlmbvmfjbl8p2n3ril0pptcmcu9d1",
                        "f1t00wrtdk94satdfb9olcolqx20z2jp",
                        "0aowwzs5lhjrceb3qp67ahp0rd1l1etg",
                        "v5e3goj22zr6h8tzualxfsqlqaygfbsn",
                        "asi7ikud9jwnkrnkj99jnpfkjdes7l6l",
                        "jn1b4mw4n6lnh74ovmcjb8y48h8xj07n",
                        "tvpxmn7qyrgl0w8wfh9kqfjskv6nmm1j",
                        "upyy3ml7qdumlgk2rfcvlb9k6gvqq2pj",
                        "l6nilvfa9cg3s28tqv1qc1olm3gnz54p",
                        "hhq8fkdgvcari67vfhs7ppg2w6ni4jze",
                        "ioqwiy20ihqwyr8pf4c24eazhh281pbu",
                    ),
                    start=1,
                )
            ),
            steps=("Download Data_Entry_2017_v2020.csv from the page into the folder: it names the patients.",),
        ),
        DataSet(
            name="xlsor",
            task="chest-xray",
            title="NIH chest X-rays with lung masks of XLSor (100)",
            page="https://github.com/rsummers11/CADLab/tree/master/Lung_Segmentation_XLSor",
            licence="as stated on the page; the images are ChestX-ray14's",
            citation=(
                "Tang et al., XLSor: a robust and accurate lung segmentor on chest X-rays using criss-cross attention "
                "and customized radiorealistic abnormalities generation, MIDL 2019"
            ),
            layout="XLSor_data/data/NIH/images/*.png and NIH/masks/*_mask.png; its folder Augmentation is left alone",
            about_gb=None,
            steps=(
                "Open https://nihcc.box.com/s/r8kf5xcthjvvvf6r7l1an99e1nj4080m (the page links it); download the data.",
            ),
        ),
        DataSet(
            name="isic2017",
            task="skin",
            title="ISIC 2017 part 1: dermoscopy with lesion masks (2000 / 150 / 600)",
            page=_ISIC_PAGE + "#2017",
            licence=_ISIC_LICENCE,
            citation="Codella et al., Skin lesion analysis toward melanoma detection (ISBI 2017, ISIC), ISBI 2018",
            layout="ISIC-2017_*_Data/ISIC_*.jpg, ISIC-2017_*_Part1_GroundTruth/ISIC_*_segmentation.png",
            about_gb=None,
            archives=(
                Archive(
                    _ISIC + "2017/ISIC-2017_Training_Data.zip",
                    "ISIC-2017_Training_Data",
                    "md5:a14a7e622c67a358797ae59abb8a0b0c",
                ),
                Archive(
                    _ISIC + "2017/ISIC-2017_Training_Part1_GroundTruth.zip",
                    "ISIC-2017_Training_Part1_GroundTruth",
                    "md5:77fdbeb6fbec4139937224416b250f4c",
                ),
                Archive(
                    _ISIC + "2017/ISIC-2017_Validation_Data.zip",
                    "ISIC-2017_Validation_Data",
                    "md5:8d6419d942112f709894c0d82f6c9038",
                ),
                Archive(
                    _ISIC + "2017/ISIC-2017_Validation_Part1_GroundTruth.zip",
                    "ISIC-2017_Validation_Part1_GroundTruth",
                    "md5:64d3e68fa2deeb8a5e89aa8dec2efd44",
                ),
                Archive(
                    _ISIC + "2017/ISIC-2017_Test_v2_Data.zip",
                    "ISIC-2017_Test_v2_Data",
                    "md5:5f6a0b5e1f2972bd1f5ea02680489f09",
                ),
                Archive(
                    _ISIC + "2017/ISIC-2017_Test_v2_Part1_GroundTruth.zip",
                    "ISIC-2017_Test_v2_Part1_GroundTruth",
                    "md5:b1742de6bd257faca3b2b21a4aa3b781",
                ),
            ),
        ),
        DataSet(
            name="isic2018",
            task="skin",
            title="ISIC 2018 task 1: dermoscopy with lesion masks (2594)",
            page=_ISIC_PAGE + "#2018",
            licence=_ISIC_LICENCE,
            citation=(
                "Codella et al., Skin lesion analysis toward melanoma detection 2018 (ISIC), arXiv:1902.03368; "
                "Tschandl et al., The HAM10000 dataset, Scientific Data 2018"
            ),
            layout=(
                "ISIC2018_Task1-2_Training_Input/ISIC_*.jpg, "
                "ISIC2018_Task1_Training_GroundTruth/ISIC_*_segmentation.png"
            ),
            about_gb=11.2,
            archives=(
                Archive(
                    _ISIC + "2018/ISIC2018_Task1-2_Training_Input.zip",
                    "ISIC2018_Task1-2_Training_Input",
                    "sha256:80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
                    11_165_358_566,
                ),
                Archive(
                    _ISIC + "2018/ISIC2018_Task1_Training_GroundTruth.zip",
                    "ISIC2018_Task1_Training_GroundTruth",
                    "sha256:99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
                    27_402_895,
                ),
            ),
        ),
        DataSet(
            name="isic2020",
            task="skin",
            title="ISIC 2020 (SIIM-ISIC), unlabelled dermoscopy (33,126)",
            page="https://challenge2020.isic-archive.com/",
            licence="CC BY-NC 4.0, with attribution to the contributing hospitals",
            citation=(
                "Rotemberg et al., A patient-centric dataset of images and metadata for identifying melanomas using "
                "clinical context, Scientific Data 2021; doi:10.34970/2020-ds01"
            ),
            layout="train/ISIC_*.jpg",
            about_gb=23.0,
            archives=(Archive(_ISIC + "2020/ISIC_2020_Training_JPEG.zip", "train"),),
        ),
        DataSet(
            name="ph2",
            task="skin",
            title="PH2 dermoscopy with lesion masks (200)",
            page="https://www.fc.up.pt/addi/ph2%20database.html",
            licence="research and education only, no redistribution",
            citation="Mendonca et al., PH2 - a dermoscopic image database for research and benchmarking, EMBC 2013",
            layout="PH2 Dataset images/IMD*/IMD*_Dermoscopic_Image/*.bmp and IMD*_lesion/*_lesion.bmp",
            about_gb=None,
            steps=(
                "Ask for the download on https://www.fc.up.pt/addi/ph2%20database.html (a short form).",
                "Unpack PH2Dataset.rar by hand (7-Zip, unar: `semgan data unpack` takes no RAR); keep its folder tree.",
            ),
        ),
        DataSet(
            name="dermis-dermquest",
            task="skin",
            title="DermIS (69) and DermQuest (98+) photographs with lesion masks, University of Waterloo",
            page="https://uwaterloo.ca/vision-image-processing-lab/research-demos/skin-cancer-detection",
            licence="as stated on the page; the photographs belong to DermIS and DermQuest: research only",
            citation=(
                "Glaister, Wong, Clausi, Segmentation of skin lesions from digital images using joint statistical "
                "texture distinctiveness, IEEE TBME 2014"
            ),
            layout="Skin Image Data Set-*/.../*_orig.jpg and *_contour.png",
            about_gb=None,
            archives=tuple(
                Archive(f"{_WATERLOO}skin_image_data_set-{number}.zip", f"skin_image_data_set-{number}")
                for number in (1, 2)
            ),
        ),
        DataSet(
            name="lits17",
            task="liver",
            title="LiTS17 abdominal CT with liver and tumour masks (131), without (70)",
            page="https://competitions.codalab.org/competitions/17094",
            licence="the challenge's terms, shown at registration; non-commercial",
            citation="Bilic et al., The liver tumor segmentation benchmark (LiTS), MedIA 2023",
            layout="volume-N.nii and segmentation-N.nii for N = 0 ... 130; test-volume-N.nii for N = 0 ... 69",
            about_gb=None,
            steps=(
                "Register at https://competitions.codalab.org/competitions/17094, accept the terms of the challenge.",
                "Under 'Participate', download both training batches and the test data.",
            ),
        ),
        DataSet(
            name="chaos",
            task="liver",
            title="CHAOS abdominal CT (20) and MRI (20) with organ masks",
            page="https://zenodo.org/records/3431873",
            licence="CC BY-NC-SA 4.0",
            citation=(
                "Kavur et al., CHAOS challenge - combined (CT-MR) healthy abdominal organ segmentation, MedIA 2021; "
                "doi:10.5281/zenodo.3431873"
            ),
            layout="Train_Sets/MR/N/T1DUAL/DICOM_anon/InPhase and OutPhase (*.dcm), .../T1DUAL/Ground (*.png)",
            about_gb=0.9,
            archives=(
                Archive(
                    "https://zenodo.org/records/3431873/files/CHAOS_Train_Sets.zip",
                    "Train_Sets",
                    "md5:df21053002a1cc86df918a87da3b2c19",
                    890_771_694,
                ),
            ),
        ),
        DataSet(
            name="celebamask-hq",
            task="faces",
            title="CelebAMask-HQ faces with masks of 19 classes (30,000)",
            page="https://github.com/switchablenorms/CelebAMask-HQ",
            licence="non-commercial research and education only, no redistribution",
            citation="Lee et al., MaskGAN: towards diverse and interactive facial image manipulation, CVPR 2020",
            layout="CelebA-HQ-img/N.jpg, CelebAMask-HQ-mask-anno/M/NNNNN_PART.png, CelebA-HQ-to-CelebA-mapping.txt",
            about_gb=None,
            steps=(
                "Open https://github.com/switchablenorms/CelebAMask-HQ, section 'Downloads', and follow a link there.",
                "If CelebAMask-HQ.zip asks for a password, unpack it by hand; the form on that page gives it.",
            ),
        ),
        DataSet(
            name="metfaces",
            task="faces",
            title="MetFaces, faces in works of art (1336)",
            page="https://github.com/NVlabs/metfaces-dataset",
            licence="CC BY-NC 2.0 by NVIDIA Corporation (the pictures of the Metropolitan Museum of Art are CC0)",
            citation="Karras et al., Training generative adversarial networks with limited data, NeurIPS 2020",
            layout="images/NNN-NN.png; no masks: these are metfaces40",
            about_gb=1.6,
            steps=(
                "Open https://github.com/NVlabs/metfaces-dataset and follow its Google Drive link 'images' (1.6 GB).",
            ),
        ),
        DataSet(
            name="metfaces40",
            task="faces",
            title="MetFaces-40, the paper's own masks of 8 classes for 40 of MetFaces",
            page="https://github.com/nv-tlabs/semanticGAN_code#dataset",
            licence="CC BY-NC 4.0 by NVIDIA Corporation",
            citation="Li, Yang, Kreis, Torralba, Fidler, Semantic segmentation with generative models, CVPR 2021",
            layout="images and their label masks (values 0 to 7) in two folders beside each other: image(s), label(s)",
            about_gb=None,
            steps=("Open the page, section 'Dataset', and follow its Google Drive link; download images and masks.",),
        ),
    )
}


def find(name: str) -> DataSet:
    """The data set of that name. Raises ValueError with a suggestion."""
    if name in SETS:
        return SETS[name]
    close = get_close_matches(name.lower(), SETS, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise ValueError(f"No data set is called {name!r}. {hint}Known: {', '.join(SETS)}.")


def table() -> str:
    """The sets as a Markdown table, as docs/data-sets.md shows them."""
    lines = ["| name | task | what | size | access | licence |", "|---|---|---|---|---|---|"]
    for item in SETS.values():
        size = f"{item.about_gb:g} GB" if item.about_gb else "?"
        cells = (f"`{item.name}`", item.task, f"[{item.title}]({item.page})", size, item.access, item.licence)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
