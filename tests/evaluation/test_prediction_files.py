import json
import os

import h5py
import hypothesis
import numpy as np
import pytest
import scipy.io
from hypothesis import strategies as st

from hourglass.skeleton import LSP, MPII
from pipelines import io
from pipelines.evaluation.prediction_files import (
    Predictions,
    in_published_order,
    read,
    write_h5,
    write_json,
    write_mat,
)

WRITERS = {".mat": write_mat, ".h5": write_h5, ".json": write_json}


def _predictions(people=4, skeleton=MPII, origin=1, seed=0):
    rng = np.random.default_rng(seed)
    return Predictions(
        ids=tuple(f"{i:03d} größe.jpg#{i}" for i in range(people)),
        rows=np.arange(people) * 3,
        joints=rng.normal(300, 400, (people, len(skeleton), 2)),
        confidence=rng.random((people, len(skeleton)), np.float32),
        skeleton=skeleton,
        origin=origin,
    )


def _same(a, b):
    assert (a.ids, a.skeleton, a.origin) == (b.ids, b.skeleton, b.origin)
    np.testing.assert_array_equal(a.rows, b.rows)
    np.testing.assert_array_equal(a.confidence, b.confidence)
    np.testing.assert_allclose(a.joints, b.joints, rtol=0, atol=1e-9)
    assert (b.rows.dtype, b.joints.dtype, b.confidence.dtype) == (np.int64, np.float64, np.float32)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("skeleton, origin, people", [(MPII, 1, 4), (LSP, 0, 1)])
def test_what_was_written_is_read_back(tmp_path, kind, skeleton, origin, people):
    predictions = _predictions(people, skeleton, origin)
    path = str(tmp_path / "new" / ("all" + kind))
    WRITERS[kind](path, predictions)
    _same(predictions, read(path))
    assert os.listdir(tmp_path / "new") == ["all" + kind]


@pytest.mark.parametrize("kind", WRITERS)
def test_numbers_that_are_not_finite_survive(tmp_path, kind):
    predictions = _predictions()
    predictions.joints[0, 0], predictions.confidence[1, 1] = np.nan, np.nan
    WRITERS[kind](str(tmp_path / ("a" + kind)), predictions)
    _same(predictions, read(str(tmp_path / ("a" + kind))))


def test_mat_is_what_an_mpii_evaluator_loads(tmp_path):
    predictions = _predictions(3)
    write_mat(str(tmp_path / "a.mat"), predictions)
    mat = scipy.io.loadmat(str(tmp_path / "a.mat"))
    assert mat["preds"].shape == (3, 16, 2) and mat["preds"].dtype == np.float64
    np.testing.assert_array_equal(mat["preds"], predictions.joints + 1)
    assert [cell.item() for cell in mat["ids"].ravel()] == list(predictions.ids)


def test_h5_is_what_an_mpii_evaluator_loads(tmp_path):
    predictions = _predictions(3)
    write_h5(str(tmp_path / "a.h5"), predictions)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        np.testing.assert_array_equal(file["preds"][()], predictions.joints + 1)
        assert tuple(file["ids"].asstr()[()]) == predictions.ids


def test_json_is_zero_based_and_named(tmp_path):
    predictions = _predictions(2)
    write_json(str(tmp_path / "a.json"), predictions)
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["origin"] == 0 and document["joint_names"] == list(MPII.joints)
    assert document["people"][1]["id"] == predictions.ids[1]
    assert document["people"][1]["row"] == 3
    np.testing.assert_array_equal(document["people"][1]["joints"], predictions.joints[1])


@hypothesis.given(st.permutations(range(7)))
def test_predictions_come_in_the_published_order(order):
    wanted, order = _predictions(7), list(order)
    ids = np.array([wanted.ids[i].encode() for i in order], object)
    columns = wanted.rows[order], wanted.joints[order], wanted.confidence[order]
    _same(wanted, in_published_order(ids, *columns, MPII, 1))


