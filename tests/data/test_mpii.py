import collections
import gzip
import importlib.util
import json
import os
import pathlib

import h5py
import numpy as np
import pytest
import scipy.io

from hourglass.skeleton import MPII
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED
from pipelines.data.readers import files, mpii
from tests.helpers.release_mat import (
    ANNORECT,
    EMPTY,
    annorect_of,
    mat_person,
    point_struct,
    struct,
    write_mat,
)

DATA = os.environ.get("HOURGLASS_TEST_DATA")
needs_data = pytest.mark.skipif(
    not DATA, reason="HOURGLASS_TEST_DATA does not name the data folder"
)

# Five people of the real file: (photograph, person, validation, centre, scale, joints). 077224477's
# head top lies above the photograph (training: missing), as does 047206695's (validation: kept).
# fmt: off
REAL = [
    ("015601864.jpg", 1, 0, (594, 257), 3.021,
     [[620, 394, 1], [616, 269, 1], [573, 185, 1], [647, 188, 0], [661, 221, 1], [656, 231, 1],
      [610, 187, 0], [647, 176, 1], [637.02, 189.818, 1], [695.98, 108.182, 1], [606, 217, 1],
      [553, 161, 1], [601, 167, 1], [692, 185, 1], [693, 240, 1], [688, 313, 1]]),
    ("015601864.jpg", 2, 0, (952, 222), 2.472,
     [[895, 293, 1], [910, 279, 1], [945, 223, 0], [1012, 218, 1], [961, 315, 1], [960, 403, 1],
      [979, 221, 0], [906, 190, 0], [912.491, 190.659, 1], [830.509, 182.341, 1], [871, 304, 1],
      [883, 229, 1], [888, 174, 0], [924, 206, 1], [1013, 203, 1], [955, 263, 1]]),
    ("051423444.jpg", 1, 1, (1030, 396), 3.139,
     [[0, 0, 0], [1033, 649, 1], [1072, 474, 1], [973, 496, 1], [961, 650, 1], [0, 0, 0],
      [1023, 485, 1], [1031, 295, 1], [1026.998, 281.625, 1], [997.002, 181.375, 1], [988, 294, 0],
      [1018, 317, 0], [1070, 290, 1], [991, 300, 1], [912, 345, 1], [842, 330, 1]]),
    ("077224477.jpg", 3, 0, (553, 192), 2.157,
     [[0, 0, 0], [0, 0, 0], [487, 254, 1], [603, 256, 1], [0, 0, 0], [0, 0, 0], [545, 255, 1],
      [560, 58, 1], [557.846, 53.25, 1], [528.154, -12.25, 1], [407, 276, 1], [462, 183, 1],
      [487, 67, 1], [632, 48, 1], [639, 182, 0], [639, 302, 0]]),
    ("047206695.jpg", 1, 1, (1503, 528), 6.442,
     [[0, 0, 0], [1543, 1074, 0], [1454, 678, 0], [1724, 753, 0], [1658, 1074, 0], [0, 0, 0],
      [1589, 716, 0], [1633, 227, 0], [1637, 196, 1], [1672, -14, 1], [1466, 623, 0],
      [1508, 417, 0], [1612, 204, 0], [1654, 250, 1], [1627, 565, 1], [1320, 580, 1]]),
]
# fmt: on
ROW_051423444 = 2  # third line of valid.h5
HEAD_051423444 = 78.48082568372992  # valid.h5 `normalize`


def bearpaw(image, person, validation, center, scale, joints, **more):
    return {
        "dataset": "MPI",
        "isValidation": float(validation),
        "img_paths": image,
        "objpos": list(center),
        "joint_self": joints,
        "scale_provided": scale,
        "people_index": float(person),
        **more,
    }


def write(folder, entries, file="annotations.json"):
    path = folder / file
    path.write_text(json.dumps(entries))
    return str(path)


