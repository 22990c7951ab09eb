"""TensorBoard's files read back: thresholds, batch norm's statistics, hyper-parameters."""

import dataclasses

import cv2
import numpy as np
import pytest
import tensorflow as tf
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from hourglass.skeleton import MPII
from pipelines.config import Config
from pipelines.training import summaries


@pytest.fixture
def read(tmp_path):
    """A function that writes with functions of ``summaries`` and reads the events back."""

    def write_and_read(*works) -> EventAccumulator:
        writer = tf.summary.create_file_writer(str(tmp_path / "logs"))
        for step, work in enumerate(works):
            work(writer, step)
        writer.close()
        return EventAccumulator(str(tmp_path / "logs"), {"tensors": 0}).Reload()

    return write_and_read


def values(events, tag):
    return [tf.make_ndarray(one.tensor_proto) for one in events.Tensors(tag)]


class TestThresholds:
    def written(self, read, *errors):
        return read(
            *(
                lambda writer, step, e=e: summaries.write_thresholds(writer, step, "raw", e, MPII)
                for e in errors
            )
        )

    def test_threshold_curve_is_high_for_small_errors(self, read):
        """mean14 is the one thick black line; it ends at the top, or at the bottom."""
        good, bad = np.full((3, 16), 0.001), np.full((3, 16), 9.0)
        heights = []
        for width, height, png in values(self.written(read, good, bad), "validation/thresholds"):
            picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
            assert picture.shape == (int(height), int(width))
            # A little left of the middle, where the legend is not.
            column = picture[:, int(width) // 3 : int(width) // 3 + 20].max(1)
            black = np.flatnonzero(column < 60)
            heights.append(black.mean() / picture.shape[0])
        # The frame's bottom and top are black too.
        assert heights[0] < 0.45 < 0.55 < heights[1]


class TestHyperParameters:
    def groups(self, folder):
        """What TensorBoard's own HParams page would list of a folder of runs."""
        events = plugin_event_multiplexer.EventMultiplexer()
        events.AddRunsFromDirectory(str(folder)).Reload()
        provider = data_provider.MultiplexerDataProvider(events, str(folder))
        backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
        statuses = list(api_pb2.Status.values())
        request = api_pb2.ListSessionGroupsRequest(
            start_index=0, slice_size=10, allowed_statuses=statuses
        )
        handler = list_session_groups.Handler(context.RequestContext(), backend, "", request)
        return handler.run().session_groups

    def test_runs_are_rows_of_one_table(self, tmp_path):
        """Equal runs in two folders are two rows; the metric is the last value."""
        runs = {"a": {"stacks": 1}, "b": {"stacks": 8, "sync_bn": True}, "c": {"stacks": 1}}
        for name, changes in runs.items():
            config = Config(workdir=str(tmp_path / name), learning_rate=0.004, **changes)
            writer = tf.summary.create_file_writer(str(tmp_path / name / "logs"))
            summaries.write_hyper_parameters(writer, config)
            for step, percent in ((1, 10.0), (2, 50.0 + changes["stacks"])):
                results = {"PCKh@0.5": {"mean14": percent, "head": 3.0}}
                summaries.write_validation(writer, step, "averaged", results)
            writer.close()
        groups = {group.sessions[0].name: group for group in self.groups(tmp_path)}
        assert groups.keys() == {"a/logs", "b/logs", "c/logs"}
        for name, changes in runs.items():
            group = groups[f"{name}/logs"]
            assert group.hparams["stacks"].number_value == changes["stacks"]
            assert group.hparams["sync_bn"].bool_value == changes.get("sync_bn", False)
            assert group.hparams["learning_rate"].number_value == 0.004
            assert group.hparams["augmentation"].string_value == "pytorch_pose"
            metrics = {one.name.tag: one.value for one in group.metric_values}
            assert metrics == {"overview/PCKh@0.5 averaged": 50.0 + changes["stacks"]}

    def test_columns_are_what_training_depends_on(self, tmp_path):
        writer = tf.summary.create_file_writer(str(tmp_path / "a" / "logs"))
        summaries.write_hyper_parameters(writer, Config(workdir=str(tmp_path / "a")))
        writer.close()
        (group,) = self.groups(tmp_path)
        decisive = {f.name for f in dataclasses.fields(Config) if not f.metadata["may_change"]}
        assert set(group.hparams) == decisive | {"records"}
        assert "seed" in decisive and "workdir" not in decisive
