"""The original ``mpii_human_pose_v1_u12_1.mat``, translated into the bearpaw JSON schema.

The struct is ``RELEASE.annolist(i)`` with ``image.name`` and ``annorect(j)`` (``x1 y1 x2 y2`` head
box, ``scale``, ``objpos.x/y``, ``annopoints.point(k).x/y/id/is_visible``) and
``RELEASE.img_train(i)``. Any of them is missing or empty for some people, and arrays of one element
arrive as the element. The translation follows pytorch-pose's ``miscs/gen_mpii.m``, which wrote the
bearpaw JSON: a joint without a point is ``[0, 0, 0]``; ``is_visible`` counts as 1 unless it is 0 or
"0" (also when it is empty or not there). ``single_person`` is consulted for the test set's
submission only: the published files do not consult it either. The struct is as documented and as
other readers use it; the real file was not available.
"""

from __future__ import annotations

import typing

import numpy as np

from pipelines.data.readers import files


def entries(data: bytes, path: str) -> list[dict]:
    """Every ``annorect`` of the file, in file order, as a bearpaw-schema entry.

    Args:
      data: the file's bytes.
      path: its name, for errors.

    Returns dicts with ``img_paths``, ``people_index`` (1-based index in ``annorect``), ``objpos``
      [2], ``scale_provided``, ``joint_self`` [16, 3] of (x, y, visible), ``head_box`` [4] of
      (x1, y1, x2, y2), all 1-based image px and None where the file has nothing, and ``split``:
      "train" or "test".
    Raises ValueError for another kind of file, or naming the annolist and annorect index.
    """
    _, images, training = _release(data, path)
    return [
        _entry(person, number, image, train, f"{path}: annolist({index}).annorect({number})")
        for index, (image, train) in enumerate(zip(images, training), start=1)
        for number, person in enumerate(_list(image, "annorect"), start=1)
    ]


class Photograph(typing.NamedTuple):
    """A photograph of the test set: its name, its people's ids, and those who are scored."""

    image: str
    people: tuple[str, ...]
    single: tuple[str, ...]


def test_set(data: bytes, path: str) -> list[Photograph]:
    """The photographs with ``img_train`` 0, in file order.

    ``people`` has an id for each ``annorect``, ``single`` those named in ``single_person`` who have
    a centre and a scale: the others cannot be cropped.

    Raises ValueError as ``entries``, and for a ``single_person`` of another length.
    """
    release, images, training = _release(data, path)
    single = _list(release, "single_person")
    if len(single) != len(images):
        raise ValueError(
            f"{path}: RELEASE.single_person has {len(single)} entries for {len(images)} photographs"
        )
    return [
        _photograph(image, np.ravel(numbers))
        for image, train, numbers in zip(images, training, single)
        if not float(train)
    ]


def _photograph(image: object, numbers: np.ndarray) -> Photograph:
    name, people = _field(_field(image, "image"), "name"), _list(image, "annorect")
    ids = tuple(f"{name}#{number}" for number in range(1, len(people) + 1))
    usable = [
        _numbers(_field(person, "objpos"), ("x", "y")) and _number(person, "scale")
        for person in people
    ]
    scored = {int(number) for number in numbers}
    single = (key for k, key in enumerate(ids) if k + 1 in scored and usable[k])
    return Photograph(name, ids, tuple(single))


def _release(data: bytes, path: str) -> tuple[object, list, np.ndarray]:
    mat = files.parse_mat(data, path, struct_as_record=False, squeeze_me=True)
    release = mat.get("RELEASE")
    images, training = _list(release, "annolist"), np.ravel(_field(release, "img_train"))
    if not images or len(images) != len(training):
        raise ValueError(
            f"{path} is not MPII's release: RELEASE.annolist and RELEASE.img_train of equal length "
            f"were expected; it has {sorted(k for k in mat if not k.startswith('__'))}"
        )
    return release, images, training


def _field(struct: object, name: str) -> object:
    value = getattr(struct, name, None)
    return (
        None
        if value is None or np.size(value) == 0 or isinstance(value, str) and not value
        else value
    )


def _list(struct: object, name: str) -> list:
    value = _field(struct, name)
    return [] if value is None else list(np.ravel(np.asarray(value, dtype=object)))


def _number(struct: object, name: str) -> float | None:
    value = _field(struct, name)
    return None if value is None else float(np.ravel(value)[0])


def _numbers(struct: object, names: tuple[str, ...]) -> list[float] | None:
    values = [_number(struct, name) for name in names]
    return None if None in values else values


def _entry(person: object, number: int, image: object, train: float, where: str) -> dict:
    try:
        return {
            "img_paths": _field(_field(image, "image"), "name"),
            "people_index": number,
            "objpos": _numbers(_field(person, "objpos"), ("x", "y")),
            "scale_provided": _number(person, "scale"),
            "joint_self": _joint_table(_list(_field(person, "annopoints"), "point")),
            "head_box": _head_box(person),
            "split": "train" if float(train) else "test",
        }
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _head_box(person: object) -> list[float] | None:
    box = _numbers(person, ("x1", "y1", "x2", "y2"))
    return box if box and box[2] > box[0] and box[3] > box[1] else None


def _joint_table(points: list) -> np.ndarray | None:
    if not points:
        return None
    table = np.zeros((16, 3))
    for point in points:
        values = _numbers(point, ("id", "x", "y"))
        if values is None or values[0] not in range(16):
            raise ValueError(
                f"a point needs x, y and an id from 0 to 15, not (id, x, y) = {values}"
            )
        hidden = _number(point, "is_visible") == 0
        table[int(values[0])] = (values[1], values[2], 0 if hidden else 1)
    return table
