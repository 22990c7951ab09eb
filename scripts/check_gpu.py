"""Does this machine's GPU work, and how fast: one report to paste into an issue.

    python scripts/check_gpu.py

looks at driver, CUDA and TensorFlow (with the remedy where TensorFlow does not see a GPU), compares
the GPU's results with the CPU's, says where TensorFlow puts a training step's operations, and
measures training, input pipeline and PyTorch. It takes less than eight minutes and writes report.md
and report.json. Without a GPU it runs on the CPU, at smaller sizes.

Leaves with 1 where there are GPUs that TensorFlow does not see, or where results are wrong.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import json
import tempfile
import time

from absl import flags

from pipelines import cli
from pipelines.benchmark import environment, gpu_check, gpu_report

_FLAGS = flags.FLAGS


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _measure(folder: str) -> tuple[dict, str]:
    """What all sections found, and the name of their sizes."""
    start, seconds = time.monotonic(), 60 * _FLAGS.minutes
    _say("machine")
    found = {"machine": gpu_check.machine(folder, seconds / 4)}
    name = "gpu" if found["machine"]["tensorflow"].get("gpus") else "cpu"
    name = "smallest" if _FLAGS.smallest else name
    if not found["machine"]["unseen"]:
        sizes, python = gpu_check.SIZES[name], _FLAGS.torch_python
        gpu_check.run(gpu_check.Check(sizes, folder, seconds, python, _say, start, found))
    return found, name


def main() -> int:
    """Check, print the page and write both files."""
    about, start = environment.describe([]), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="check-gpu-") as folder:
        found, sizes = _measure(folder)
    about["gpus"] = [gpu["name"] for gpu in found["machine"]["gpus"]]
    about["seconds"] = round(time.monotonic() - start, 1)
    problems = gpu_check.problems(found)
    page = gpu_report.markdown(about, found, sizes, problems)
    data = json.dumps(gpu_report.as_json(about, found, sizes, problems), indent=1)
    os.makedirs(_FLAGS.output, exist_ok=True)
    paths = [os.path.join(_FLAGS.output, f"report.{kind}") for kind in ("md", "json")]
    for path, text in zip(paths, (page, data)):
        with open(path, "w") as file:
            file.write(text)
    print(page)
    print(f"-> {' and '.join(paths)}: please paste the first into an issue")
    return 1 if problems else 0


def _define_flags() -> None:
    flags.DEFINE_string("output", "gpu_report", "folder for report.md and report.json")
    flags.DEFINE_float("minutes", 7.5, "time for all of it; what does not fit is left out", 0.5)
    flags.DEFINE_bool("smallest", False, "smallest sizes: only to see that the command works")
    flags.DEFINE_string(
        "torch_python",
        "",
        "Python with PyTorch for CUDA, whose libraries do not go with TensorFlow's in one "
        "environment; default: the one that runs this",
    )


if __name__ == "__main__":
    with cli.group("Check"):
        _define_flags()
    cli.run(main)
