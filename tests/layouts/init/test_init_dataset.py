"""`segpipe init`: from a folder to a manifest and a configuration."""

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import yaml

from pipeline.base.errors import ConfigError, DataError
from pipeline.config import load_config
from pipeline.dataset.manifest import read_manifest
from pipeline.layouts.init.init_dataset import init_dataset
from tests.layouts.formats.test_dicom_folders import PATIENT, UID, series
from tests.layouts.small_layouts import AFFINE, SHAPE, descriptor, image, label, truncate


def folders(place, count=4, values=(1, 2)):
    for number in range(count):
        image(place / f"images/c{number}.nii.gz")
        label(place / f"labels/c{number}.nii.gz", *values)
    return place


def test_writes_a_manifest_and_a_configuration_beside_each_other(tmp_path):
    result = init_dataset(folders(tmp_path / "data"), tmp_path / "configs" / "mine.yaml", labels="core=1,rim=2")
    config = yaml.safe_load((tmp_path / "configs" / "mine.yaml").read_text(encoding="utf-8"))
    assert config["name"] == "mine"
    assert config["data"] == {"manifest": "mine.manifest.json", "root": "../data"}
    assert config["load"]["on_fault"] == "stop"
    manifest = read_manifest(tmp_path / "configs" / "mine.manifest.json")
    assert manifest == result.dataset
    assert dict(manifest.labels) == {"core": 1, "rim": 2}
    assert [case.images for case in manifest.cases] == [(f"images/c{i}.nii.gz",) for i in range(4)]
    assert set(manifest.cases[0].sha256) == {"images/c0.nii.gz", "labels/c0.nii.gz"}
    assert "4 training and 0 testing cases" in result.message


def test_the_manifest_names_no_place_on_this_machine(tmp_path):
    result = init_dataset(folders(tmp_path / "data"), tmp_path / "mine.yaml")
    assert str(tmp_path) not in result.manifest.read_text(encoding="utf-8")


def test_an_edited_configuration_is_kept(tmp_path):
    place = folders(tmp_path / "data")
    init_dataset(place, tmp_path / "mine.yaml")
    assert not any("already" in note for note in init_dataset(place, tmp_path / "mine.yaml").notes)
    (tmp_path / "mine.yaml").write_text("name: edited\n")
    assert (
        "mine.yaml was there already; the old one is now mine.yaml.previous"
        in init_dataset(place, tmp_path / "mine.yaml").notes
    )
    assert (tmp_path / "mine.yaml.previous").read_text(encoding="utf-8") == "name: edited\n"


def test_what_was_kept_before_stays(tmp_path):
    place, config = folders(tmp_path / "data"), tmp_path / "mine.yaml"
    for text in ("name: first\n", "name: second\n", "name: third\n"):
        config.write_text(text)
        init_dataset(place, config)
    kept = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("mine.yaml.previous*")}
    assert kept == {
        "mine.yaml.previous": "name: first\n",
        "mine.yaml.previous.2": "name: second\n",
        "mine.yaml.previous.3": "name: third\n",
    }


def test_inferred_labels_are_said_aloud_and_rare_ones_flagged(tmp_path):
    place = folders(tmp_path / "data", count=5)
    label(place / "labels/c3.nii.gz", 1, 2, 0, 7)
    result = init_dataset(place, tmp_path / "mine.yaml")
    assert dict(result.dataset.labels) == {"label_1": 1, "label_2": 2, "label_7": 7}
    assert any(
        "labels are inferred from 5 label maps: label_1=1, label_2=2, label_7=7" in note for note in result.notes
    )
    (rare,) = result.problems
    assert rare.where == "label value 7"
    assert rare.what.startswith("is rare: 15 voxels in 1 of 5 label maps (c3)")


def test_undeclared_and_absent_values_are_said(tmp_path):
    result = init_dataset(folders(tmp_path / "data"), tmp_path / "mine.yaml", labels="core=1,vessel=9")
    assert [problem.where for problem in result.problems] == ["label value 2"]
    assert "declared, but in no label map: vessel" in result.notes


def test_a_broken_file_is_listed_and_ends_nothing(tmp_path):
    place = folders(tmp_path / "data")
    truncate(place / "images/c0.nii.gz")
    truncate(place / "labels/c1.nii.gz")
    (place / "images/c2.nii.gz").write_bytes(b"")
    result = init_dataset(place, tmp_path / "mine.yaml")
    assert [problem.where for problem in result.problems] == ["c0", "c1", "c2"]
    assert all(f"c{i}.nii.gz" in problem.what for i, problem in enumerate(result.problems))
    assert len(result.dataset.cases) == 4
    assert yaml.safe_load((tmp_path / "mine.yaml").read_text(encoding="utf-8"))["load"]["on_fault"] == "exclude"


