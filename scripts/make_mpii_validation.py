"""Write ``pipelines/data/readers/mpii_validation.csv`` from the two published files that hold it.

    python scripts/make_mpii_validation.py valid.h5 detections_our_format.mat mpii_validation.csv

``valid.h5`` (princeton-vl/pose-hg-train) has the keys and centres, ``detections_our_format.mat``
(bearpaw/pytorch-pose, evaluation/data) the head boxes, both in Tompson's order.
"""

from __future__ import annotations

import csv
import io
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import h5py
import numpy as np

from pipelines import cli
from pipelines.data.readers import files
from pipelines.io import check_file_writable, write_atomically

KEYS = ("imgname", "person", "center", "scale", "normalize")
HEADER = """\
# The 2,958 published MPII validation people (Tompson et al., CVPR 2015), in the published order.
# Keys and centres: valid.h5 of princeton-vl/pose-hg-train. Head boxes: headboxes_src of
# detections_our_format.mat in bearpaw/pytorch-pose, both derived from the MPII Human Pose dataset
# (Andriluka et al., CVPR 2014). person counts from 1 as in the bearpaw JSON's people_index and in
# annorect(person) of the original .mat (valid.h5 counts from 0). Positions are 1-based image px:
# the head box, and the raw centre (objpos, before any adjustment). scale is scale_provided, also
# before any adjustment.
image,person,x1,y1,x2,y2,center_x,center_y,scale
"""


def main(valid_h5: str, detections_mat: str, output: str) -> None:
    """Write the table; ValueError when the two files do not hold the same people."""
    check_file_writable(output)
    try:
        with h5py.File(valid_h5) as file:
            valid = {key: file[key][:] for key in KEYS}
        detections = files.parse_mat(files.read_bytes(detections_mat), detections_mat)
        boxes = detections["headboxes_src"].transpose(2, 0, 1)
    except KeyError as error:
        raise ValueError(f"{valid_h5} or {detections_mat} is another file: {error}") from error
    if not np.allclose(0.6 * np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1), valid["normalize"]):
        raise ValueError("the head boxes do not have the sizes that valid.h5 gives: other people")
    # valid.h5's centre is 15 * raw scale lower than published, its scale is 1.25 * raw scale.
    raw = valid["center"] - np.stack([0 * valid["scale"], 12 * valid["scale"]], axis=1)
    # Both are whole pixels in the release; single precision left them within 1e-3 of it.
    table = np.concatenate([boxes.reshape(-1, 4), raw], axis=1)
    if np.abs(table - table.round()).max() > 1e-3:
        raise ValueError("head boxes and centres should be whole pixels")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for image, person, row, scale in zip(
        valid["imgname"], valid["person"], table.round().astype(int), valid["scale"] / 1.25
    ):
        writer.writerow([image.decode(), int(person) + 1, *row, f"{scale:.6f}"])
    write_atomically(output, (HEADER + text.getvalue()).encode())


def _main(paths: list[str]) -> None:
    if len(paths) != 3:
        raise ValueError(f"three files are needed, not {len(paths)}; see --help")
    main(*paths)


if __name__ == "__main__":
    cli.run(_main, words="VALID_H5 DETECTIONS_MAT CSV")
