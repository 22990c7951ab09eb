"""The data sets that ``--dataset`` names, each with the module that reads its annotations.

A reader is a module with FILES, names of annotation files to look for ("." is the folder itself),
the most complete first, and ``read(annotations) -> Annotated``. One that is not in the table does
not exist for any command.
"""

from __future__ import annotations

from pipelines.data.readers import coco, labelme, lsp, mpii, synthetic, yolo

READERS = {
    "mpii": mpii,
    "lsp": lsp,
    "coco": coco,
    "yolo": yolo,
    "labelme": labelme,
    "synthetic": synthetic,
}