def test_files_listed_outside_the_folder_widen_the_root(tmp_path):
    image(tmp_path / "archive/scan-a.nii.gz")
    label(tmp_path / "archive/mask-a.nii.gz")
    entry = {"images": ["../archive/scan-a.nii.gz"], "label": "../archive/mask-a.nii.gz"}
    values = {
        "channel_names": {"0": "T2"},
        "labels": {"background": 0, "x": 1},
        "file_ending": ".nii.gz",
        "dataset": {"a": entry},
    }
    result = init_dataset(descriptor(tmp_path / "raw", values), tmp_path / "configs" / "mine.yaml")
    assert result.dataset.cases[0].images == ("archive/scan-a.nii.gz",)
    assert yaml.safe_load(result.config.read_text(encoding="utf-8"))["data"]["root"] == ".."


def test_hounsfield_units_show_themselves(tmp_path):
    place = folders(tmp_path / "data")
    for number in range(4):
        image(place / f"images/c{number}.nii.gz", lowest=-1024)
    result = init_dataset(place, tmp_path / "mine.yaml")
    assert [channel.modality for channel in result.dataset.channels] == ["CT"]
    assert any("taken as CT, since its values go down to -1024" in note for note in result.notes)


def test_a_4d_file_without_a_descriptor_shows_its_channels(tmp_path):
    image(tmp_path / "data/images/c.nii.gz", channels=2)
    label(tmp_path / "data/labels/c.nii.gz")
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert [channel.name for channel in result.dataset.channels] == ["channel_0", "channel_1"]
    assert "c.nii.gz holds 2 volumes: taken as 2 channels" in result.notes


def test_bytes_of_a_voxel_are_not_taken_for_channels_since_they_may_be_colours(tmp_path):
    """A drawing in red, green and blue: as three channels it would be trained on, and nobody would hear of it."""
    voxels = np.random.default_rng(0).integers(0, 255, (*SHAPE[::-1], 3), np.uint8)
    (tmp_path / "data/images").mkdir(parents=True)
    sitk.WriteImage(sitk.GetImageFromArray(voxels, isVector=True), tmp_path / "data/images/c.mha")
    label(tmp_path / "data/labels/c.nii.gz")
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert [channel.name for channel in result.dataset.channels] == ["image"]
    assert any("c.mha holds 3 bytes a voxel, as colours do: not taken as channels" in note for note in result.notes)


def test_another_background_than_0_is_said_where_values_are_inferred(tmp_path):
    place = folders(tmp_path / "data", count=1)
    for number in (1, 2):
        image(place / f"images/c{number}.nii.gz")
        array = np.full(SHAPE, 255, np.uint8)
        array[1, :, :3] = 1
        nib.save(nib.Nifti1Image(array, AFFINE), place / f"labels/c{number}.nii.gz")
    for labels in (None, "core=1,rim=2"):
        problems = {(p.where, p.what) for p in init_dataset(place, tmp_path / "mine.yaml", labels=labels).problems}
        assert (
            "label value 255",
            "fills the label maps of c1, c2, where no voxel is 0 (background); if 255 stands for background there, "
            "set it to 0; no other value can be background",
        ) in problems


def test_ignored_voxels_are_not_suspected_to_be_background(tmp_path):
    """Most of a map may be declared to be ignored; of the rest, the value that most voxels have is asked about."""
    place = folders(tmp_path / "data", count=1)
    array = np.full(SHAPE, 255, np.uint8)
    array[1], array[2, 0] = 1, 2
    nib.save(nib.Nifti1Image(array, AFFINE), place / "labels/c0.nii.gz")
    result = init_dataset(place, tmp_path / "mine.yaml", labels="core=1,rim=2,ignore=255")
    assert [problem.where for problem in result.problems if "background" in problem.what] == ["label value 1"]


def test_a_mask_of_several_values_is_refused_with_the_way_out(tmp_path):
    for case in ("c1", "c2"):
        image(tmp_path / f"data/{case}/ct.nii.gz")
        for name in ("liver", "organs"):
            label(tmp_path / f"data/{case}/masks/{name}.nii.gz", 1, 2)
    with pytest.raises(DataError, match="none is left") as raised:
        init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert "if it is a label map, write a table (CSV) with columns id, image and label" in str(raised.value)


