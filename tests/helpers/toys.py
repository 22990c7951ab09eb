"""A toy animal with joints of its own, drawn, and annotated for COCO's, YOLO's and labelme's."""

import json
import pathlib

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


def _toys(folder, count):
    """Picture's name and its annotations, of each; the pictures lie in ``folder``/images."""
    path = pathlib.Path(draw_toys(folder, count))
    content = json.loads(path.read_text())
    path.unlink()
    for image in content["images"]:
        ours = [one for one in content["annotations"] if one["image_id"] == image["id"]]
        yield image["file_name"], ours


def draw_yolo_toys(folder, count=20):
    """The same as Roboflow exports it: paths that lead out of the folder, flip_idx, no names."""
    for k, (name, toys) in enumerate(_toys(folder, count)):
        part = folder / ("valid" if k % 5 == 0 else "train")
        for inner in ("images", "labels"):
            (part / inner).mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).rename(part / "images" / name)
        rows = []
        for toy in toys:
            x, y, width, height = toy["bbox"]
            box = [(x + width / 2) / 80, (y + height / 2) / 60, width / 80, height / 60]
            table = np.reshape(toy["keypoints"], (-1, 3)) / (80, 60, 1)
            rows.append(" ".join(map(str, [0, *box, *table.ravel()])))
        (part / "labels" / name).with_suffix(".txt").write_text("\n".join(rows) + "\n")
    (folder / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
        "kpt_shape: [5, 3]\nflip_idx: [0, 2, 1, 3, 4]\n\nnc: 1\nnames: ['fish']\n\n"
        "roboflow:\n  workspace: toys\n  license: CC BY 4.0\n"
    )


def draw_labelme_toys(folder, count=20):
    """The same as labelme writes it: a JSON beside each picture, groups where there are two."""
    for name, toys in _toys(folder, count):
        (folder / "images" / name).rename(folder / name)
        shapes = []
        for k, toy in enumerate(toys):
            x, y, width, height = toy["bbox"]
            corners = [[x, y], [x + width, y + height]]
            shapes.append(labelme_shape("fish", corners, "rectangle", group_id=k))
            for label, (x, y, flag) in zip(TOY, np.reshape(toy["keypoints"], (-1, 3)).tolist()):
                flags = {"occluded": flag == 1}
                shapes.append(labelme_shape(label, [[x, y]], "point", group_id=k, flags=flags))
        write(folder, labelme_file(name, shapes, (80, 60)), name.replace(".jpg", ".json"))


def labelme_shape(label, points, kind="point", **changes):
    """A shape with the keys of labelme 5.5."""
    shape = {"label": label, "points": points, "group_id": None, "description": ""}
    return {**shape, "shape_type": kind, "flags": {}, "mask": None, **changes}


def labelme_file(image, shapes, size=(200, 100), **changes):
    """A file with the keys of labelme 5.5."""
    width, height = size
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image}
    return {**content, "imageData": None, "imageHeight": height, "imageWidth": width, **changes}