@pytest.fixture
def real(tmp_path):
    return mpii.read(write(tmp_path, [bearpaw(*one) for one in REAL]))


def by_id(annotated):
    return {person.id: person for person in annotated.people}


def assert_same_people(left, right, head_sizes=True, order=True, atol=1e-9):
    left, right = by_id(left), by_id(right)
    assert set(left) == set(right) and (not order or list(left) == list(right))
    for key, a in left.items():
        b = right[key]
        assert (a.image, a.split, a.row) == (b.image, b.split, b.row)
        assert a.state.tolist() == b.state.tolist(), key
        np.testing.assert_allclose(a.joints, b.joints, atol=atol)
        np.testing.assert_allclose([*a.center, a.side], [*b.center, b.side], atol=atol)
        if head_sizes:
            np.testing.assert_allclose(a.head_size, b.head_size)


# ---- bearpaw JSON


def test_one_person_by_hand(real):
    person = real.people[0]
    assert (person.id, person.image, person.split, person.row) == (
        "015601864.jpg#1",
        "015601864.jpg",
        "train",
        0,
    )
    np.testing.assert_allclose(person.center, [593, 256 + 15 * 3.021])
    assert person.side == pytest.approx(1.25 * 200 * 3.021)
    assert person.joints.dtype == np.float64 and person.joints.shape == (16, 2)
    assert person.joints[0].tolist() == [619, 393]
    assert person.state[[3, 6]].tolist() == [OCCLUDED, OCCLUDED]
    assert np.delete(person.state, [3, 6]).tolist() == 14 * [LABELLED]
    assert real.origin == 1 and real.skeleton is MPII and real.left_out == {}


def test_states_of_joints_without_valid_position(real):
    people = by_id(real)
    training, validation = people["077224477.jpg#3"], people["047206695.jpg#1"]
    assert training.state[9] == MISSING and training.joints[9].tolist() == [0, 0]
    assert training.state[0] == MISSING and training.joints[0].tolist() == [0, 0]
    assert validation.state[9] == LABELLED and validation.joints[9].tolist() == [1671, -15]
    assert validation.state[0] == MISSING and validation.joints[0].tolist() == [0, 0]


def test_head_sizes(real):
    people = by_id(real)
    assert people["051423444.jpg#1"].row == ROW_051423444
    np.testing.assert_allclose(people["051423444.jpg#1"].head_size, HEAD_051423444, rtol=1e-6)
    # Training people have no head box in the JSON: 0.75 x |head top - upper neck|.
    length = np.hypot(637.02 - 695.98, 189.818 - 108.182)
    np.testing.assert_allclose(people["015601864.jpg#1"].head_size, 0.75 * length)
    assert np.isnan(people["077224477.jpg#3"].head_size)
    assert "for 2 people without a head box" in real.head_rule


def test_rows_count_kept_people_in_file_order_and_validation_as_published(tmp_path):
    result = mpii.read(write(tmp_path, [bearpaw(*one) for one in reversed(REAL)]))
    rows = {p.id: (p.split, p.row) for p in result.people}
    assert rows["077224477.jpg#3"] == ("train", 0) and rows["015601864.jpg#1"] == ("train", 2)
    assert rows["051423444.jpg#1"] == ("validation", ROW_051423444)
    assert ROW_051423444 < rows["047206695.jpg#1"][1] < 2958


def test_gzip_and_joints_as_string_are_the_same(tmp_path, real):
    entries = [bearpaw(*one) for one in REAL]
    for entry in entries:
        entry["joint_self"] = json.dumps(entry["joint_self"])
    path = tmp_path / "annotations.json.gz"
    path.write_bytes(gzip.compress(json.dumps(entries).encode()))
    assert_same_people(mpii.read(str(path)), real)


