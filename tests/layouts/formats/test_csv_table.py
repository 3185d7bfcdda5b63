"""CSV and TSV tables."""

import pytest

from pipeline.base.errors import DataError
from pipeline.layouts.formats.csv_table import is_table, read
from pipeline.layouts.personal_columns import without_personal
from tests.layouts.small_layouts import image, label


def table(folder, text, name="cases.csv"):
    for case in ("a", "b", "c"):
        image(folder / f"scans/{case}.nii.gz")
        image(folder / f"scans/{case}_t2.nii.gz")
        label(folder / f"scans/{case}_seg.nii.gz")
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_splits_folds_and_extra_columns(tmp_path):
    found = read(
        table(
            tmp_path,
            "\ufeffcase_id,subject,image,label,split,fold,site,scanner,image_date\n"
            "one,s1,scans/a.nii.gz,scans/a_seg.nii.gz,training,2,north,Skyra,2001\n"
            "two,s1,scans/b.nii.gz,scans/b_seg.nii.gz,validation,,south,,\n"
            "three,s2,scans/c.nii.gz,,,,north,Skyra,\n",
        )
    )
    assert [(c.id, c.subject, c.split, c.fold) for c in found.cases] == [
        ("one", "s1", "training", 2),
        ("two", "s1", "training", 0),
        ("three", "s2", "testing", None),
    ]
    assert [channel.name for channel in found.channels] == ["image"]
    assert [dict(case.extra) for case in found.cases] == [
        {"site": "north", "scanner": "Skyra", "image_date": "2001"},
        {"site": "south"},
        {"site": "north", "scanner": "Skyra"},
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_channels_by_column_with_any_separator(tmp_path, separator):
    rows = ["SubjectID,image_T1,image_CT,Label", "a,scans/a.nii.gz,scans/a_t2.nii.gz,scans/a_seg.nii.gz"]
    found = read(table(tmp_path, "\n".join(rows).replace(",", separator), "cases.tsv"))
    assert [(channel.name, channel.modality) for channel in found.channels] == [("T1", "MR"), ("CT", "CT")]
    assert [path.name for path in found.cases[0].images] == ["a.nii.gz", "a_t2.nii.gz"]
    assert found.cases[0].id == "a"


def test_gandlf_columns(tmp_path):
    found = read(
        table(tmp_path, "SubjectID,Channel_0,Channel_1,Label\nx,scans/a.nii.gz,scans/a_t2.nii.gz,scans/a_seg.nii.gz\n")
    )
    assert [channel.name for channel in found.channels] == ["channel_0", "channel_1"]


def test_an_id_comes_from_the_image_where_no_column_gives_it(tmp_path):
    found = read(table(tmp_path, "image,mask\nscans/a.nii.gz,scans/a_seg.nii.gz\n"))
    assert [(case.id, case.label.name) for case in found.cases] == [("a", "a_seg.nii.gz")]
    assert [channel.name for channel in found.channels] == ["image"]


def test_faults_name_their_line(tmp_path):
    found = read(
        table(
            tmp_path,
            "image,label\nscans/a.nii.gz,scans/a_seg.nii.gz\n,scans/b_seg.nii.gz\nscans/gone.nii.gz,scans/c_seg.nii.gz\n",
        )
    )
    assert [(problem.where, problem.what) for problem in found.problems] == [
        ("cases.csv line 3", "column image is empty; row left out"),
        ("cases.csv line 4", "no such file: gone.nii.gz"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,image\na,scans/a.nii.gz\na,scans/b.nii.gz\n", "a  is the id of 2: line 2, line 3"),
        ("id,picture\na,scans/a.nii.gz\n", "no image column among id, picture; name it 'image'"),
        ("image,split\nscans/a.nii.gz,both\n", "split is 'both'; allowed: training, validation, testing"),
        ("image,fold\nscans/a.nii.gz,x\n", "fold is 'x'"),
        ("image,label,mask\nscans/a.nii.gz,b,c\n", "several label columns"),
        ("image,label\n", "no rows"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, text, words):
    with pytest.raises(DataError) as raised:
        read(table(tmp_path, text))
    assert words in str(raised.value)


def test_names_and_birth_dates_stay_out(tmp_path):
    found = read(
        table(
            tmp_path, "id,image,label,patient_name,Birth Date,site\na,scans/a.nii.gz,scans/a_seg.nii.gz,Doe^J,1970,x\n"
        )
    )
    assert dict(found.cases[0].extra) == {"site": "x"}
    assert any("'patient_name' may identify a person" in note for note in found.notes)


def test_only_tables_with_an_image_column_are_data_sets(tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\n")
    assert not is_table(tmp_path / "participants.tsv")
    assert is_table(table(tmp_path, "image,label\n"))


def test_patients_are_told_apart_and_not_named(tmp_path):
    """Two scans of one patient stay one subject, though the column itself must not get into the manifest."""
    rows = [f"{who},scans/{case}.nii.gz,scans/{case}_seg.nii.gz" for case, who in zip("abc", "xyx", strict=True)]
    found = read(table(tmp_path, "\n".join(["PatientID,image,label", *rows])))
    assert [case.subject for case in found.cases] == ["patient_001", "patient_002", "patient_001"]
    assert all(not case.extra for case in found.cases)
    assert any("'PatientID' may identify a person" in note for note in found.notes)


def test_a_column_per_structure_holds_masks(tmp_path):
    text = "id,image,label_liver,mask_tumour\nx,scans/a.nii.gz,scans/a_seg.nii.gz,scans/b_seg.nii.gz\n"
    text += "y,scans/b.nii.gz,scans/b_seg.nii.gz,\n"
    one, other = read(table(tmp_path, text)).cases
    assert {name: path.name for name, path in one.masks.items()} == {"liver": "a_seg.nii.gz", "tumour": "b_seg.nii.gz"}
    assert set(other.masks) == {"liver"}
    assert (one.split, other.split, one.label) == ("training", "training", None)


def test_a_table_as_windows_writes_it(tmp_path):
    """Excel's plain CSV: semicolons, Windows-1252, backslashes. It was passed over, and scans taken without labels."""
    image(tmp_path / "Köpfe/Müller.nii.gz")
    label(tmp_path / "Köpfe/Müller_seg.nii.gz")
    path = tmp_path / "cases.csv"
    path.write_bytes(
        "id;image;label;site\r\nc1;Köpfe\\Müller.nii.gz;Köpfe\\Müller_seg.nii.gz;Köln\r\n".encode("cp1252")
    )
    assert is_table(path)
    found = read(path)
    assert found.problems == ()
    assert [file.exists() for file in found.cases[0].files] == [True, True]
    assert found.cases[0].extra == {"site": "Köln"}
    assert any("cases.csv is not UTF-8; read as Windows-1252" in note for note in found.notes)


def test_a_backslash_that_is_part_of_a_name_stays(tmp_path):
    image(tmp_path / "a\\b.nii.gz")
    path = tmp_path / "cases.csv"
    path.write_text("id,image\nc1,a\\b.nii.gz\n")
    assert read(path).cases[0].images == (tmp_path / "a\\b.nii.gz",)


def test_a_table_of_excels_unicode_text(tmp_path):
    image(tmp_path / "Köpfe/Müller.nii.gz")
    path = tmp_path / "cases.csv"
    path.write_bytes("id\timage\r\nc1\tKöpfe/Müller.nii.gz\r\n".encode("utf-16"))
    assert is_table(path)
    found = read(path)
    assert (found.cases[0].images[0].exists(), found.problems, found.notes) == (True, (), ())


def test_a_file_that_only_calls_itself_a_table_is_none(tmp_path):
    """As something binary, or measurements in which a field is longer than Python's csv takes."""
    path = tmp_path / "cases.csv"
    path.write_bytes(b"\xff" * 200_000)
    assert not is_table(path)
    path.write_text("id,vector\nc1," + "1 " * 100_000)
    assert not is_table(path)


def test_a_row_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"line \d+: field larger than .*; is a quotation mark not closed"):
        read(table(tmp_path, 'id,image\nc1,"' + "scans/a.nii.gz\n" * 10_000))


@pytest.mark.parametrize(
    ("column", "kept"),
    [("fluid", True), ("gender", True), ("study_date", True), ("AccessionNumber", False), ("StudyInstanceUID", False),
     ("series_uid", False), ("E-Mail", False), ("dob", False), ("Geburtsdatum", False), ("Vorname", False)],
)  # fmt: skip
def test_columns_that_lead_to_a_person_are_left_out(column, kept):
    notes: set[str] = set()
    assert without_personal({column: "x"}, notes) == ({column: "x"} if kept else {})
    assert bool(notes) != kept
