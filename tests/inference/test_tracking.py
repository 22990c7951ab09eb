"""People's numbers over the frames of a video, and the filters that follow them."""

import dataclasses

import numpy as np

from pipelines.inference import predict_media
from pipelines.inference.predict_media import Picture
from pipelines.inference.predictor import Pose
from pipelines.inference.tracking import Tracker, overlaps

HERE, THERE = (10.0, 10.0, 40.0, 80.0), (200.0, 10.0, 40.0, 80.0)


def boxes(*each):
    return np.reshape(each, (-1, 4)).astype(float)


def test_overlaps_by_hand():
    others = boxes((0, 0, 10, 10), (5, 0, 10, 10), (20, 0, 10, 10), (0, 0, 20, 20))
    found = overlaps(boxes((0, 0, 10, 10), (10, 0, 5, 10)), others)
    np.testing.assert_allclose(found, [[1, 50 / 150, 0, 100 / 400], [0, 50 / 100, 0, 50 / 400]])
    assert overlaps(boxes(), others).shape == (0, 4)


def test_numbers_follow_people_in_whatever_order_they_come():
    random, tracker = np.random.default_rng(0), Tracker(25.0)
    here, there = np.array(HERE), np.array(THERE)
    order = np.array([1, 2])
    for k in range(60):
        shift = np.array([4.0 * k, 0, 0, 0])
        frame = boxes(here + shift, there + shift)
        assert tracker(frame[order - 1]) == tuple(order), k
        order = random.permutation(order)


def test_a_swap_is_decided_for_all_together():
    """The pair that overlaps most would leave its neighbours without one that fits."""
    tracker = Tracker(25.0)
    assert tracker(boxes((0, 0, 10, 10), (6, 0, 10, 10))) == (1, 2)
    assert tracker(boxes((3.5, 0, 10, 10), (9.5, 0, 10, 10))) == (1, 2)


def test_absent_people_keep_their_number_for_a_second():
    tracker = Tracker(10.0)
    assert tracker(boxes(HERE, THERE)) == (1, 2)
    for _ in range(10):
        assert tracker(boxes(THERE)) == (2,)
    assert tracker(boxes(HERE, THERE)) == (1, 2)
    for _ in range(11):
        assert tracker(boxes(THERE)) == (2,)
    assert tracker(boxes(HERE, THERE)) == (3, 2), "gone for longer: new"
    assert tracker(boxes()) == () and tracker(boxes((500, 0, 9, 9), THERE)) == (4, 2)


def test_slow_videos_keep_numbers_for_one_frame():
    tracker = Tracker(0.2)
    assert [tracker(boxes(HERE)), tracker(boxes()), tracker(boxes(HERE))] == [(1,), (), (1,)]
    assert [tracker(boxes()), tracker(boxes()), tracker(boxes(HERE))] == [(), (), (2,)]


def video(count, order_of, where=(0.0, 500.0), box=True):
    """Frames with two people that stand still but for noise; their order in each frame is given."""
    random, source = np.random.default_rng(0), predict_media.Input("w.mp4", "w.mp4", "")
    for k in range(count):
        people = [random.normal(x, 1.0, [16, 2]) for x in where]
        poses = []
        for person in order_of(k):
            given = (where[person], 0.0, 100.0, 100.0) if box else None
            center = np.array([where[person] + 50, 50.0])
            poses.append(Pose(people[person], np.ones(16), given, center, 100.0))
        yield Picture(source, f"w.mp4#{k}", (640, 360)), poses


def test_people_are_smoothed_as_themselves():
    """In changing order, and by boxes or by crops: as if each were alone in its own video."""
    mixed = lambda k: (0, 1) if k % 3 else (1, 0)  # noqa: E731
    for box in (True, False):
        frames = [
            *predict_media.smoothed(predict_media.numbered(video(40, mixed, box=box), 30), 30)
        ]
        for person in (0, 1):
            sorted_ = [(p, [poses[person]]) for p, poses in video(40, lambda k: (0, 1))]
            alone = predict_media.smoothed(predict_media.numbered(sorted_, 30.0), 30.0)
            for k, ((picture, poses), (_, (expected,))) in enumerate(zip(frames, alone)):
                assert picture.persons == ((2, 1) if mixed(k) == mixed(1) else (1, 2))
                np.testing.assert_array_equal(poses[mixed(k).index(person)].joints, expected.joints)


def test_smoothing_calms_and_restarts_after_an_absence():
    order_of = lambda k: (0,) if k == 10 else (0, 1)  # noqa: E731
    frames = [*predict_media.numbered(video(20, order_of), 30.0)]
    smooth = [*predict_media.smoothed(frames, 30.0)]
    assert [picture for picture, _ in smooth] == [picture for picture, _ in frames]
    spread = [np.std([p[0].joints for _, p in some[5:]], 0).mean() for some in (frames, smooth)]
    assert spread[1] < 0.7 * spread[0]
    before, after = frames[11][1], smooth[11][1]
    np.testing.assert_array_equal(after[1].joints, before[1].joints)
    assert (after[0].joints != before[0].joints).any()
    assert dataclasses.replace(after[0], joints=None).box == before[0].box
