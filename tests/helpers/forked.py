"""Runs scripts in processes of their own that begin with TensorFlow imported, which takes seconds.

Reads lines of JSON, [folder, [script, words...]], and answers each with {"code", "output",
"errors"}. Nothing is shared but imported modules: TensorFlow starts its threads with its first
operation, and this process runs none.
"""

import importlib
import json
import os
import pathlib
import runpy
import sys
import tempfile
import traceback

ROOT = pathlib.Path(__file__).parents[2]
MODULES = (
    *("training.train", "evaluation.evaluate", "evaluation.people_page", "evaluation.scoring"),
    *("export.export", "inference.predict_command", "training.summaries", "data.write_tfrecords"),
)


def run(words: list[str]) -> int:
    """What ``python words...`` does, up to its exit code."""
    sys.argv = words
    sys.path.insert(0, os.path.dirname(os.path.abspath(words[0])))
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return int(isinstance(end.code, str)) or int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def child(folder: str, words: list[str], output, errors) -> None:
    """Become the script: its folder, nothing to read, these to write to; never returns."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    os.chdir(folder)
    code = run(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def answer(folder: str, words: list[str]) -> dict:
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = os.fork()
        if not process:
            child(folder, words, output, errors)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        for file in (output, errors):
            file.seek(0)
        return {"code": code, "output": output.read(), "errors": errors.read()}


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    os.environ.setdefault(
        "GLIBC_TUNABLES", ""
    )  # a script that starts itself again would start this
    for name in ("rich.table", "matplotlib.figure", *(f"pipelines.{name}" for name in MODULES)):
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)
