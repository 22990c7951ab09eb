"""--help of every command line: our own flags in groups, each with its default, and exit code 0."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest

from pipelines.config import Config
from pipelines.export.export import ExportOptions
from pipelines.inference.media_options import MediaOptions
from tests.helpers.forked import ROOT
from tests.helpers.help_pages import GROUPS, entries
from tests.helpers.processes import start_python

# Behind --helpfull, because a training of one's own needs none of them.
EXPERIMENT = {"bn_momentum", "bn_epsilon"}
EXPERIMENT |= {"rmsprop_rho", "rmsprop_epsilon", "rmsprop_epsilon_inside"}
FIELDS = {field.name for field in dataclasses.fields(Config)} - EXPERIMENT
WHOLE = {
    "train_main.py": FIELDS,
    "eval_main.py": FIELDS | {"predictions", "ground_truth", "output"},
    "scripts/predict.py": {field.name for field in dataclasses.fields(MediaOptions)},
    "scripts/export.py": {field.name for field in dataclasses.fields(ExportOptions)},
}


@pytest.fixture(scope="module")
def pages(fork_script):
    """Script -> its --help, in lines of 80 characters."""
    answers = {script: fork_script(ROOT, script, "--help") for script in GROUPS}
    assert {(one["code"], one["errors"]) for one in answers.values()} == {(0, "")}, answers
    return {script: one["output"] for script, one in answers.items()}


def test_no_script_is_forgotten():
    scripts = {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")}
    # Of the set-up, without flags; the first runs before anything is installed.
    setup = {"scripts/fetch_pip.py", "scripts/check_wheels.py"}
    assert scripts - setup == {name for name in GROUPS if "/" in name}


@pytest.mark.parametrize("script", GROUPS)
def test_groups_hold_every_own_flag_and_no_other(pages, script):
    page = pages[script]
    assert re.findall(r"^(\S.*):\n  --", page, re.MULTILINE) == GROUPS[script]
    written = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', (ROOT / script).read_text()))
    listed = set(entries(page))
    assert written <= listed
    if script in WHOLE:
        assert listed == WHOLE[script]
    assert not listed & {"verbosity", "logtostderr", "pdb", "flagfile", "help"}


@pytest.mark.parametrize("script", GROUPS)
def test_every_flag_has_a_meaning_and_a_default(pages, script):
    for name, text in entries(pages[script]).items():
        assert re.search(r"\(default: .+\)$|default|\(required\)$", text), (name, text)
        assert len(text) > 25 and "Flag validation failed" not in text, (name, text)


def test_defaults_are_those_of_config(pages):
    listed = entries(pages["train_main.py"])
    for name, text in listed.items():
        value = getattr(Config(), name)
        shown = str(value).lower() if isinstance(value, bool) else str(value) or "none"
        # A flag with a help text that describes its default needs no "(default: ...)".
        assert text.endswith(f"(default: {shown})") or "default: --workdir" in text, (name, text)


def test_values_that_are_allowed(pages):
    train, export = entries(pages["train_main.py"]), entries(pages["scripts/export.py"])
    assert train["stem"] == "NAME <newell|pytorch_pose>: published first layers (default: newell)"
    assert train["stacks"] == "N hourglasses, each supervised; a positive integer (default: 2)"
    assert train["ema_decay"].endswith("must be at least 0 and below 1 (default: 0.999)")
    assert export["people"].endswith("; a positive integer (default: 300)")
    assert export["format"].endswith("file format (required)")


def test_usage_and_purpose(pages):
    page = pages["scripts/predict.py"]
    assert page.startswith(
        "usage: python scripts/predict.py [flags] INPUT...\n\nPredict the joints"
    )
    assert "--helpfull lists absl's own flags" in page and "--flagfile=FILE" in page
    assert pages["train_main.py"].startswith("usage: python train_main.py [flags]\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--stackz=3"], "Unknown command line flag 'stackz'. Did you mean: stacks ?"),
        (["--stacks=0"], "flag --stacks=0: 0 is not a positive integer"),
        (["--stem=resnet"], "value should be one of <newell|pytorch_pose>"),
        (["--flagfile=nowhere.flags"], "No such file or directory: 'nowhere.flags'"),
        (["steps=3"], "not a flag: steps=3; flags start with --"),
    ],
)
@pytest.mark.parametrize("script", ["train_main.py", "eval_main.py"])
def test_a_wrong_flag_is_one_sentence(fork_script, script, words, sentence):
    answer = fork_script(ROOT, script, *words)
    assert answer["code"] == 1 and answer["output"] == ""
    (line,) = answer["errors"].splitlines()
    assert line.startswith("error: ") and sentence in line and "--help lists the flags" in line


def test_a_flagfile_that_is_none_is_named(fork_script, tmp_path):
    for content in (b"\xff\x00", b"Not found\n", b"--stackz=3\n"):
        (tmp_path / "my.flags").write_bytes(content)
        answer = fork_script(tmp_path, str(ROOT / "train_main.py"), "--flagfile=my.flags")
        (line,) = answer["errors"].splitlines()
        assert line.startswith("error: ") and "my.flags" in line and answer["code"] == 1


def test_flags_that_are_missing_are_named(fork_script):
    answer = fork_script(ROOT, "scripts/make_submission.py", "--annotations=a.mat")
    assert answer["code"] == 1 and "--predictions" in answer["errors"]
    answer = fork_script(ROOT, "scripts/make_mpii_validation.py", "valid.h5")
    assert (answer["code"], answer["output"]) == (1, "")
    assert answer["errors"].startswith("error: three files are needed, not 1")


def test_the_flags_of_absl_and_of_experiments_are_behind_helpfull(fork_script):
    answer = fork_script(ROOT, "train_main.py", "--helpfull")
    assert answer["code"] == 0 and "--verbosity" in answer["output"]
    assert EXPERIMENT <= set(re.findall(r"--(?:\[no\])?(\w+)", answer["output"]))


def test_in_a_process_of_its_own():
    """The fastest one: TensorFlow is not imported for --help."""
    process = start_python("scripts/predict.py", "--help")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and output.startswith("usage: python scripts/predict.py [flags]")


@pytest.mark.parametrize("given, expected", [(None, "glibc.malloc.hugetlb=1"), ("", "")])
def test_a_training_restarts_with_huge_pages_unless_its_user_chose(tmp_path, given, expected):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from pipelines import cli\n"
        "print('start', flush=True)\n"
        "cli.use_huge_pages()\n"
        "print(os.environ['GLIBC_TUNABLES'], sys.argv[1:], sys.flags.optimize)\n"
    )
    tunables = {} if given is None else {"GLIBC_TUNABLES": given}
    others = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    env = {**others, **tunables, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-O", str(script), "a b", "--c="]
    lines = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
    starts = ["start"] * (2 if given is None else 1)
    assert lines.splitlines() == [*starts, f"{expected} ['a b', '--c='] 1"]


@pytest.mark.parametrize(
    "work, code, expected",
    [("return 3", 3, "saved\n"), ("raise ValueError('no')", 1, "saved\nerror: no\n")],
)
def test_a_command_ends_with_its_work(tmp_path, work, code, expected):
    """TensorFlow, which Python would take apart for up to a minute, is left to the system."""
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit\n"
        "from pipelines import cli\n"
        "class Network:\n"
        "    def __del__(self):\n"
        "        print('taken apart')\n"
        "kept = Network()\n"
        "def work():\n"
        "    atexit.register(print, 'saved')\n"
        f"    {work}\n"
        "cli.run(work)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (code, expected)
