"""Check this machine's GPU and measure its speed: one report to paste into an issue.

    python scripts/check_gpu.py

inspects driver, CUDA and TensorFlow (with a remedy if TensorFlow does not see a GPU), compares the
GPU's results with the CPU's, lists on which devices a training step's operations run, and measures
training, input pipeline and PyTorch. It takes less than eight minutes and writes report.md and
report.json. Without a GPU it runs on the CPU, at smaller sizes.

Exits with 1 if there are GPUs that TensorFlow does not see, or if results are wrong.
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


def _print_progress(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _measure(folder: str) -> tuple[dict, str]:
    """Results of all sections, and the name of their sizes."""
    start, seconds = time.monotonic(), 60 * _FLAGS.minutes
    _print_progress("machine")
    results = {"machine": gpu_check.machine(folder, seconds / 4)}
    name = "gpu" if results["machine"]["tensorflow"].get("gpus") else "cpu"
    name = "smallest" if _FLAGS.smallest else name
    if not results["machine"]["unseen"]:
        sizes, python = gpu_check.SIZES[name], _FLAGS.torch_python
        gpu_check.run(
            gpu_check.Check(sizes, folder, seconds, python, _print_progress, start, results)
        )
    return results, name


def main() -> int:
    """Run the check, print the page and write both files."""
    about, start = environment.describe([]), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="check-gpu-") as folder:
        results, sizes = _measure(folder)
    about["gpus"] = [gpu["name"] for gpu in results["machine"]["gpus"]]
    about["seconds"] = round(time.monotonic() - start, 1)
    problems = gpu_check.problems(results)
    page = gpu_report.markdown(about, results, sizes, problems)
    data = json.dumps(gpu_report.as_json(about, results, sizes, problems), indent=1)
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
    flags.DEFINE_float("minutes", 7.5, "total time; sections that do not fit are skipped", 0.5)
    flags.DEFINE_bool("smallest", False, "smallest sizes, only to test the command")
    flags.DEFINE_string(
        "torch_python",
        "",
        "Python with PyTorch for CUDA, whose libraries conflict with TensorFlow's in one "
        "environment; default: the one that runs this",
    )


if __name__ == "__main__":
    with cli.group("Check"):
        _define_flags()
    cli.run(main)