def test_images_are_not_taken_for_label_maps(tmp_path):
    place = folders(tmp_path / "data", count=1)
    array = np.arange(120).reshape(6, 5, 4) * 3
    for number in range(3):
        image(place / f"images/d{number}.nii.gz")
        nib.save(nib.Nifti1Image((array + number).astype(np.int16), AFFINE), place / f"labels/d{number}.nii.gz")
    with pytest.raises(
        DataError, match=r"different values .* as images have; if they are label maps, name the structures"
    ):
        init_dataset(place, tmp_path / "mine.yaml")


def test_negative_label_values_are_named_and_no_structure(tmp_path):
    place = folders(tmp_path / "data", count=1)
    nib.save(nib.Nifti1Image(np.full(SHAPE, -1, np.int16), AFFINE), place / "labels/c0.nii.gz")
    with pytest.raises(DataError, match="no readable label map has a value above 0") as raised:
        init_dataset(place, tmp_path / "mine.yaml")
    assert "label value -1  is negative, so no structure; correct the label maps of c0" in str(raised.value)


def test_one_declared_split_is_fold_0(tmp_path):
    place = folders(tmp_path / "data")
    rows = [f"images/c{i}.nii.gz,labels/c{i}.nii.gz,{'validation' if i == 2 else 'training'}" for i in range(4)]
    (place / "cases.csv").write_text("\n".join(["image,label,split", *rows]))
    result = init_dataset(place, tmp_path / "mine.yaml")
    assert {case.id: case.fold for case in result.dataset.cases} == {"c0": 1, "c1": 1, "c2": 0, "c3": 1}
    assert any(note.startswith("fold 0 is the declared split") for note in result.notes)


def test_recognises_each_layout(tmp_path):
    msd = descriptor(
        folders(tmp_path / "msd"),
        {"labels": {"1": "a"}, "training": [{"image": "images/c0.nii.gz", "label": "labels/c0.nii.gz"}]},
    )
    table = folders(tmp_path / "table")
    (table / "cases.csv").write_text("image,label\nimages/c0.nii.gz,labels/c0.nii.gz\n")
    bids = tmp_path / "bids"
    image(bids / "sub-01/anat/sub-01_T1w.nii.gz")
    unpacked = tmp_path / "unpacked"
    shutil.copytree(msd, unpacked / "Task99")
    expected = {
        msd: "msd",
        table: "csv",
        table / "cases.csv": "csv",
        bids: "bids",
        unpacked: "msd",
        tmp_path / "table/images": "folders",
    }
    assert {place: init_dataset(place, tmp_path / "x.yaml").layout for place in expected} == expected


def test_dicom_goes_by_links_where_folder_names_identify(tmp_path):
    series(tmp_path / "data" / "Granger_Hermione")
    result = init_dataset(tmp_path / "data", tmp_path / "mine.yaml")
    assert result.dataset.cases[0].images == ("series_001",)
    assert (tmp_path / "mine.links" / "series_001").is_dir()
    written = result.manifest.read_text(encoding="utf-8") + result.config.read_text(encoding="utf-8") + result.message
    assert not any(word in written for word in ("Granger", PATIENT, "HG-1979", UID))


