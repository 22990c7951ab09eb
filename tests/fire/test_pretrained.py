"""What pretrained/README.md and docs/data.md say of the network for people, measured again.

python -m pytest -m fire -s tests/fire/test_pretrained.py
"""

import dataclasses
import os
import re
import time

import numpy as np
import pytest

from pipelines import checkpoints
from pipelines.data import image_io
from pipelines.data.annotations import BOX_CONTEXT, MISSING
from pipelines.data.readers import coco, lsp
from pipelines.inference.predictor import Predictor
from tests.helpers.processes import ROOT

DATA = os.environ.get("HOURGLASS_TEST_DATA", "")
pytestmark = [
    pytest.mark.fire,
    pytest.mark.skipif(not DATA, reason="HOURGLASS_TEST_DATA is not set: no photographs"),
]

# Those that MediaPipe has, too: all of LSP but neck and head top.
JOINTS = (
    "right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist right_elbow "
    "right_shoulder left_shoulder left_elbow left_wrist"
).split()
TIMES = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)  # sides of a picture over its person's crop


def box_of(person):
    """The box whose crop is the person's."""
    side = person.side / BOX_CONTEXT
    return (*(person.center + 0.5 - side / 2), side, side)


def selected(skeleton, *arrays):
    indices = [skeleton.index(name) for name in JOINTS]
    return [array[..., indices, :] if array.ndim == 3 else array[:, indices] for array in arrays]


def scored(predicted, true, known, unit, share) -> tuple[float, float, float]:
    """Percent of all known joints within ``share`` of their person's unit, with its 95 % interval.

    Args:
      predicted: [N, 12, 2] image px.
      true: [N, 12, 2] image px.
      known: [N, 12] bool.
      unit: [N] image px, NaN for people that are not scored.
      share: of the unit.
    """
    known = known & np.isfinite(unit)[:, None]
    near = np.linalg.norm(predicted - true, axis=-1) <= share * unit[:, None]
    hits, counts = (near & known).sum(1), known.sum(1)
    drawn = np.random.default_rng(0).integers(0, len(hits), [1000, len(hits)])
    shares = 100 * hits[drawn].sum(1) / counts[drawn].sum(1)
    return (100 * hits.sum() / counts.sum(), *np.percentile(shares, [2.5, 97.5]))


def torsos(skeleton, people) -> np.ndarray:
    """[N] distance of left shoulder and right hip, image px; NaN where one is not labelled."""
    ends = [skeleton.index(name) for name in ("left_shoulder", "right_hip")]
    both = [np.all(person.state[ends] != MISSING) for person in people]
    lengths = [np.linalg.norm(np.subtract(*person.joints[ends])) for person in people]
    return np.where(both, lengths, np.nan)


def said(what: str) -> float:
    """The number before ``what`` in a row of the card."""
    with open(os.path.join(ROOT, "pretrained", "README.md"), encoding="utf-8") as file:
        return float(re.search(re.escape(what) + r"\W*\| (\d+\.\d)", file.read())[1])


def describe(name: str, score) -> str:
    return f"{name}: {score[0]:.1f} ({score[1]:.1f} to {score[2]:.1f})"


@pytest.fixture(scope="module")
def sports():
    """The 1,000 people that the network was not trained on, with their photographs."""
    folder = os.path.join(DATA, "lspet")
    found = lsp.read(os.path.join(folder, "joints_9000.mat"))
    people = [person for person in found.people if person.split == "validation"]
    images = [image_io.read(os.path.join(folder, "images", one.image))[0] for one in people]
    return found.skeleton, people, images


@pytest.fixture(scope="module")
def everyday():
    """COCO's people with both ends of a torso, with their photographs."""
    people, images = [], []
    for split in ("train2017", "val2017"):
        folder = os.path.join(DATA, "coco_mini", split)
        path = os.path.join(DATA, "coco_mini", f"person_keypoints_{split}.json")
        found = coco.read(path, head="box:0.1", images=folder)
        of_split = [one for one in found.people if np.isfinite(torsos(found.skeleton, [one])[0])]
        people += of_split
        images += [image_io.read(os.path.join(folder, one.image))[0] for one in of_split]
    return found.skeleton, people, images


def truth(skeleton, people):
    # LSP's invisible joints are not labelled; COCO's are, where they are hidden.
    joints, known = selected(
        skeleton,
        np.stack([person.joints for person in people]),
        np.stack([person.state != MISSING for person in people]),
    )
    return joints, known


