"""A toy animal with joints of its own, drawn and annotated in COCO's format."""

import json

import cv2
import numpy as np


def write(folder, content, name="annotations.json"):
    path = folder / name
    path.write_text(json.dumps(content))
    return str(path)


TOY = ["nose", "wing one", "wing two", "left_fin", "tail"]


TOY_PAIRS = "wing one:wing two,left_fin:left_fin"


def draw_toys(folder, count=20):
    """Pictures 80 x 60 of a five-joint animal: discs of five colours; every third has two."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    shape = np.array([(0, -15), (-12, 0), (12, 0), (-5, 8), (0, 16)])
    for k in range(count):
        random = np.random.default_rng(k)
        picture = random.integers(0, 60, (60, 80, 3), np.uint8)
        for place in [20, 60] if k % 3 == 0 else [40]:
            joints = np.rint(np.array([place, 30]) + shape + random.uniform(-2, 2, (5, 2)))
            for j, joint in enumerate(joints.astype(int).tolist()):
                color = np.eye(3)[j % 3] * 255 if j < 3 else (255, 255, 255 * (j == 4))
                cv2.circle(picture, joint, 3, tuple(map(int, color)), -1)
            flags = np.array([[2], [2], [2], [1], [2]])
            low, high = joints.min(0) - 4, joints.max(0) + 4
            annotations.append(
                {
                    "id": len(annotations) + 100,
                    "image_id": k + 500,
                    "category_id": 2,
                    "keypoints": np.hstack([joints, flags]).ravel().tolist(),
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                }
            )
        cv2.imwrite(str(folder / "images" / f"{k}.jpg"), picture)
        images.append({"id": k + 500, "file_name": f"{k}.jpg", "width": 80, "height": 60})
    animal = {"id": 2, "name": "fish", "keypoints": TOY, "skeleton": [[1, 2], [1, 3], [1, 5]]}
    content = {"images": images, "annotations": annotations, "categories": [animal]}
    return write(folder, content)