def test_other_data_sets_bring_their_own_split_and_head_boxes(tmp_path):
    box = [10, 20, 40, 60]  # diagonal 50
    image, _, _, center, scale, joints = REAL[2]  # a published validation key, under another name
    entries = [
        bearpaw(image, 1, 0, center, scale, joints, head_box=box),
        bearpaw("b.jpg", 1, 1, center, scale, joints, head_box=box),
        bearpaw("b.jpg", 2, 1, center, scale, joints),
    ]
    result = mpii.read(write(tmp_path, entries), name="synthetic")
    assert result.name == "synthetic"
    assert [(p.split, p.row) for p in result.people] == [
        ("train", 0),
        ("validation", 0),
        ("validation", 1),
    ]
    sizes = [p.head_size for p in result.people]
    np.testing.assert_allclose(sizes, [30, 30, 0.75 * np.hypot(29.996, 100.25)])


def test_unusable_people_are_named(tmp_path):
    image, person, _, center, scale, joints = REAL[0]
    entries = [
        bearpaw(image, 1, 0, [], scale, joints),
        bearpaw(image, 2, 0, center, -1, joints),
        bearpaw(image, 3, 0, center, None, joints),
        bearpaw(image, 4, 0, center, scale, []),
        bearpaw(image, 5, 0, center, scale, "[]"),
        bearpaw(image, 6, 0, center, scale, 16 * [[0, 0, 0]]),
        bearpaw(image, 7, 0, center, scale, joints),
        bearpaw("051423444.jpg", 2, 0, center, scale, joints),
    ]
    result = mpii.read(write(tmp_path, entries))
    assert [(p.id, p.row) for p in result.people] == [(f"{image}#7", 0)]
    assert result.left_out == {
        "no centre or scale": [f"{image}#{k}" for k in (1, 2, 3)],
        "no joints": [f"{image}#{k}" for k in (4, 5, 6)],
        "in the photograph of one of the 2,958 validation people": ["051423444.jpg#2"],
    }


def test_a_file_without_any_joints_is_a_test_file(tmp_path):
    image, person, _, center, scale, _ = REAL[0]
    (only,) = mpii.read(write(tmp_path, [bearpaw(image, person, 0, center, scale, [])])).people
    assert only.split == "test" and not only.state.any() and np.isnan(only.head_size)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"objpos": [1]}, '"objpos" must be 2 finite numbers, not \\[1\\]'),
        ({"objpos": {"x": 1}}, '"objpos" must be 2 finite numbers'),
        ({"scale_provided": "tall"}, "\"scale_provided\" must be a finite number, not 'tall'"),
        ({"scale_provided": float("nan")}, '"scale_provided" must be a finite number, not nan'),
        ({"objpos": [1, 1e308]}, '"objpos" must be 2 finite numbers, not .* .the limit is 1e.06'),
        ({"scale_provided": 10**400}, '"scale_provided" must be a finite number, not 1000'),
        ({"joint_self": [[1, 2, 1]]}, '"joint_self" must be 16 x 3 finite numbers'),
        ({"joint_self": "[[1, 2"}, 'entry 1, "joint_self" is not readable as JSON'),
        ({"joint_self": [[1, 2, 1], [3]]}, '"joint_self" must be 16 x 3 finite numbers'),
        ({"people_index": None, "isValidation": None}, '"isValidation" must be a finite number'),
        ({"people_index": 1.5}, '"people_index" must be a whole number'),
        ({"head_box": [9, 9, 9, 20]}, '"head_box" must be x1 < x2'),
        ({"split": "holdout"}, '"split" must be one of'),
        ({"img_paths": "../../etc/passwd.jpg"}, "must lie in the images folder"),
        ({"img_paths": "/etc/passwd.jpg"}, "must lie in the images folder"),
        ({"img_paths": "a\\..\\b.jpg"}, "must lie in the images folder"),
        ({"img_paths": "C:\\a.jpg"}, "must lie in the images folder"),
        ({"img_paths": 7}, "must be a file name, not 7"),
        ({"img_paths": REAL[0][0], "people_index": 1}, "person 015601864.jpg#1 occurs twice"),
    ],
)
def test_wrong_entries_are_named(tmp_path, change, message):
    path = write(tmp_path, [bearpaw(*REAL[0]), {**bearpaw(*REAL[3]), **change}])
    with pytest.raises(ValueError, match=message) as error:
        mpii.read(path)
    assert f"{path}, entry 1" in str(error.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b"\xff\xfe hello", "is not readable as JSON"),
        (b"[1, 2", "is not readable as JSON"),
        (b"[" * 100000, "is not readable as JSON"),
        (b"[]", "should be a JSON list of people"),
        (b'{"images": []}', "should be a JSON list of people"),
        (b"[3]", 'entry 0: a person with key "img_paths" .* expected, not 3'),
        (b'[{"file": "a.jpg"}]', 'entry 0: a person with key "img_paths"'),
        # Ids of their own: these bytes hold the time, and differ between releases of zlib.
        pytest.param(gzip.compress(b""), "is empty", id="empty gzip"),
        pytest.param(gzip.compress(b"[1, 2, 3]" * 1000)[:40], "is broken gzip", id="cut gzip"),
        (b"\x1f\x8bnot gzip", "is broken gzip"),
        (b"\x89HDF\r\n\x1a\n but not really", "cannot be read as HDF5"),
        (b"MATLAB 5.0 MAT-file but not really", "MATLAB"),
    ],
)
def test_broken_files_get_a_sentence(tmp_path, content, message):
    path = tmp_path / "annotations.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        mpii.read(str(path))
    assert str(path) in str(error.value)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(FileNotFoundError, match="no annotation file"):
            mpii.read(str(path))