def test_people_in_sports(sports):
    skeleton, people, images = sports
    predictor = Predictor.load()
    predictor(images[:33], [[box_of(person)] for person in people[:33]])  # compiles
    start = time.perf_counter()
    poses = predictor(images, [[box_of(person)] for person in people])
    seconds = time.perf_counter() - start
    joints, known = truth(skeleton, people)
    (predicted,) = selected(skeleton, np.stack([pose.joints for (pose,) in poses]))
    heads = np.array([person.head_size for person in people])
    head = scored(predicted, joints, known, heads, 0.5)
    torso = scored(predicted, joints, known, torsos(skeleton, people), 0.2)
    print(f"\n{len(people)} people, {1e3 * seconds / len(people):.1f} ms each, 12 joints pooled")
    print(describe("PCKh@0.5", head), describe("PCK@0.2 of the torso", torso), sep="\n")
    assert head[0] == pytest.approx(said("LSP-extended, PCKh@0.5"), abs=0.3)
    assert torso[0] == pytest.approx(said("LSP-extended, PCK@0.2 of the torso"), abs=0.3)


def test_people_of_coco(everyday):
    """People with 12 shared joints in 60 pictures; the network never saw such ones."""
    skeleton, people, images = everyday
    predictor = Predictor.load()
    poses = predictor(images, [[box_of(person)] for person in people])
    (predicted,) = selected(predictor.skeleton, np.stack([pose.joints for (pose,) in poses]))
    joints, known = truth(skeleton, people)
    torso = scored(predicted, joints, known, torsos(skeleton, people), 0.2)
    print(f"\n{len(people)} people of COCO\n{describe('PCK@0.2 of the torso', torso)}")
    assert torso[0] == pytest.approx(said("COCO, PCK@0.2 of the torso"), abs=0.3)


def placed(image, person, times, random):
    """A person's crop somewhere in an even picture that is ``times`` as high; and its shift."""
    side = int(person.side)
    x, y = np.rint(person.center - side / 2).astype(int)
    cut = image[max(y, 0) : max(y + side, 1), max(x, 0) : max(x + side, 1)]
    size = int(times * side)
    whole = np.empty([size, size, 3], np.uint8)
    whole[:] = image.reshape(-1, 3).mean(0)
    left, top = random.integers(0, [size - cut.shape[1] + 1, size - cut.shape[0] + 1])
    whole[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    shift = np.array([left - max(x, 0), top - max(y, 0)])
    moved = dataclasses.replace(person, center=person.center + shift, joints=person.joints + shift)
    return whole, moved


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("which", ["sports", "everyday"])
def test_how_much_cutting_again_wins_back(which, request):
    """At most 300 people, anywhere in pictures of several times their size."""
    skeleton, people, images = request.getfixturevalue(which)
    predictor, random = Predictor.load(), np.random.default_rng(0)
    known = truth(skeleton, people[:300])[1]
    print(f"\n{which}, PCK@0.2 of the torso: times, true boxes, cut once, twice, three times")
    for times in TIMES:
        pairs = [placed(*pair, times, random) for pair in zip(images[:300], people)]
        placed_images, moved = zip(*pairs)
        unit = torsos(skeleton, moved)
        joints = truth(skeleton, moved)[0]
        row = []
        for recuts, boxes in (
            (0, [[box_of(one)] for one in moved]),
            (0, None),
            (1, None),
            (2, None),
        ):
            predictor.recuts = recuts
            poses = predictor(placed_images, boxes)
            (predicted,) = selected(
                predictor.skeleton, np.stack([pose.joints for (pose,) in poses])
            )
            row.append(scored(predicted, joints, known, unit, 0.2)[0])
        print(f"{times:.2f}", *(f"{score:6.1f}" for score in row))
        assert row[3] > row[1] - 1.0


def test_the_weights_are_small_and_say_what_they_are():
    folder = checkpoints.PRETRAINED
    size = sum(
        os.path.getsize(os.path.join(where, name))
        for where, _, names in os.walk(folder)
        for name in names
    )
    assert size <= 6e6
    network, skeleton, prefix, part = checkpoints.load_network(folder)
    kernels = [array for array in checkpoints.values(prefix, part).values() if array.ndim > 1]
    assert {array.dtype.name for array in kernels} == {"float16"}
    assert set(JOINTS) <= set(skeleton.joints)
