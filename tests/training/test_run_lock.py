"""The lock of a run's folder: real processes, killed ones, and other machines."""

import json
import os
import signal
import time

import pytest

from pipelines.training import run_lock
from tests.helpers.processes import start_python

HOLD = """
import sys, time
from pipelines.training import run_lock
with run_lock.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = start_python("-c", HOLD, str(tmp_path))
    while "held" not in process.stdout.readline():
        assert process.poll() is None
    with process:  # which closes its pipe
        yield process
        process.kill()


def lock(folder) -> dict:
    return json.loads((folder / run_lock.LOCK_FILE).read_text())


def write(folder, **changes):
    here = {"host": "elsewhere", "pid": 1, "started": "5", "renewed": time.time()}
    (folder / run_lock.LOCK_FILE).write_text(json.dumps({**here, **changes}))


def test_it_is_there_while_it_is_held(tmp_path):
    with run_lock.hold(str(tmp_path)):
        assert lock(tmp_path)["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_nothing_was_written_to_goes(tmp_path):
    with run_lock.hold(str(tmp_path / "new" / "run")):
        pass
    assert not (tmp_path / "new" / "run").exists()


def test_a_running_process_keeps_others_out(tmp_path, holder):
    with pytest.raises(ValueError, match=f"process {holder.pid} on .* another --workdir"):
        with run_lock.hold(str(tmp_path)):
            pass
    assert lock(tmp_path)["pid"] == holder.pid


def test_a_killed_one_does_not(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with run_lock.hold(str(tmp_path)):
        assert lock(tmp_path)["pid"] == os.getpid()


def test_a_number_that_another_process_has_now(tmp_path, holder):
    write(tmp_path, host=run_lock._this_process()["host"], pid=holder.pid, started="1")
    with run_lock.hold(str(tmp_path)):
        pass


@pytest.mark.parametrize(("age", "alive"), [(0, True), (run_lock.STALE + 1, False)])
def test_another_machine_is_believed_as_long_as_it_renews(tmp_path, age, alive):
    write(tmp_path, renewed=time.time() - age)
    if not alive:
        with run_lock.hold(str(tmp_path)):
            return
    with pytest.raises(ValueError, match="process 1 on elsewhere"):
        with run_lock.hold(str(tmp_path)):
            pass


def test_it_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "RENEW", 0.02)
    with run_lock.hold(str(tmp_path)):
        first = lock(tmp_path)["renewed"]
        time.sleep(0.3)
        assert lock(tmp_path)["renewed"] > first


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"{}", b"[1]", b'{"host": 3}'])
def test_a_damaged_lock_is_no_lock(tmp_path, content):
    (tmp_path / run_lock.LOCK_FILE).write_bytes(content)
    with run_lock.hold(str(tmp_path)):
        assert lock(tmp_path)["pid"] == os.getpid()


def test_an_error_inside_frees_it(tmp_path):
    with pytest.raises(KeyError), run_lock.hold(str(tmp_path)):
        raise KeyError
    assert not list(tmp_path.iterdir())
