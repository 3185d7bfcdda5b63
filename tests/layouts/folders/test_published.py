"""Data sets as their publishers hand them out, by the names of their files: nobody has to rename any.

The names are those of the public data sets; what lies in them is made here.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.base.errors import ConfigError, DataError
from pipeline.base.machine import Runtime
from pipeline.dataset.checks.check_dataset import find_faults
from pipeline.layouts.folders.read_folders import read
from pipeline.layouts.folders.split_images_and_labels import FilePatterns
from pipeline.layouts.init.init_dataset import init_dataset
from tests.layouts.small_layouts import AFFINE, SHAPE, image, label

MASKS = ("aorta", "liver", "spleen")


def kits23(folder, i):
    image(folder / f"dataset/case_{i:05d}/imaging.nii.gz")
    label(folder / f"dataset/case_{i:05d}/segmentation.nii.gz", 1, 2)
    for annotation in (1, 2, 3):
        label(folder / f"dataset/case_{i:05d}/instances/kidney_instance-1_annotation-{annotation}.nii.gz")


def brats20(folder, i):
    for channel in ("flair", "t1", "t1ce", "t2"):
        image(folder / f"BraTS20_Training_{i:03d}/BraTS20_Training_{i:03d}_{channel}.nii.gz")
    label(folder / f"BraTS20_Training_{i:03d}/BraTS20_Training_{i:03d}_seg.nii.gz", 1, 2)


def brats23(folder, i):
    for channel in ("t1c", "t1n", "t2f", "t2w"):
        image(folder / f"BraTS-GLI-{i:05d}-000/BraTS-GLI-{i:05d}-000-{channel}.nii.gz")
    label(folder / f"BraTS-GLI-{i:05d}-000/BraTS-GLI-{i:05d}-000-seg.nii.gz", 1, 2)


def lits(folder, i):
    image(folder / f"volume-{i}.nii")
    label(folder / f"segmentation-{i}.nii", 1, 2)


def acdc(folder, i):
    place = folder / f"patient{i:03d}"
    for frame in ("01", "12"):
        image(place / f"patient{i:03d}_frame{frame}.nii.gz")
        label(place / f"patient{i:03d}_frame{frame}_gt.nii.gz", 1, 2)
    film = np.random.default_rng(i).normal(size=(*SHAPE, 5)).astype(np.float32)
    nib.save(nib.Nifti1Image(film, AFFINE), place / f"patient{i:03d}_4d.nii.gz")


def mmwhs(folder, i):
    image(folder / f"ct_train/ct_train_{1000 + i}_image.nii.gz")
    label(folder / f"ct_train/ct_train_{1000 + i}_label.nii.gz", 1, 2)


def btcv(folder, i):
    image(folder / f"Training/img/img{i:04d}.nii.gz")
    label(folder / f"Training/label/label{i:04d}.nii.gz", 1, 2)


def word(folder, i):
    for part, number in (("Tr", i), ("Val", i + 10)):
        image(folder / f"images{part}/word_{number:04d}.nii.gz")
        label(folder / f"labels{part}/word_{number:04d}.nii.gz", 1, 2)
    image(folder / f"imagesTs/word_{i + 20:04d}.nii.gz")


def pancreas_ct(folder, i):
    image(folder / f"data/PANCREAS_{i:04d}.nii.gz")
    label(folder / f"TCIA_pancreas_labels-02-05-2017/label{i:04d}.nii.gz", 1, 2)


def crossmoda(folder, i):
    for channel in ("ceT1", "hrT2"):
        image(folder / f"training_source/crossmoda_{i}_{channel}.nii.gz")
    label(folder / f"training_source/crossmoda_{i}_Label.nii.gz", 1, 2)


def picai(folder, i):
    for channel in ("adc", "hbv", "t2w"):
        image(folder / f"images/{10000 + i}/{10000 + i}_{1000000 + i}_{channel}.nii.gz")
    label(folder / f"labels/csPCa/human_expert/resampled/{10000 + i}_{1000000 + i}.nii.gz", 1, 2)


def autopet(folder, i):
    for channel in ("CTres", "SUV"):
        image(folder / f"PETCT_{i:04x}/0{i}-01-2005-NA-PET-CT whole-1234/{channel}.nii.gz")
    label(folder / f"PETCT_{i:04x}/0{i}-01-2005-NA-PET-CT whole-1234/SEG.nii.gz", 1, 2)


def abdomenatlas(folder, i):
    image(folder / f"BDMAP_{i:08d}/ct.nii.gz")
    label(folder / f"BDMAP_{i:08d}/combined_labels.nii.gz", 1, 2, 3)
    for name in MASKS:
        mask(folder / f"BDMAP_{i:08d}/segmentations/{name}.nii.gz")


def segrap2023(folder, i):
    """No word says what is a mask."""
    for name in ("image", "image_contrast"):
        image(folder / f"segrap_{i:04d}/{name}.nii.gz")
    for name in MASKS:
        mask(folder / f"segrap_{i:04d}/{name}.nii.gz")


def lasc2018(folder, i):
    image(folder / f"Training Set/{chr(64 + i)}XYZ/lgemri.nii.gz")
    label(folder / f"Training Set/{chr(64 + i)}XYZ/laendo.nii.gz", 1, 2)


def two_folders(folder, i):
    image(folder / f"x/c{i}.nii.gz")
    label(folder / f"y/c{i}.nii.gz", 1, 2)


def by_structure(folder, i):
    image(folder / f"images/p{i}.nii.gz")
    for name in MASKS:
        mask(folder / f"labels/{name}/p{i}.nii.gz")


def flat(folder, i):
    image(folder / f"p{i}_ct.nii.gz")
    for name in MASKS:
        mask(folder / f"p{i}_{name}_mask.nii.gz")


def isles22(folder, i):
    """Diffusion and its ADC map on the grid of the label map, FLAIR on another; a diffusion series is no image."""
    case, session = f"sub-strokecase{i:04d}", "ses-0001"
    for channel in ("adc", "dwi"):
        image(folder / f"{case}/{session}/dwi/{case}_{session}_{channel}.nii.gz")
    image(folder / f"{case}/{session}/dwi/{case}_{session}_series.nii.gz", channels=3)
    flair = image(folder / f"{case}/{session}/anat/{case}_{session}_FLAIR.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(nib.load(flair).dataobj), 1.1 * AFFINE), flair)
    label(folder / f"derivatives/{case}/{session}/{case}_{session}_msk.nii.gz", 1, 2)


def spider(folder, i):
    """Two series of a person, each with its own label map."""
    for series in ("t1", "t2", *(["t2_SPACE"] if i == 1 else [])):
        image(folder / f"images/{i}_{series}.nii.gz")
        label(folder / f"masks/{i}_{series}.nii.gz", 1, 2)


def wmh(folder, i):
    """No word says which file is the label map, which lies above the images."""
    place = folder / ("Utrecht" if i == 1 else "Amsterdam/GE3T") / f"{100 + i}"
    for channel in ("FLAIR", "T1"):
        image(place / f"pre/{channel}.nii.gz")
    label(place / "wmh.nii.gz", 1, 2)


def atlas2(folder, i):
    person, session = f"sub-r00{i}s00{i}", "ses-1"
    stem = folder / f"Training/R00{i}/{person}/{session}/anat/{person}_{session}_space-MNI152NLin2009aSym"
    image(Path(f"{stem}_T1w.nii.gz"))
    label(Path(f"{stem}_label-L_desc-T1lesion_mask.nii.gz"), 1, 2)


def asoca(folder, i):
    for group in ("Normal", "Diseased"):
        image(folder / f"{group}/CTCA/{group}_{i}.nii.gz")
        label(folder / f"{group}/Annotations/{group}_{i}.nii.gz", 1, 2)


def ctpelvic1k(folder, i):
    image(folder / f"dataset6_CLINIC_{i:04d}_data.nii.gz")
    label(folder / f"dataset6_CLINIC_{i:04d}_mask_4label.nii.gz", 1, 2)


def myops(folder, i):
    for channel in ("C0", "DE", "T2"):
        image(folder / f"train25/myops_training_{100 + i}_{channel}.nii.gz")
    label(folder / f"train25_myops_gd/myops_training_{100 + i}_gd.nii.gz", 1, 2)


def calgary(folder, i):
    image(folder / f"Original/CC{i:04d}_philips_15_55_M.nii.gz")
    label(folder / f"STAPLE/CC{i:04d}_philips_15_55_M_staple.nii.gz", 1, 2)


def hecktor(folder, i):
    for channel in ("CT", "PT"):
        image(folder / f"imagesTr/CHUM-{i:03d}__{channel}.nii.gz")
    label(folder / f"labelsTr/CHUM-{i:03d}.nii.gz", 1, 2)


def ibsr(folder, i):
    """A second label map, of whose name no word says so."""
    case = folder / f"IBSR_{i:02d}"
    for channel in ("ana", "ana_strip"):
        image(case / f"{case.name}_{channel}.nii.gz")
    label(case / f"{case.name}_segTRI_ana.nii.gz", 1, 2, 3)
    label(case / f"{case.name}_seg_ana.nii.gz", 1, 2)


def acdc_systole(folder, i):
    """One labelled frame of each film."""
    acdc(folder, i)
    for path in (folder / f"patient{i:03d}").glob("*frame12*"):
        path.unlink()


def lumiere(folder, i):
    for week in ("000", "010"):
        for channel in ("CT1", "FLAIR"):
            image(folder / f"Patient-{i:03d}/week-{week}/{channel}.nii.gz")
        label(folder / f"Patient-{i:03d}/week-{week}/seg.nii.gz", 1, 2)


def two_versions(folder, i):
    """As the WMH challenge has it in all: images as they were, and as they were prepared."""
    for version in ("orig", "pre"):
        for channel in ("FLAIR", "T1"):
            image(folder / f"Utrecht/{i}/{version}/{channel}.nii.gz")
    label(folder / f"Utrecht/{i}/wmh.nii.gz", 1, 2)


def msseg(folder, i):
    case = folder / f"Center_{i % 2}/Patient_{i // 2:02d}"
    for channel in ("FLAIR", "T1"):
        image(case / f"Raw_Data/{channel}.nii.gz")
        image(case / f"Preprocessed_Data/{channel}_preprocessed.nii.gz")
    for name in ("Consensus", "ManualSegmentation_1", "ManualSegmentation_2"):
        label(case / f"Masks/{name}.nii.gz", 1, 2)


def kits21(folder, i):
    image(folder / f"case_{i:05d}/imaging.nii.gz")
    for way in ("AND", "MAJ", "OR"):
        label(folder / f"case_{i:05d}/aggregated_{way}_seg.nii.gz", 1, 2)
    for annotation in (1, 2, 3):
        label(folder / f"case_{i:05d}/segmentations/kidney_instance-1_annotation-{annotation}.nii.gz")


def ucsf_pdgm(folder, i):
    case = folder / f"UCSF-PDGM-{i:04d}_nifti/UCSF-PDGM-{i:04d}"
    for channel in ("FLAIR", "T1"):
        image(Path(f"{case}_{channel}.nii.gz"))
    label(Path(f"{case}_brain_segmentation.nii.gz"))
    label(Path(f"{case}_tumor_segmentation.nii.gz"), 1, 2)


def mama_mia(folder, i):
    for phase in (0, 1):
        image(folder / f"images/DUKE_{i:03d}/duke_{i:03d}_{phase:04d}.nii.gz")
    for who in ("automatic", "expert"):
        label(folder / f"segmentations/{who}/duke_{i:03d}.nii.gz", 1, 2)


def mask(path: Path) -> None:
    """Each structure its own plane, so that none shares a voxel with another."""
    array = np.zeros(SHAPE, np.uint8)
    array[next(i for i, name in enumerate(MASKS) if name in str(path))] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, AFFINE), path)


PUBLISHED = [
    (kits23, "case_00001", "case_00001", ["image"], 3),
    (brats20, "BraTS20_Training_001", "BraTS20_Training_001", ["flair", "t1", "t1ce", "t2"], 3),
    (brats23, "BraTS-GLI-00001-000", "BraTS-GLI-00001", ["t1c", "t1n", "t2f", "t2w"], 3),
    (lits, "volume-1", "volume-1", ["image"], 3),
    (acdc, "patient001_frame01", "patient001", ["image"], 6),
    (mmwhs, "ct_train_1001_image", "ct_train_1001_image", ["image"], 3),
    (btcv, "img0001", "img0001", ["image"], 3),
    (word, "word_0001", "word_0001", ["image"], 6),
    (pancreas_ct, "PANCREAS_0001", "PANCREAS_0001", ["image"], 3),
    (crossmoda, "crossmoda_1", "crossmoda_1", ["ceT1", "hrT2"], 3),
    (picai, "10001_1000001", "10001", ["adc", "hbv", "t2w"], 3),
    (lasc2018, "AXYZ", "AXYZ", ["image"], 3),
    (two_folders, "c1", "c1", ["image"], 3),
    (isles22, "sub-strokecase0001_ses-0001", "sub-strokecase0001", ["adc", "dwi", "FLAIR"], 3),
    (autopet, "01-01-2005-NA-PET-CT whole-1234", "01-01-2005-NA-PET-CT whole-1234", ["CTres", "SUV"], 3),
    (spider, "1_t1", "1", ["image"], 7),
    (wmh, "102", "102", ["FLAIR", "T1"], 3),
    (atlas2, "sub-r001s001", "sub-r001s001", ["image"], 3),
    (asoca, "Diseased_1", "Diseased_1", ["image"], 6),
    (ctpelvic1k, "dataset6_CLINIC_0001_data", "dataset6_CLINIC_0001_data", ["image"], 3),
    (myops, "myops_training_101", "myops_training_101", ["C0", "DE", "T2"], 3),
    (calgary, "CC0001_philips_15_55_M", "CC0001_philips_15_55_M", ["image"], 3),
    (hecktor, "CHUM-001", "CHUM-001", ["CT", "PT"], 3),
    (ibsr, "IBSR_01", "IBSR_01", ["ana", "ana_strip"], 3),
    (acdc_systole, "patient001", "patient001", ["image"], 3),
    (lumiere, "Patient-001_week-000", "Patient-001", ["CT1", "FLAIR"], 6),
]


@pytest.mark.parametrize(("made", "case", "subject", "channels", "count"), PUBLISHED)
def test_a_label_map_a_case(tmp_path, made, case, subject, channels, count):
    for i in (1, 2, 3):
        made(tmp_path / "data", i)
    dataset = init_dataset(tmp_path / "data", tmp_path / "mine.yaml").dataset
    training = [each for each in dataset.cases if each.split == "training"]
    assert (training[0].id, training[0].subject) == (case, subject)
    assert [channel.name for channel in dataset.channels] == channels
    assert len(training) == count
    assert all(each.label and len(each.images) == len(channels) for each in training)
    assert dict(dataset.labels) == {"label_1": 1, "label_2": 2}


@pytest.mark.parametrize(
    ("made", "said", "chosen", "case", "channels"),
    [
        (two_versions, "orig/FLAIR.nii.gz, .*--image-files", FilePatterns(None, "/pre/"), "1", ["FLAIR", "T1"]),
        (
            msseg,
            r"3 label maps by several people \(Consensus, Manual.*--label-files '\*/Consensus\.nii\.gz'",
            FilePatterns("Consensus", "Preprocessed_Data"),
            "Center_0_Patient_01",
            ["FLAIR_preprocessed", "T1_preprocessed"],
        ),
        (
            kits21,
            r"--label-files '\*/aggregated_AND_seg\.nii\.gz'",
            FilePatterns("aggregated_MAJ_seg"),
            "case_00001",
            ["image"],
        ),
        (
            ucsf_pdgm,
            r"--label-files '\*_tumor_segmentation\.nii\.gz'",
            FilePatterns("*_tumor_segmentation.*"),
            "UCSF-PDGM-0001_nifti",
            ["FLAIR", "T1"],
        ),
        (
            mama_mia,
            "no label map has .*--label-files",
            FilePatterns("/expert/"),
            "duke_001",
            ["channel_0", "channel_1"],
        ),
    ],
)
def test_where_several_files_may_be_meant_the_user_says_which(tmp_path, made, said, chosen, case, channels):
    """Which of several people's label maps, or versions of images, is never guessed; saying so is an option."""
    for i in (1, 2, 3):
        made(tmp_path / "data", i)
    with pytest.raises(DataError, match=f"(?s){said}"):
        init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml", chosen=chosen)
    assert result.dataset.cases[0].id == case and len(result.dataset.cases) == 3
    assert [channel.name for channel in result.dataset.channels] == channels
    assert all(each.label and len(each.images) == len(channels) for each in result.dataset.cases)
    assert dict(result.dataset.labels) == {"label_1": 1, "label_2": 2}
    assert "files that are neither of what is named are left out" in result.message


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (
            FilePatterns("nowhere"),
            "--label-files 'nowhere' is in no file's path below .*; there are case_00001/aggregated",
        ),
        (FilePatterns("MAJ_seg", "case_*"), "aggregated_MAJ_seg.nii.gz is named by --image-files and by --label-files"),
    ],
)
def test_a_choice_that_fits_no_file_or_one_twice_is_refused(tmp_path, chosen, said):
    kits21(tmp_path / "data", 1)
    with pytest.raises(ConfigError, match=said):
        init_dataset(tmp_path / "data", tmp_path / "mine.yaml", chosen=chosen)