def test_corrupted_gzip_anywhere_is_refused(tmp_path):
    whole = gzip.compress(json.dumps([bearpaw(*one) for one in REAL]).encode())
    path = tmp_path / "annotations.json.gz"
    for place in range(10, len(whole), 53):  # the first ten bytes are the header
        broken = bytearray(whole)
        broken[place] ^= 0x10
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="annotations.json.gz"):
            mpii.read(str(path))


def test_sizes_are_bounded_also_when_compressed(tmp_path):
    path = tmp_path / "annotations.json.gz"
    path.write_bytes(gzip.compress(b"[" + b" " * 1_000_000 + b"]"))
    assert len(files.read_bytes(str(path), limit=1_000_002)) == 1_000_002
    with pytest.raises(ValueError, match="holds more than 1000001 bytes"):
        files.read_bytes(str(path), limit=1_000_001)


# ---- HRNet / mmpose JSON


def hrnet(image, center, scale, joints):
    joints = np.array(joints, float)
    labelled = (joints[:, :2] != 0).any(axis=1)
    return {
        "image": image,
        "center": list(map(float, center)),
        "scale": scale,
        "joints": np.where(labelled[:, None], joints[:, :2], -1.0).tolist(),
        "joints_vis": labelled.astype(int).tolist(),
    }


def test_hrnet_people_equal_the_bearpaw_ones_but_for_occlusion(tmp_path, real):
    entries = [hrnet(image, *rest) for image, _, _, *rest in REAL]
    people = mpii.read(write(tmp_path, entries, "trainval.json")).people
    for ours, theirs in zip(people, real.people):
        assert (ours.split, ours.row) == (theirs.split, theirs.row)
        known = theirs.id if theirs.split == "validation" else None
        x, y = theirs.center + 1 - [0, 12 / 200 * theirs.side]
        assert ours.id == (known or f"{theirs.image}@{x:.0f},{y:.0f}")
        assert ours.state.tolist() == np.where(theirs.state == OCCLUDED, 2, theirs.state).tolist()
        np.testing.assert_allclose(ours.joints, theirs.joints)
        np.testing.assert_allclose([*ours.center, ours.side], [*theirs.center, theirs.side])
        np.testing.assert_allclose(ours.head_size, theirs.head_size)


