import collections
import os
import pathlib

import numpy as np
import pytest
import scipy.io

from hourglass.skeleton import LSP
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED
from pipelines.data.readers import lsp

DATA = os.environ.get("HOURGLASS_TEST_DATA")
needs_data = pytest.mark.skipif(
    not DATA, reason="HOURGLASS_TEST_DATA does not name the data folder"
)


def _extended(people):
    """[14, 3, people] with every joint labelled, x = 10 j + person, y = 20 j."""
    joints = np.zeros((14, 3, people))
    joints[:, 0] = 10.0 * np.arange(14)[:, None] + np.arange(people)
    joints[:, 1] = 20.0 * np.arange(14)[:, None]
    joints[:, 2] = 1
    return joints


def _write(folder, joints, **more):
    path = str(folder / "joints.mat")
    scipy.io.savemat(path, {"joints": joints, **more}, do_compression=True)
    return path


def test_extended_by_hand(tmp_path):
    joints = _extended(3)
    joints[0, :, 1] = (-250.5, 7000.0, 0)  # not labelled: position means nothing
    joints[1, :2, 1] = (-3.25, 4.5)  # labelled outside the photograph
    result = lsp.read(_write(tmp_path, joints), validation=1)
    person = result.people[1]
    assert (person.id, person.image, person.split, person.row) == (
        "im00002.jpg#1",
        "im00002.jpg",
        "train",
        1,
    )
    assert person.state.tolist() == [MISSING] + 13 * [LABELLED]
    assert person.joints[:2].tolist() == [[0, 0], [-3.25, 4.5]]
    # Box x from -3.25 to 131, y from 4.5 to 260: longer side 255.5.
    np.testing.assert_allclose(person.center, [63.875, 132.25])
    np.testing.assert_allclose(person.side, 1.35 * 255.5)
    np.testing.assert_allclose(person.head_size, np.hypot(10, 20))
    last = result.people[2]
    assert (last.id, last.split, last.row) == ("im00003.jpg#1", "validation", 0)
    assert result.skeleton is LSP and result.origin == 0 and result.left_out == {}


def test_original_has_occlusion_and_four_digits(tmp_path):
    joints = _extended(3).transpose(1, 0, 2)
    joints[2] = 0
    joints[2, 5, 0] = 1
    first, *_, last = lsp.read(_write(tmp_path, joints), validation=2).people
    assert first.id == "im0001.jpg#1" and first.split == "train"
    assert first.state.tolist() == 5 * [LABELLED] + [OCCLUDED] + 8 * [LABELLED]
    assert first.joints[5].tolist() == [50, 100]  # an occluded joint keeps its position
    assert (last.id, last.split, last.row) == ("im0003.jpg#1", "validation", 1)


@pytest.mark.parametrize(
    "shape, digits, people", [((14, 3, 10000), 5, 10000), ((3, 14, 2000), 4, 2000)]
)
def test_full_size_published_sets_split(tmp_path, shape, digits, people):
    joints = _extended(people)
    joints = joints if shape[0] == 14 else joints.transpose(1, 0, 2) * [[[1]], [[1]], [[0]]]
    result = lsp.read(_write(tmp_path, joints))
    counts = collections.Counter(p.split for p in result.people)
    assert counts == {"train": people - 1000, "validation": 1000}
    first = next(p for p in result.people if p.split == "validation")
    assert (first.image, first.row) == (f"im{people - 999:0{digits}d}.jpg", 0)


def test_head_size_needs_both_ends_and_ten_joints(tmp_path):
    joints = _extended(4)
    joints[12, 2, 0] = 0  # no neck
    joints[:5, 2, 1] = 0  # 9 joints
    joints[:4, 2, 2] = 0  # 10 joints
    joints[13, :2, 3] = joints[12, :2, 3]  # no length
    sizes = [p.head_size for p in lsp.read(_write(tmp_path, joints), validation=0).people]
    np.testing.assert_allclose(sizes, [np.nan, np.nan, np.hypot(10, 20), np.nan])


