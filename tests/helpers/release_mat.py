"""Writes MPII's original .mat with its struct, because the file itself is not redistributed."""

import numpy as np
import scipy.io

EMPTY = np.zeros((0, 0))


def struct(rows, fields):
    """MATLAB struct array [1, len(rows)]; a field that a row lacks is empty, as in MATLAB."""
    array = np.zeros((1, len(rows)), dtype=[(field, object) for field in fields])
    for index, row in enumerate(rows):
        for field in fields:
            array[0, index][field] = row.get(field, EMPTY)
    return array if rows else EMPTY


def point_struct(joints, visible=lambda flag: flag):
    points = [
        {"x": x, "y": y, "id": np.uint8(j), "is_visible": visible(flag)}
        for j, (x, y, flag) in enumerate(joints)
        if (x, y) != (0, 0)
    ]
    fields = ["x", "y", "id", "is_visible"]
    return struct(
        [{"point": struct(points, fields if visible(0) is not None else fields[:3])}], ["point"]
    )


def mat_person(center, scale, joints, visible=lambda flag: flag, box=None):
    row = {
        "scale": scale,
        "objpos": struct([{"x": np.int16(center[0]), "y": np.int16(center[1])}], ["x", "y"]),
        "annopoints": point_struct(joints, visible),
    }
    return {**row, **dict(zip(("x1", "y1", "x2", "y2"), box or ()))}


ANNORECT = ["x1", "y1", "x2", "y2", "annopoints", "scale", "objpos"]


def write_mat(path, photographs, single=None):
    """photographs: (name, img_train, annorect struct array or EMPTY); single: numbers of each."""
    single = single or [EMPTY for _ in photographs]
    annolist = [
        {
            "image": struct([{"name": name}], ["name"]),
            "annorect": annorect,
            "frame_sec": EMPTY,
            "vididx": EMPTY,
        }
        for name, _, annorect in photographs
    ]
    release = {
        "annolist": struct(annolist, ["image", "annorect", "frame_sec", "vididx"]),
        "img_train": np.array([[train for _, train, _ in photographs]], np.uint8),
        "version": "12",
        "single_person": np.array([[numbers] for numbers in single] + [[1]], object)[:-1],
        "act": struct([{"act_id": -1}], ["act_id"]),
    }
    fields = list(release)
    scipy.io.savemat(str(path), {"RELEASE": struct([release], fields)}, do_compression=True)
    return str(path)


def annorect_of(persons, **fields):
    rows = [
        mat_person(*persons[k], **fields) if k in persons else {}
        for k in range(1, 1 + max(persons))
    ]
    return struct(rows, ANNORECT)
