"""What commands print, in processes of their own: our lines and no other, and errors in any case.

The environment is a new user's: TF_CPP_MIN_LOG_LEVEL is not set and matplotlib has no font cache.
"""

import os
import re
import subprocess
import sys

import pytest

from hourglass import quiet
from tests.helpers.forked import ROOT

SMALL = (
    "--flagfile=configs/demo.flags --records=data --workdir=run --stacks=1 --channels=8 --depth=1 "
    "--size=32 --global_batch_size=8 --steps=4 --log_every=2 --evaluate_every=100 "
    "--evaluation_batch_size=4 --precise_bn_examples=0"
)
EXPORT = "scripts/export.py --checkpoint=run --records=data --people=4"

# Tables of rich and progress bars of tqdm.
TABLE, BAR = "[┏┡└├┃│].*", r"([a-z ]+: +)?\d+%\|.*"
WRITTEN = r"run/best/ckpt-4 \((raw|averaged) weights\) -> .*"
# The caption below an export's table in one or two lines, and what a tiny network cannot show.
COMPARED = "Distances from the checkpoint's joints. .*|.*all people, unfolded.|note: .*"

# Printed below the table of scores, and its title above it.
SCORED = [
    r"(mean14|weighted14|pooled16) [\d.]+, 95 % from .*",
    "bias in x and y, .*|no bias: .*",
    r"-?[\d.]+ -?[\d.]+ heatmap px",
    "4 people; .*",
    "warning: correct joints are .*",
    ".*: 4 people.*",
]

# Command -> forms of the other lines that it prints; in an order in which each finds its files.
COMMANDS = {
    "scripts/make_tfrecords.py --dataset=synthetic --people=24 --workers=1 --side=64 "
    "--records=data": ["synthetic in data"],
    f"train_main.py {SMALL}": [
        r"training records of [\d.]+ GB: read once, kept in memory",
        r"step 4: validation mean14 PCKh@0\.5 .*",
        r"step 4 of 4, saved as run/checkpoints/ckpt-4; data wait .*, 1 trace",
    ],
    f"eval_main.py {SMALL}": [WRITTEN, *SCORED],
    "eval_main.py --predictions=run/predictions.json --ground_truth=data --output=scored": [
        r"run/predictions\.json -> scored/results\.json, curve\.csv, curve\.png",
        *SCORED,
    ],
    "scripts/draw_records.py --records=data --count=4 --size=64": [r"data/truth\.png"],
    "scripts/predict.py --checkpoint=run data/truth.png": [
        "no --boxes: each picture shows one person.*",
        r"1 person in 1 image -> predictions/predictions\.json",
    ],
    "scripts/browse.py --records=data --predictions=run/predictions.json --size=64": [
        r"run/people\.html: 4 of 4 people, .* MB"
    ],
    "scripts/plot_runs.py run": [r"run, (raw|averaged): best .*", r"curves\.png"],
    f"{EXPORT} --format=savedmodel --output=exports/pose": [WRITTEN, COMPARED, "exports/pose: .*"],
    f"{EXPORT} --format=tflite --output=pose.tflite": [WRITTEN, COMPARED, r"pose\.tflite: .*"],
    f"scripts/benchmark.py {SMALL} --people=8 --parts=input --repeats=1 --seconds=0.05": [
        r"\d\d:\d\d:\d\d (preparing|parts:|starting|round) .*",
        r"parts \(.*",
        r"20\d\d-\d\d-\d\dT.* cores of .*",
        r".*opencv-python.*",
        r"[\d.]+(\+cpu)?",  # the end of that line where the processor has a long name
        r"[\d.]+ s in all; load at the start .*",
    ],
}


def environment(tmp_path, **changes) -> dict:
    kept = {name: value for name, value in os.environ.items() if name != quiet.LEVEL}
    own = {"CUDA_VISIBLE_DEVICES": "-1", "MPLCONFIGDIR": str(tmp_path / "mpl"), "COLUMNS": "200"}
    return {**kept, **own, **changes}


