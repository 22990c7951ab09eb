"""Several processes train together over TF_CONFIG, here on this machine's loopback."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipelines import checkpoint_files, checkpoints, config, devices
from pipelines.training import train
from tests.helpers.forked import ROOT
from tests.helpers.people import tiny

MAIN = str(ROOT / "train_main.py")
TWO = ["10.0.0.1:2222", "10.0.0.2:2222"]


def tf_config(cluster: dict, kind: str = "worker", index=0) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


class TestTFConfig:
    @pytest.mark.parametrize(
        ("cluster", "kind", "index", "expected"),
        [
            ({"worker": TWO}, "worker", 0, (TWO, 0)),
            ({"worker": TWO}, "worker", 1, (TWO, 1)),
            ({"worker": TWO[:1]}, "worker", 0, (TWO[:1], 0)),
            ({"worker": TWO[1:], "chief": TWO[:1]}, "chief", 0, (TWO, 0)),
            ({"worker": TWO[1:], "chief": TWO[:1]}, "worker", 0, (TWO, 1)),
        ],
    )
    def test_addresses_and_our_index(self, cluster, kind, index, expected):
        assert devices.read_tf_config(tf_config(cluster, kind, index)) == expected

    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            ("", r"\(not set\): its \"cluster\" must list \"worker\" addresses"),
            ("worker 0", "must be a JSON object"),
            ("[1]", "must be a JSON object"),
            ('{"cluster": {"worker": 3}}', "must be a JSON object"),
            ("{}", "must list"),
            (tf_config({"worker": []}), "must list"),
            (tf_config({"worker": TWO, "ps": ["a:1"]}), "must list"),
            (tf_config({"worker": TWO, "chief": ["a:1", "b:1"]}), 'at most one "chief"'),
            (tf_config({"worker": ["10.0.0.1"]}), "'10.0.0.1' is not an address like host:port"),
            (tf_config({"worker": ["a:70000"]}), "'a:70000' is not an address"),
            (tf_config({"worker": [1, 2]}), "1 is not an address"),
            (tf_config({"worker": TWO[:1] * 2}), "lists an address twice"),
            (json.dumps({"cluster": {"worker": TWO}}), '"worker" and 0 to 1'),
            (tf_config({"worker": TWO}, index=2), '"worker" and 0 to 1'),
            (tf_config({"worker": TWO}, index=-1), '"worker" and 0 to 1'),
            (tf_config({"worker": TWO}, index="0"), '"worker" and 0 to 1'),
            (tf_config({"worker": TWO}, "chief"), '"worker" and 0 to 1'),
        ],
    )
    def test_invalid_tf_config_fails_before_anything_starts(
        self, tmp_path, info, monkeypatch, text, rule
    ):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(ValueError, match=f"{rule}.* on each machine.*--strategy=auto"):
            train.run(tiny(tmp_path / "run", info, strategy="multi_worker"))
        assert not (tmp_path / "run").exists()

    def test_a_port_in_use_fails_at_once(self, monkeypatch):
        with socket.create_server(("", 0)) as server:
            address = f"localhost:{server.getsockname()[1]}"
            monkeypatch.setenv("TF_CONFIG", tf_config({"worker": [address, TWO[1]]}))
            with pytest.raises(ValueError, match=f"{address}, worker 0 .* its own index"):
                devices.training_strategy("multi_worker")

    def test_not_for_parts_of_a_cpu(self):
        with pytest.raises(ValueError, match="--logical_devices is for one machine"):
            devices.training_strategy("multi_worker", 2)

    def test_a_process_in_which_tensorflow_has_started(self, monkeypatch):
        tf.zeros([])
        monkeypatch.setenv("TF_CONFIG", tf_config({"worker": free_addresses(1)}))
        with pytest.raises(ValueError, match="use a fresh process"):
            devices.training_strategy("multi_worker")

    def test_several_machines_must_not_train_separately(self, monkeypatch):
        monkeypatch.setenv("TF_CONFIG", tf_config({"worker": TWO}))
        with pytest.raises(ValueError, match="use --strategy=multi_worker, or unset TF_CONFIG"):
            devices.training_strategy("one")

    @pytest.mark.parametrize(
        "text", ["", "nonsense", '{"environment": "cloud"}', tf_config({"worker": TWO[:1]})]
    )
    def test_one_machine_trains_alone(self, monkeypatch, text):
        monkeypatch.setenv("TF_CONFIG", text)
        strategy = devices.training_strategy("one")
        assert devices.is_chief(strategy) and not devices.is_multi_worker(strategy)
        assert devices.gather(strategy, [3, 4]).tolist() == [[3, 4]]

    def test_evaluation_has_one_machine(self, monkeypatch):
        monkeypatch.setenv("TF_CONFIG", tf_config({"worker": TWO}))
        assert devices.make_strategy("multi_worker").num_replicas_in_sync == 1


class TestLostWorkers:
    # TensorFlow 2.15's errors when a worker was killed.
    LOST = (
        "{{function_node __wrapped__CollectiveReduceV2_Nordering_token_1_device_/job:worker/"
        "replica:0/task:0/device:CPU:0}} Collective ops is aborted by: Error reported from "
        "/job:worker/task:1: Task /job:worker/replica:0/task:1 heartbeat timeout. This indicates "
        "that the remote task has failed, got preempted, or crashed unexpectedly.\n"
        "The error could be from a previous operation. Restart your program to reset."
    )

    def test_are_named_with_the_remedy(self):
        with pytest.raises(ConnectionError, match="task:1 heartbeat timeout.*the same command"):
            with devices.naming_lost_workers():
                raise tf.errors.UnavailableError(None, None, self.LOST)

    def test_other_errors_stay(self):
        with pytest.raises(tf.errors.UnavailableError, match="gs://bucket"):
            with devices.naming_lost_workers():
                raise tf.errors.UnavailableError(None, None, "gs://bucket cannot be reached")


def free_addresses(count: int) -> list[str]:
    servers = [socket.create_server(("", 0)) for _ in range(count)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    return addresses


class Worker:
    """train_main.py in its own process, with its own folder for temporary files."""

    def __init__(self, folder: pathlib.Path, settings: config.Config, environment: dict):
        folder.mkdir()
        self.output = folder / "output.txt"
        (folder / "run.flags").write_text(config.to_flagfile(settings))
        # A logical device has one thread on two cores; convolutions of two threads round otherwise.
        own = {"CUDA_VISIBLE_DEVICES": "-1", "TF_NUM_INTRAOP_THREADS": "1"}
        own.update(TMPDIR=str(folder), **environment)
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, MAIN, f"--flagfile={folder / 'run.flags'}"],
                env={**os.environ, **own},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def finish(self, code: int = 0) -> str:
        returned = self.process.wait(timeout=300)
        text = self.output.read_text()
        assert returned == code and "Traceback" not in text, text
        return text


@pytest.fixture
def start(tmp_path):
    """A function that starts a process for each TF_CONFIG; processes left at the end are killed."""
    started = []

    def workers(settings: config.Config, count: int = 1) -> list[Worker]:
        addresses = free_addresses(count)
        for i in range(count):
            folder = tmp_path / f"process{len(started)}"
            many = {"TF_CONFIG": tf_config({"worker": addresses}, index=i)}
            started.append(Worker(folder, settings, many if count > 1 else {}))
        return started[-count:]

    yield workers
    for worker in started:
        worker.process.kill()
        worker.process.wait()


def losses(folder: str) -> dict[int, float]:
    events = EventAccumulator(os.path.join(folder, "logs"), {"tensors": 0}).Reload()
    return {e.step: float(tf.make_ndarray(e.tensor_proto)) for e in events.Tensors("overview/loss")}


def weights(folder: str, part: str) -> dict[str, np.ndarray]:
    return checkpoints.values(os.path.join(folder, "checkpoints", "ckpt-12"), part)


def wait_for(path: pathlib.Path, workers: list[Worker]) -> None:
    while not path.exists():
        for worker in workers:
            assert worker.process.poll() is None, worker.output.read_text()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.fire
def test_two_workers_equal_two_replicas(start, tmp_path, info):
    """Also when a signal to one of them, not the chief, stopped both in between."""
    folder, changes = tmp_path / "many", dict(log_every=1, evaluate_every=4.0)
    settings = tiny(folder, info, **changes, strategy="multi_worker")
    alone = tiny(tmp_path / "alone", info, **changes, strategy="mirrored", logical_devices=2)
    (reference,) = start(alone)
    chief, other = start(settings, 2)
    wait_for(folder / "checkpoints" / "ckpt-3.index", [chief, other])
    other.process.send_signal(signal.SIGTERM)
    for worker in (chief, other):
        text = worker.finish(128 + signal.SIGTERM)
        assert "the same command resumes this run" in text
    stopped = int(pathlib.Path(checkpoint_files.latest(str(folder / "checkpoints"))).name[5:])
    assert 3 <= stopped < 12

    chief, other = start(settings, 2)
    text = chief.finish()
    assert f"resuming {folder} from step {stopped}" in text
    assert "step 12: validation mean14" in text and "12/12" in text
    text = other.finish()
    assert "validation" not in text and "12/12" not in text
    reference.finish()

    # Temporary files are gone, also those of the workers that were stopped.
    for worker in tmp_path.glob("process*"):
        assert {path.name for path in worker.iterdir()} == {"run.flags", "output.txt"}
    names = {path.name for path in folder.iterdir()}
    assert names == {"best", "checkpoints", "logs", "flags.txt", "model.json", "validated.json"}
    assert not list(folder.rglob("*.partial"))
    assert len(list((folder / "logs").iterdir())) == 2  # one before the stop, one after it
    assert "--strategy=multi_worker" in (folder / "flags.txt").read_text()

    one, many = alone.workdir, settings.workdir
    expected, actual = losses(one), losses(many)
    assert list(expected) == sorted(actual) == list(range(1, 13))
    for step, loss in expected.items():
        assert actual[step] == pytest.approx(loss, rel=1e-5), step
    for part in ("model", "averaged"):
        expected, actual = weights(one, part), weights(many, part)
        assert expected.keys() == actual.keys() and len(expected) > 100
        for name, value in expected.items():
            np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