@pytest.mark.parametrize(
    ("ids", "rows", "message"),
    [
        (["a", "b", "b"], [0, 1, 2], r"share a person \(b\).*predicted once"),
        (["a", "b", "c"], [0, 1, 1], r"share a row \(1\)"),
        ([], [], "the split is empty"),
    ],
)
def test_a_person_or_row_twice_and_an_empty_split_are_errors(ids, rows, message):
    zeros = np.zeros((len(ids), 16, 2)), np.zeros((len(ids), 16))
    with pytest.raises(ValueError, match=message):
        in_published_order(ids, np.array(rows, int), *zeros, MPII, 1)


def test_shapes_and_order_are_checked():
    good = _predictions(2)
    with pytest.raises(ValueError, match=r"do not match 2 ids and 14 joints"):
        Predictions(good.ids, good.rows, good.joints, good.confidence, LSP, 1)
    with pytest.raises(ValueError, match="ascend"):
        Predictions(good.ids, good.rows[::-1], good.joints, good.confidence, MPII, 1)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.mat"):
        read(str(tmp_path / "none.mat"))
    with pytest.raises(FileNotFoundError, match="a.json"):
        (tmp_path / "a.json").mkdir()
        read(str(tmp_path / "a.json"))


def test_another_kind_is_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"\.npy.*\.mat, \.h5 or \.json"):
        read(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_a_damaged_file_is_named(tmp_path, kind, damage):
    path = str(tmp_path / ("a" + kind))
    WRITERS[kind](path, _predictions())
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write({"empty": b"", "truncated": data[: len(data) // 2], "text": b"hello\n"}[damage])
    with pytest.raises(ValueError, match=rf"a\{kind} is not a predictions file"):
        read(path)


def test_a_foreign_mat_is_rejected(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"preds": np.zeros((3, 16, 2))})
    with pytest.raises(ValueError, match=r"a\.mat is not a predictions file.*ids"):
        read(str(tmp_path / "a.mat"))


def test_an_h5_that_points_to_other_files_is_rejected(tmp_path):
    path = str(tmp_path / "a.h5")
    write_h5(str(tmp_path / "other.h5"), _predictions())
    write_h5(path, _predictions())
    with h5py.File(path, "r+") as file:
        del file["preds"]
        file["preds"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "preds")
    with pytest.raises(ValueError, match="preds is missing, or a link"):
        read(path)


def test_an_h5_with_raw_bytes_elsewhere_is_rejected(tmp_path):
    path, raw = str(tmp_path / "a.h5"), tmp_path / "raw"
    raw.write_bytes(bytes(4 * 16 * 2 * 8))
    write_h5(path, _predictions())
    with h5py.File(path, "r+") as file:
        del file["preds"]
        file.create_dataset("preds", (4, 16, 2), "f8", external=[(str(raw), 0, 4 * 16 * 2 * 8)])
    with pytest.raises(ValueError, match="preds is stored in other files"):
        read(path)


def test_an_h5_that_claims_too_much_is_rejected(tmp_path):
    path = str(tmp_path / "a.h5")
    write_h5(path, _predictions())
    with h5py.File(path, "r+") as file:
        del file["preds"]
        file.create_dataset("preds", (10**9, 16, 2), "f8", chunks=(1, 16, 2))
    with pytest.raises(ValueError, match="32000000000 entries"):
        read(path)


def test_a_file_is_replaced_whole(tmp_path):
    path = str(tmp_path / "a")
    io.write_atomically(path, b"old and long")
    io.write_atomically(path, b"new")
    assert io.read_whole(path) == b"new" and os.listdir(tmp_path) == ["a"]


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(OSError, match="file/a.mat"):
        write_mat(str(tmp_path / "file" / "a.mat"), _predictions())
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        io.write_atomically(str(tmp_path / "folder"), b"x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_a_bare_name_lands_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    io.write_atomically("a", b"x")
    assert io.read_whole("a") == b"x"