def test_unusable_people_are_named_and_rows_keep_the_published_places(tmp_path):
    joints = _extended(4)
    joints[1:, 2, 1] = 0
    joints[:, :2, 2] = 7.5
    result = lsp.read(_write(tmp_path, joints), validation=3)
    assert [(p.id, p.row) for p in result.people] == [("im00001.jpg#1", 0), ("im00004.jpg#1", 2)]
    assert result.left_out == {
        "fewer than 2 labelled joints": ["im00002.jpg#1"],
        "labelled joints all at one position": ["im00003.jpg#1"],
    }


@pytest.mark.parametrize(
    "joints, message",
    [
        (np.zeros((16, 3, 5)), r"14 x 3 x people .* not \(16, 3, 5\)"),
        (np.zeros((14, 3)), r"not \(14, 3\)"),
        (np.full((14, 3, 2), 2.0), "person 1, right_ankle: a flag is neither 0 nor 1"),
        (np.full((14, 3, 2), 1j), "should be numbers"),
    ],
)
def test_refuses_other_arrays(tmp_path, joints, message):
    with pytest.raises(ValueError, match=message):
        lsp.read(_write(tmp_path, joints), validation=0)


def test_refuses_a_labelled_position_that_is_not_finite(tmp_path):
    joints = _extended(3)
    joints[3, 1, 2] = np.nan
    with pytest.raises(ValueError, match="person 3, left_hip: a position is not finite"):
        lsp.read(_write(tmp_path, joints), validation=0)
    joints[3, 1, 2] = 1e308
    with pytest.raises(ValueError, match="person 3, left_hip: a position lies beyond 1e.06 px"):
        lsp.read(_write(tmp_path, joints), validation=0)
    joints[3, 2, 2] = 0  # the same under a joint that is not labelled does no harm
    assert len(lsp.read(_write(tmp_path, joints), validation=0).people) == 3


@pytest.mark.parametrize("validation", [-1, 4])
def test_refuses_more_validation_people_than_there_are(tmp_path, validation):
    with pytest.raises(ValueError, match="holds 3; choose 0 to 3"):
        lsp.read(_write(tmp_path, _extended(3)), validation=validation)


def test_refuses_files_that_are_not_matlab(tmp_path):
    path = tmp_path / "joints.mat"
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        lsp.read(str(path))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        lsp.read(str(path))
    path.write_bytes(b'{"joints": []}')
    with pytest.raises(ValueError, match="not a MATLAB 5 file"):
        lsp.read(str(path))
    path.write_bytes(b"MATLAB 7.3 MAT-file")
    with pytest.raises(ValueError, match="save it again in MATLAB with -v7"):
        lsp.read(str(path))
    other = tmp_path / "other.mat"
    scipy.io.savemat(str(other), {"x": 1})
    with pytest.raises(ValueError, match='should hold "joints"'):
        lsp.read(str(other))


def test_broken_files_get_a_sentence(tmp_path):
    path = _write(tmp_path, _extended(50))
    whole = pathlib.Path(path).read_bytes()
    refused = 0
    for cut in range(0, len(whole), 97):
        broken = tmp_path / "broken.mat"
        broken.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="broken.mat"):
            lsp.read(str(broken), validation=0)
        refused += 1
    assert refused > 5


def test_a_small_file_cannot_unpack_without_bound(tmp_path, monkeypatch):
    path = _write(tmp_path, _extended(2), padding=np.zeros(1 << 20))
    assert os.path.getsize(path) < 20_000
    assert len(lsp.read(path, validation=0).people) == 2
    monkeypatch.setattr("pipelines.data.readers.files.LIMIT", 1 << 22)
    with pytest.raises(ValueError, match="unpacks to more than 4194304 bytes"):
        lsp.read(path, validation=0)


@needs_data
def test_first_half_of_lsp_extended():
    result = lsp.read(os.path.join(DATA, "lspet", "joints.mat"))
    people = result.people
    assert collections.Counter(p.split for p in people) == {"train": 4000, "validation": 1000}
    assert people[4000].image == "im04001.jpg" and people[4000].split == "validation"
    state = np.stack([p.state for p in people])
    assert (state == LABELLED).sum() == 61577 and (state == OCCLUDED).sum() == 0
    photographs = os.path.join(DATA, "lspet", "images")
    assert all(os.path.exists(os.path.join(photographs, p.image)) for p in people)
    scored = [np.isfinite(p.head_size) for p in people if p.split == "validation"]
    assert sum(scored) == 755