def test_a_choice_is_for_plain_folders(tmp_path):
    kits21(tmp_path / "data", 1)
    with pytest.raises(ConfigError, match="--label-files and --image-files are for plain folders"):
        init_dataset(tmp_path / "data", tmp_path / "mine.yaml", format="bids", chosen=FilePatterns("MAJ_seg"))


def test_an_image_of_few_values_is_a_channel_where_the_user_says_so(tmp_path):
    for i in (1, 2, 3):
        ibsr(tmp_path / "data", i)
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert "segTRI_ana: label maps by their voxels, though not by their name; left out of the images" in result.message
    chosen = init_dataset(tmp_path / "data", tmp_path / "mine.yaml", chosen=FilePatterns(None, "*strip*,segTRI"))
    assert [channel.name for channel in chosen.dataset.channels] == ["ana_strip", "segTRI_ana"]


def test_series_of_one_person_are_of_one_subject(tmp_path):
    for i in (1, 2):
        spider(tmp_path, i)
    assert {case.id: case.subject for case in read(tmp_path).cases} == {
        "1_t1": "1", "1_t2": "1", "1_t2_SPACE": "1", "2_t1": "2", "2_t2": "2"
    }  # fmt: skip


@pytest.mark.parametrize("made", [abdomenatlas, segrap2023, by_structure, flat])
def test_a_mask_per_structure(tmp_path, made):
    for i in (1, 2, 3):
        made(tmp_path / "data", i)
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert dict(result.dataset.labels) == {name: i for i, name in enumerate(MASKS, start=1)}
    assert len(result.dataset.cases) == 3 and not result.problems
    assert ("combined holds the structures that have masks of their own" in result.message) == (made is abdomenatlas)