def test_hrnet_splits_of_other_data_sets_come_from_the_file_name(tmp_path):
    entries = [hrnet("a.jpg", *REAL[0][3:])]
    for file, split in [
        ("train.json", "train"),
        ("trainval.json", "train"),
        ("valid.json", "validation"),
        ("mpii_val.json", "validation"),
    ]:
        (person,) = mpii.read(write(tmp_path, entries, file), name="own").people
        assert person.split == split


def test_hrnet_test_file_has_no_joints(tmp_path):
    entries = [{"image": "a.jpg", "center": [20, 30], "scale": 2.0}]
    (person,) = mpii.read(write(tmp_path, entries, "test.json")).people
    assert (person.split, person.id, person.row) == ("test", "a.jpg@20,30", 0)
    assert person.center.tolist() == [19, 59] and person.side == 500.0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"joints": [[1, 2]]}, '"joints" must be 16 x 2 finite numbers'),
        ({"joints_vis": [1]}, '"joints_vis" must be 16 finite numbers'),
        ({"center": None}, '"center" must be 2 finite numbers, not None'),
        ({"image": ["a.jpg"]}, "the photograph must be a file name"),
    ],
)
def test_wrong_hrnet_entries_are_named(tmp_path, change, message):
    entry = hrnet(REAL[0][0], *REAL[0][3:])
    with pytest.raises(ValueError, match="entry 1: " + message):
        mpii.read(write(tmp_path, [entry, {**entry, **change}]))


# ---- Newell's .h5


def write_newell(path, people, drop=(), **replace):
    """As pose-hg-train's convert_annot.py: 0-based person, adjusted centre, truncated parts."""
    joints = np.array([one[5] for one in people], float)
    center, scale = (
        np.array([one[3] for one in people], float),
        np.array([one[4] for one in people]),
    )
    columns = {
        "imgname": np.array([one[0].encode() for one in people]),
        "person": np.array([one[1] - 1.0 for one in people]),
        "center": center + np.stack([0 * scale, 15 * scale], axis=1),
        "scale": 1.25 * scale,
        "part": np.trunc(joints[..., :2]),
        "visible": joints[..., 2],
        "normalize": np.full(len(people), 33.0),
        **replace,
    }
    with h5py.File(path, "w") as file:
        for key in columns.keys() - set(drop):
            file[key] = columns[key]
    return str(path)


def test_newell_people_equal_the_bearpaw_ones_but_for_truncation(tmp_path, real):
    result = mpii.read(write_newell(tmp_path / "train.h5", REAL))
    assert_same_people(result, real, head_sizes=False, atol=1)
    person = result.people[0]
    np.testing.assert_allclose(person.center, real.people[0].center, atol=1e-9)
    np.testing.assert_allclose(person.side, real.people[0].side)
    assert person.joints[8].tolist() == [636, 188]
    assert [p.head_size for p in result.people if p.split == "train"] == 3 * [33.0]
    assert by_id(result)["051423444.jpg#1"].head_size == pytest.approx(HEAD_051423444, rel=1e-6)


def test_newell_people_without_joints_or_centre(tmp_path):
    people = [REAL[0], REAL[1], REAL[3]]
    path = write_newell(tmp_path / "train.h5", people)
    with h5py.File(path, "a") as file:
        file["part"][0], file["visible"][0] = -1, -1
        file["scale"][1] = -1
    result = mpii.read(path)
    assert [p.id for p in result.people] == ["077224477.jpg#3"]
    assert result.left_out == {
        "no joints": ["015601864.jpg#1"],
        "no centre or scale": ["015601864.jpg#2"],
    }


def test_newell_test_file(tmp_path):
    drop = ("part", "visible", "normalize")
    people = mpii.read(write_newell(tmp_path / "test.h5", REAL[:2], drop)).people
    assert [(p.split, p.id) for p in people] == [
        ("test", "015601864.jpg#1"),
        ("test", "015601864.jpg#2"),
    ]