@pytest.mark.parametrize(
    ("place", "options", "error", "words"),
    [
        ("nowhere", {}, DataError, "no such folder"),
        ("data", {"format": "nnunt"}, ConfigError, "did you mean 'nnunet'"),
        ("data", {"format": "msd"}, DataError, "has no dataset.json, which --format msd needs"),
        ("data", {"labels": "core"}, ConfigError, "'core' is not name=value"),
        ("data", {"labels": "a=1,ignore=1"}, ConfigError, "label value 1 is both 'ignore' and a"),
        ("empty", {}, DataError, "no dataset.json, table, NIfTI"),
    ],
)
def test_what_cannot_be_done_says_why(tmp_path, place, options, error, words):
    folders(tmp_path / "data", count=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(error) as raised:
        init_dataset(tmp_path / place, tmp_path / "mine.yaml", **options)
    assert words in str(raised.value)
    assert not (tmp_path / "mine.yaml").exists()


@pytest.mark.slow
def test_the_real_hippocampi(segpipe_data, tmp_path):
    result = init_dataset(segpipe_data / "hippocampus", tmp_path / "hippocampus.yaml", labels="anterior=1,posterior=2")
    assert sum(case.split == "training" for case in result.dataset.cases) == 208
    assert not result.problems
    json.loads(result.manifest.read_text(encoding="utf-8"))


def test_an_edited_manifest_is_kept_too(tmp_path):
    place = folders(tmp_path / "data")
    manifest = init_dataset(place, tmp_path / "mine.yaml").manifest
    edited = manifest.read_text(encoding="utf-8").replace("label_1", "core")
    manifest.write_text(edited, encoding="utf-8")
    assert any(
        "mine.manifest.json was there already" in note for note in init_dataset(place, tmp_path / "mine.yaml").notes
    )
    assert (tmp_path / "mine.manifest.json.previous").read_text(encoding="utf-8") == edited


@pytest.mark.parametrize("name", ["2024", "1e5", "true", "null", "0x10"])
def test_names_that_yaml_takes_for_something_else_are_quoted(tmp_path, name):
    result = init_dataset(folders(tmp_path / name), tmp_path / f"{name}.yaml")
    assert load_config(result.config).name == name


def test_folds_that_are_counted_from_1_are_counted_from_0(tmp_path):
    place = folders(tmp_path / "data", count=3)
    rows = [f"images/c{i}.nii.gz,labels/c{i}.nii.gz,{i + 1}" for i in range(3)]
    (place / "cases.csv").write_text("\n".join(["image,label,fold", *rows]))
    result = init_dataset(place, tmp_path / "mine.yaml")
    assert [case.fold for case in result.dataset.cases] == [0, 1, 2]
    assert "folds 1, 2, 3 are counted from 0 here: 0, 1, 2" in result.notes


def test_a_folder_is_found_from_anywhere(tmp_path, monkeypatch):
    folders(tmp_path / "data")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    result = init_dataset(Path("../data"), Path("mine.yaml"))
    assert result.dataset.root == "../data"
    assert result.dataset.cases[0].images == ("images/c0.nii.gz",)


def test_a_link_to_a_file_that_is_not_there_is_named(tmp_path):
    """As data sets have them whose files are fetched on demand."""
    place = folders(tmp_path / "data")
    (place / "images/c1.nii.gz").unlink()
    (place / "images/c1.nii.gz").symlink_to(tmp_path / "elsewhere.nii.gz")
    result = init_dataset(place, tmp_path / "mine.yaml")
    assert len(result.dataset.cases) == 4
    assert any(problem.where == "c1" and "no such file" in problem.what for problem in result.problems)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read_is_listed(tmp_path):
    place = folders(tmp_path / "data")
    (place / "labels/c2.nii.gz").chmod(0)
    assert [problem.where for problem in init_dataset(place, tmp_path / "mine.yaml").problems] == ["c2"]


def test_other_tables_beside_the_scans_do_not_hide_them(tmp_path):
    place = folders(tmp_path / "data")
    (place / "clinical.csv").write_bytes("id,Größe\nc0,1\n".encode("latin-1"))
    assert init_dataset(place, tmp_path / "mine.yaml").layout == "folders"
    for name in ("train.csv", "test.csv"):
        (place / name).write_text("image,label\nimages/c0.nii.gz,labels/c0.nii.gz\n")
    with pytest.raises(DataError, match=r"test\.csv, train\.csv all list images; join them"):
        init_dataset(place, tmp_path / "mine.yaml")


def test_ids_that_cannot_name_a_file_are_refused(tmp_path):
    place = folders(tmp_path / "data")
    (place / "cases.csv").write_text("id,image,label\nsite1/c0,images/c0.nii.gz,labels/c0.nii.gz\n")
    with pytest.raises(DataError, match=r"'site1/c0' must be usable as the name of a file"):
        init_dataset(place, tmp_path / "mine.yaml")


def test_the_next_command_can_be_pasted(tmp_path):
    result = init_dataset(folders(tmp_path / "data"), tmp_path / "my data.yaml")
    assert f"next: segpipe check '{tmp_path / 'my data.yaml'}'" in result.message


def test_a_place_that_cannot_be_written_is_refused_before_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path or mode != os.W_OK)
    with pytest.raises(ConfigError, match=r"-o .*: nothing can be written into .*; name a file in another folder"):
        init_dataset(tmp_path / "no such folder", tmp_path / "new/mine.yaml")


def test_a_descriptor_that_begins_with_a_mark_is_read(tmp_path):
    image(tmp_path / "data/c.nii.gz")
    text = json.dumps({"test": ["c.nii.gz"], "modality": {"0": "CT"}})
    (tmp_path / "data/dataset.json").write_text(text, encoding="utf-8-sig")
    assert init_dataset(tmp_path / "data", tmp_path / "mine.yaml").layout == "msd"