@pytest.mark.parametrize(
    ("made", "said"),
    [(segrap2023, "aorta (3 files), liver (3 files), spleen (3 files)"), (two_folders, "y/ (3 files)")],
)
def test_label_maps_that_only_their_values_give_away_are_said(tmp_path, made, said):
    for i in (1, 2, 3):
        made(tmp_path, i)
    (note,) = [note for note in read(tmp_path).notes if note.startswith("no name says which files are label maps")]
    assert note.endswith(f"by their voxels (few values, or areas of one value): {said}")


def test_what_is_left_out_is_said(tmp_path):
    for i in (1, 2, 3):
        kits23(tmp_path / "kits", i)
        acdc(tmp_path / "acdc", i)
    (note,) = [note for note in read(tmp_path / "kits").notes if "left out" in note]
    assert note.startswith("9 files lie below the folders of cases, such as dataset/case_00001/instances/kidney")
    result = init_dataset(tmp_path / "acdc", tmp_path / "mine.yaml")
    assert "patient001_4d.nii.gz, patient002_4d.nii.gz, patient003_4d.nii.gz: not 1 volume(s)" in result.message


def test_channels_of_the_labels_grid_come_first_and_the_way_for_the_others_is_said(tmp_path):
    for i in (1, 2, 3):
        isles22(tmp_path / "data", i)
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert "FLAIR: not on the grid of the label maps; load.resample_channels: true brings it there" in result.message
    assert [Path(name).name.split("_")[-1] for name in result.dataset.cases[2].images] == [
        "adc.nii.gz",
        "dwi.nii.gz",
        "FLAIR.nii.gz",
    ]
    root = result.manifest.parent / result.dataset.root
    faults = find_faults(result.dataset, root, Runtime(executor="serial"), resample_channels=True)
    assert not [fault for fault in faults if fault.severity == "fatal"]


def test_validation_is_declared_by_a_folder(tmp_path):
    for i in (1, 2, 3):
        word(tmp_path / "data", i)
    dataset = init_dataset(tmp_path / "data", tmp_path / "mine.yaml").dataset
    folds = {case.id: case.fold for case in dataset.cases if case.split == "training"}
    assert folds == {f"word_{i:04d}": int(i < 10) for i in (1, 2, 3, 11, 12, 13)}


@pytest.mark.parametrize(("persons", "subject"), [(12, "PETCT_0001"), (3, "first")])
def test_studies_of_one_person_are_of_one_subject_where_there_are_many_persons(tmp_path, persons, subject):
    """Three folders with a few scans each may as well be three hospitals."""
    for i in range(1, persons + 1):
        for study in ("first", "second") if i == 1 else (f"study_{i}",):
            image(tmp_path / f"PETCT_{i:04x}/{study}/SUV.nii.gz")
            label(tmp_path / f"PETCT_{i:04x}/{study}/SEG.nii.gz")
    cases = {case.id: case.subject or case.id for case in read(tmp_path).cases}
    assert len(cases) == persons + 1
    assert cases["first"] == subject