@pytest.mark.parametrize(
    "how, message",
    [
        ({"drop": ["center"]}, 'needs a data set "center"'),
        ({"drop": ["imgname"]}, 'needs a data set "imgname"'),
        ({"drop": ["visible"]}, 'needs a data set "visible"'),
        (
            {"part": np.zeros((5, 14, 2))},
            'needs a data set "part" of shape people x 16 x 2; it has',
        ),
        ({"scale": np.zeros(4)}, 'needs a data set "scale"'),
        ({"imgname": np.zeros(5)}, '"imgname" is not of the published type'),
        ({"scale": np.array(5 * [b"1.0"])}, '"scale" is not of the published type'),
        ({"center": np.full((5, 2), np.nan)}, 'entry 0: "objpos" must be 2 finite numbers'),
    ],
)
def test_wrong_newell_files_are_named(tmp_path, how, message):
    with pytest.raises(ValueError, match=message):
        mpii.read(write_newell(tmp_path / "train.h5", REAL, **how))


# ---- the original .mat


def grouped(people):
    photographs = collections.OrderedDict()
    for image, person, _, *rest in people:
        photographs.setdefault(image, {})[person] = rest
    return photographs


@pytest.mark.parametrize(
    "visible",
    [
        lambda flag: float(flag),
        lambda flag: str(flag),
        lambda flag: np.uint8(flag),
        lambda flag: 0 if flag == 0 else EMPTY,
        lambda flag: "0" if flag == 0 else "",
    ],
    ids=["number", "string", "uint8", "empty", "empty string"],
)
def test_mat_people_equal_the_json_ones(tmp_path, real, visible):
    # One person in a photograph (scalar annorect), two, and one after two without any annotation.
    photographs = [(n, 1, annorect_of(p, visible=visible)) for n, p in grouped(REAL).items()]
    result = mpii.read(write_mat(tmp_path / "release.mat", photographs))
    assert_same_people(result, real)
    assert result.left_out == {"no centre or scale": ["077224477.jpg#1", "077224477.jpg#2"]}


def test_mat_without_visibility_counts_as_visible(tmp_path):
    rows = annorect_of({1: REAL[0][3:]}, visible=lambda flag: None)
    (person,) = mpii.read(write_mat(tmp_path / "release.mat", [("a.jpg", 1, rows)])).people
    assert person.state.tolist() == 16 * [LABELLED]


def test_mat_irregular_people(tmp_path):
    center, scale, joints = REAL[0][3:]
    whole = mat_person(center, scale, joints, box=(10, 20, 40, 60))
    rows = [
        whole,
        {**whole, "annopoints": EMPTY},
        {**whole, "objpos": EMPTY},
        {**whole, "scale": EMPTY},
        {**whole, "annopoints": struct([{}], ["point"])},
        {**whole, "annopoints": point_struct(joints[:1])},
        {**whole, "x2": EMPTY},
        {},
    ]
    only_boxes = struct([{"x1": 1, "y1": 1, "x2": 5, "y2": 5}], ["x1", "y1", "x2", "y2"])
    test_people = struct([{k: whole[k] for k in ("scale", "objpos")}, {}], ["scale", "objpos"])
    path = write_mat(
        tmp_path / "release.mat",
        [
            ("a.jpg", 1, struct(rows, ANNORECT)),
            ("b.jpg", 1, EMPTY),
            ("c.jpg", 1, only_boxes),
            ("d.jpg", 0, test_people),
            ("e.jpg", 0, EMPTY),
            ("051423444.jpg", 1, struct([whole, whole], ANNORECT)),
        ],
    )
    result = mpii.read(path)
    assert [(p.id, p.split, p.row) for p in result.people] == [
        ("a.jpg#1", "train", 0),
        ("a.jpg#6", "train", 1),
        ("a.jpg#7", "train", 2),
        ("d.jpg#1", "test", 0),
        ("051423444.jpg#1", "validation", ROW_051423444),
    ]
    assert result.left_out == {
        "no joints": ["a.jpg#2", "a.jpg#5"],
        "no centre or scale": ["a.jpg#3", "a.jpg#4", "a.jpg#8", "c.jpg#1", "d.jpg#2"],
        "in the photograph of one of the 2,958 validation people": ["051423444.jpg#2"],
    }
    first, single, boxless, test, _ = result.people
    assert first.head_size == pytest.approx(30)  # 0.6 x hypot(30, 40): real boxes in training too
    assert single.state.tolist() == [LABELLED] + 15 * [MISSING]
    assert boxless.head_size == pytest.approx(0.75 * np.hypot(637.02 - 695.98, 189.818 - 108.182))
    assert not test.state.any() and np.isnan(test.head_size)