def run(folder, *words: str, **changes) -> tuple[int, str]:
    """Exit code, and what a fresh Python printed to standard output and standard error."""
    answer = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment(folder, **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return answer.returncode, answer.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which each command finds what those before it wrote."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


@pytest.mark.slow
@pytest.mark.fire
@pytest.mark.parametrize("line", COMMANDS, ids=[" ".join(c.split()[:1]) for c in COMMANDS])
def test_every_line_is_ours(home, line):
    script, *words = line.split()
    code, output = run(home, str(ROOT / script), *words)
    assert code == 0, output
    forms = re.compile("|".join(["", TABLE, BAR, *COMMANDS[line]]))
    lines = [text.strip() for text in re.split("[\r\n]", output)]
    assert [text for text in lines if not forms.fullmatch(text)] == []


def python(tmp_path, code: str, **changes) -> tuple[int, str]:
    return run(tmp_path, "-c", code, PYTHONPATH=str(ROOT), **changes)


COMPILE = """
from hourglass import quiet
import tensorflow as tf
quiet.start_xla()
tf.function(lambda: tf.constant(1.0) + 1.0, jit_compile=True)()
"""


@pytest.mark.slow
def test_who_wants_tensorflow_s_log_gets_it(tmp_path):
    assert python(tmp_path, COMPILE) == (0, "")
    code, output = python(tmp_path, COMPILE, **{quiet.LEVEL: "0"})
    assert code == 0 and "Compiled cluster using XLA" in output


NOTICES = """\
2026-11-26 21:22:11.239870: I tensorflow/core/util/port.cc:113] oneDNN custom operations are on.
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795728253.189414    6201 port.cc:153] oneDNN custom operations are on.
To enable the following instructions: AVX2 AVX512F FMA, in other operations, rebuild TensorFlow.
2026-11-26 21:30:18.120628: W tensorflow/compiler/tf2tensorrt/utils/py_utils.cc:38] TF-TRT Warning
2026-11-26 21:30:17.306922: E external/local_xla/xla/stream_executor/cuda/cuda_dnn.cc:9261] \
Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN when one has \
already been registered
"""
ERRORS = """\
E0000 00:00:1795728255.851847    6201 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR
2026-11-26 21:30:17.306922: E external/local_xla/xla/stream_executor/cuda/cuda_dnn.cc:445] Loaded
"""
FATAL = """\
2026-11-26 21:30:17.306922: F tensorflow/core/platform/cpu_feature_guard.cc:39] no AVX here
Traceback (most recent call last):
\xff not even text
"""


@pytest.mark.parametrize("level, kept", [(2, ERRORS + FATAL), (3, FATAL)])
def test_lines_below_the_level_are_dropped(level, kept):
    text = (NOTICES + ERRORS + FATAL).encode("latin-1")
    answer = subprocess.run(quiet._filter(level), input=text, capture_output=True, check=True)
    assert answer.stdout.decode("latin-1") == kept


WRITE = """
import os
from hourglass import quiet
with quiet.{}:
    os.write(2, b"why\\n")
    {}
"""


@pytest.mark.parametrize("through", ["stderr_through(quiet._filter(3))", "stderr_on_failure()"])
@pytest.mark.parametrize("end", ["os.abort()", "raise ValueError"])
def test_last_words_of_a_process_appear(tmp_path, through, end):
    code, output = python(tmp_path, WRITE.format(through, end))
    assert code and "why\n" in output
    assert ("ValueError" in output) == (end == "raise ValueError")


def test_a_success_is_quiet_and_what_follows_appears(tmp_path):
    code = WRITE.format("stderr_on_failure()", "") + "os.write(2, b'then\\n')"
    assert python(tmp_path, code) == (0, "then\n")


def test_without_the_filter_s_command_nothing_changes(tmp_path):
    code = WRITE.format("stderr_through(['nowhere/grep'])", "") + "os.write(2, b'then\\n')"
    assert python(tmp_path, code) == (0, "why\nthen\n")


@pytest.mark.parametrize("hidden, level", [("", "3"), ("-1", "3"), ("0", "2"), (None, "2")])
def test_errors_of_cuda_appear_where_a_gpu_is_used(tmp_path, monkeypatch, hidden, level):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(quiet.LEVEL)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert quiet._level() == int(level) and os.environ[quiet.LEVEL] == level
    monkeypatch.setenv(quiet.LEVEL, "1")
    assert quiet._level() == 1, "a user's own choice"


@pytest.mark.slow
def test_errors_of_ours_appear(tmp_path):
    code, output = run(tmp_path, str(ROOT / "eval_main.py"), "--workdir=none", "--records=none")
    assert code == 1
    (line,) = output.splitlines()
    assert line.startswith("error: ")
    code, output = python(tmp_path, "from pipelines import cli\ncli.run(lambda: 1 / 0)")
    assert code == 1 and "ZeroDivisionError: division by zero" in output
