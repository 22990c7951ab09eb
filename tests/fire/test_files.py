"""Files that cannot be written: one sentence, exit code 1, and what was there stays whole."""

import dataclasses
import json
import pathlib
import shutil

import pytest

from pipelines.config import to_flagfile
from tests.helpers.people import tiny
from tests.helpers.processes import ROOT, start_python

pytestmark = pytest.mark.slow

# Runs a script whose files can hold so many bytes only: to a program, a full disk looks like this.
LIMITED = """
import resource, runpy, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*words: str) -> tuple[int, str]:
    process = start_python(*words)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def contents(folder: pathlib.Path) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("ckpt-*")) if path.is_file()}


def test_no_space_for_a_checkpoint(tmp_path, trained):
    """What the interrupted run had saved stays, and is resumed when there is space again."""
    config = dataclasses.replace(trained[0], workdir=str(tmp_path / "run"), steps=18, epochs=100.0)
    shutil.copytree(trained[0].workdir, config.workdir)
    longer = to_flagfile(config)
    pathlib.Path(config.workdir, "flags.txt").write_text(longer)
    (tmp_path / "flags").write_text(longer)
    before = contents(tmp_path / "run")
    main = (str(ROOT / "train_main.py"), f"--flagfile={tmp_path / 'flags'}")
    code, output = run("-c", LIMITED, "30000", *main)
    assert code == 1 and "Traceback" not in output, output
    assert "error: cannot save step " in output and "the same command resumes" in output
    after = contents(tmp_path / "run")
    assert before.items() <= after.items()
    code, output = run(*main)
    assert code == 0 and "resuming" in output, output


def test_no_space_for_results(tmp_path, trained):
    config = dataclasses.replace(
        trained[0], checkpoint=trained[0].workdir, workdir=str(tmp_path / "scored")
    )
    (tmp_path / "flags").write_text(to_flagfile(config))
    words = (str(ROOT / "eval_main.py"), f"--flagfile={tmp_path / 'flags'}")
    code, output = run("-c", LIMITED, "2000", *words)
    assert code == 1 and "Traceback" not in output and "error: cannot write" in output, output
    written = tmp_path / "scored" / "results.json"
    assert not written.exists() or json.loads(written.read_text())


def test_a_workdir_that_is_a_file(tmp_path, info):
    (tmp_path / "run").write_text("mine")
    (tmp_path / "flags").write_text(to_flagfile(tiny(tmp_path / "run", info)))
    code, output = run(str(ROOT / "train_main.py"), f"--flagfile={tmp_path / 'flags'}")
    assert code == 1 and "Traceback" not in output and "error: " in output, output
    assert (tmp_path / "run").read_text() == "mine"