def test_mat_of_one_photograph(tmp_path):
    path = write_mat(tmp_path / "release.mat", [("a.jpg", 1, annorect_of({1: REAL[0][3:]}))])
    assert [p.id for p in mpii.read(path).people] == ["a.jpg#1"]


def test_mat_of_other_data_sets_and_wrong_points(tmp_path):
    path = str(tmp_path / "joints.mat")
    scipy.io.savemat(path, {"joints": np.zeros((14, 3, 5))})
    with pytest.raises(ValueError, match=r"not MPII's release: .* it has \['joints'\]"):
        mpii.read(path)
    rows = annorect_of({1: REAL[0][3:]})
    rows[0, 0]["annopoints"][0, 0]["point"][0, 3]["id"] = 16
    with pytest.raises(ValueError, match=r"annolist\(1\).annorect\(1\): .* an id from 0 to 15"):
        mpii.read(write_mat(tmp_path / "release.mat", [("a.jpg", 1, rows)]))


# ---- the published files


@pytest.fixture(scope="module")
def full():
    return mpii.read(os.path.join(DATA, "mpii", "mpii_annotations.json.gz"))


@needs_data
def test_full_json_counts(full):
    counts = collections.Counter(p.split for p in full.people)
    assert counts == {"train": 22246, "validation": 2958} and full.left_out == {}
    for split in counts:
        rows = [p.row for p in full.people if p.split == split]
        assert rows == list(range(counts[split]))
    state = np.stack([p.state for p in full.people if p.split == "train"])
    labelled, occluded = (state != MISSING), (state == OCCLUDED)
    assert round(occluded.sum() / labelled.sum(), 3) == 0.231
    assert round(occluded[:, 6].sum() / labelled[:, 6].sum(), 3) == 0.444
    assert labelled.sum() == 331_688 and (state == LABELLED).sum() == 255_228
    # 255,563 training joints are flagged visible; 335 of them have no valid position.
    assert 255_563 - (state == LABELLED).sum() == 335


@needs_data
def test_full_json_head_sizes(full):
    published = scipy.io.loadmat(os.path.join(DATA, "mpii", "detections_our_format.mat"))
    boxes = published["headboxes_src"]
    sizes = [p.head_size for p in full.people if p.split == "validation"]
    np.testing.assert_allclose(sizes, 0.6 * np.linalg.norm(boxes[1] - boxes[0], axis=0), rtol=1e-6)
    people = [p for p in full.people if p.split == "validation" and p.state[8] and p.state[9]]
    ratios = [p.head_size / np.linalg.norm(p.joints[9] - p.joints[8]) for p in people]
    low, middle, high = np.percentile(ratios, [1, 50, 99])
    assert middle == pytest.approx(mpii.HEAD_SIZE_PER_HEAD_LENGTH, abs=1e-4)
    assert 0.74 < low and high < 0.76
    unscored = [p for p in full.people if np.isnan(p.head_size)]
    assert len(unscored) == 482 and {p.split for p in unscored} == {"train"}


@needs_data
def test_pckh_from_our_people_is_the_published_one(full):
    people = [p for p in full.people if p.split == "validation"]
    preds = os.path.join(DATA, "mpii", "predictions", "bearpaw-hg_s2_b1.mat")
    error = scipy.io.loadmat(preds)["preds"] - 1 - np.stack([p.joints for p in people])
    error = np.linalg.norm(error, axis=2) / np.array([p.head_size for p in people])[:, None]
    counted = np.stack([p.state for p in people]) != MISSING
    assert counted.sum() == 44_240  # detections_our_format.mat: (1 - jnt_missing).sum()
    hits = (error <= 0.5) & counted
    mean14 = np.delete(hits.sum(axis=0) / counted.sum(axis=0), [6, 7]).mean()
    # Whole-pixel annotations give errors of exactly 0.5, which rounding in the published table
    # decides for or against (and 13 of its joints have a coordinate lost): hence 0.01.
    assert 100 * mean14 == pytest.approx(86.757, abs=0.01)
    assert 100 * hits.sum() / counted.sum() == pytest.approx(88.198, abs=0.01)


@needs_data
def test_valid_h5_and_hrnet_file_hold_the_same_people(full):
    ours = by_id(full)
    newell = mpii.read(os.path.join(DATA, "mpii", "valid.h5"))
    assert [p.id for p in newell.people] == [p.id for p in full.people if p.split == "validation"]
    for person in newell.people:
        same = ours[person.id]
        assert (person.row, person.head_size) == (same.row, same.head_size)
        assert person.state.tolist() == same.state.tolist()
        assert np.abs(person.joints - same.joints).max() <= 1
        assert np.abs(person.center - same.center).max() < 0.01  # the JSON rounds scale to 0.001
        assert abs(person.side - same.side) < 0.2
    hrnet_people = mpii.read(os.path.join(DATA, "mpii", "msra_style_3.json")).people
    assert [p.row for p in hrnet_people] == [0, 1, 3]
    for person in hrnet_people:
        same = ours[person.id]
        np.testing.assert_allclose(person.joints, same.joints, atol=0.001)
        np.testing.assert_allclose(person.center, same.center, atol=0.01)
        assert person.state.tolist() == same.state.tolist()


@needs_data
@pytest.mark.slow
@pytest.mark.fire
def test_mat_of_real_people_equals_the_json(full, tmp_path):
    with gzip.open(os.path.join(DATA, "mpii", "mpii_annotations.json.gz")) as file:
        entries = json.load(file)[:1500]
    keys = ("img_paths", "people_index", "isValidation", "objpos", "scale_provided", "joint_self")
    people = [tuple(entry[key] for key in keys) for entry in entries]
    people = [(image, int(person), *rest) for image, person, *rest in people]
    photographs = [(name, 1, annorect_of(persons)) for name, persons in grouped(people).items()]
    result = mpii.read(write_mat(tmp_path / "release.mat", photographs))
    wanted = mpii.read(write(tmp_path, entries))
    assert len(wanted.people) == 1500 and {p.split for p in wanted.people} == {
        "train",
        "validation",
    }
    assert_same_people(result, wanted)


@needs_data
def test_shipped_validation_table_is_what_its_script_writes(tmp_path):
    root = pathlib.Path(__file__).parents[2]
    script = root / "scripts" / "make_mpii_validation.py"
    spec = importlib.util.spec_from_file_location("make_mpii_validation", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = pathlib.Path(DATA, "mpii")
    written = tmp_path / "table.csv"
    sources = [str(folder / name) for name in ("valid.h5", "detections_our_format.mat")]
    module.main(*sources, str(written))
    shipped = root / "pipelines" / "data" / "readers" / "mpii_validation.csv"
    assert written.read_bytes() == shipped.read_bytes()
