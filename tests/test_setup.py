"""Set-up: the choice of Python, what `make venv` repeats, repository rules."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts import check_wheels, fetch_pip

ROOT = Path(__file__).resolve().parent.parent
BASH = shutil.which("bash")
REQUIREMENTS = ["requirements-common.txt", "requirements-gpu.txt", "requirements.txt"]


def stand_in(path: Path, answer: str) -> Path:
    """A program that answers find_python.sh like an interpreter of that version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!{BASH}\necho "{answer} {path}"\n')
    path.chmod(0o755)
    return path


def broken(path: Path) -> Path:
    """A program that fails, as pyenv's python3.9 does while 3.9 is not activated."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{BASH}\necho 'command not found' >&2\nexit 127\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def find(tmp_path):
    """Run find_python.sh on a machine with only the files that the test puts into tmp_path."""
    scripts = tmp_path / "project" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "find_python.sh", scripts)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        machine = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "SYSTEM_FOLDERS": ""}
        return subprocess.run(
            [BASH, str(scripts / "find_python.sh"), *arguments],
            env={**machine, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def assert_fails(result: subprocess.CompletedProcess, *parts: str) -> None:
    assert result.returncode == 1
    assert result.stdout == ""
    sentence = result.stderr.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    for part in parts:
        assert part in sentence


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_given_python_precedes_those_on_path(find, tmp_path, version):
    stand_in(tmp_path / "bin" / "python3.11", "3.11 Linux x86_64")
    given = stand_in(tmp_path / "own folder" / "python", f"{version} Linux x86_64")
    result = find(str(given))
    assert (result.returncode, result.stdout.strip()) == (0, str(given))


def test_given_name_is_looked_up_on_path(find, tmp_path):
    path = stand_in(tmp_path / "bin" / "python3.9", "3.9 Linux x86_64")
    assert find("python3.9").stdout.strip() == str(path)


@pytest.mark.parametrize("version", ["3.8", "3.14", "3.13t", "3.1"])
def test_given_python_of_another_version_is_rejected(find, tmp_path, version):
    stand_in(tmp_path / "bin" / "python3.11", "3.11 Linux x86_64")
    given = stand_in(tmp_path / "python", f"{version} Linux x86_64")
    assert_fails(find(str(given)), f"PYTHON={given} is Python {version}", "a Python 3.9 to 3.13")


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_later_pythons_of_intel_macs_are_rejected(find, tmp_path, version):
    given = stand_in(tmp_path / "bin" / f"python{version}", f"{version} Darwin x86_64")
    assert_fails(find(str(given)), "on Darwin x86_64", "3.9 to 3.11 on a Mac with an Intel")
    assert_fails(find(), "no Python 3.9 to 3.13 was found", str(given))
    arm = stand_in(tmp_path / "bin" / "python3", f"{version} Darwin arm64")
    assert find().stdout.strip() == str(arm)


def test_given_version_is_searched_for(find, tmp_path):
    stand_in(tmp_path / "bin" / "python3.11", "3.11 Linux x86_64")
    broken(tmp_path / "bin" / "python3.12")
    path = stand_in(tmp_path / ".pyenv/versions/3.12.1/bin/python3.12", "3.12 Linux x86_64")
    assert find("3.12").stdout.strip() == str(path)
    assert_fails(find("3.13"), "no Python 3.13 was found", "PYTHON=")
    assert_fails(find("3.8"), "PYTHON=3.8", "a Python 3.9 to 3.13")


def test_given_python_that_does_not_exist_or_work_is_rejected(find, tmp_path):
    assert_fails(find("no-such-python"), "PYTHON=no-such-python", "no such program")
    given = broken(tmp_path / "python")
    assert_fails(find(str(given)), f"PYTHON={given}", "ssl and venv")


def test_real_interpreter_is_examined(find):
    supported = (3, 9) <= sys.version_info[:2] <= (3, 13)
    assert supported, "the tests run on a Python that the set-up would reject"
    assert find(sys.executable).stdout.strip() == os.path.realpath(sys._base_executable)


def test_the_first_lanes_newest_wins(find, tmp_path):
    stand_in(tmp_path / "bin" / "python3.9", "3.9 Linux x86_64")
    stand_in(tmp_path / "bin" / "python3", "3.13 Linux x86_64")
    newest = stand_in(tmp_path / ".pyenv/versions/3.10.13/bin/python3.10", "3.10 Linux x86_64")
    assert find().stdout.strip() == str(newest)


def test_later_pythons_are_used_without_others(find, tmp_path):
    stand_in(tmp_path / "bin" / "python3.14", "3.14 Linux x86_64")
    stand_in(tmp_path / "bin" / "python", "3.13 Linux x86_64")
    path = stand_in(tmp_path / "bin" / "python3", "3.12 Linux x86_64")
    assert find().stdout.strip() == str(path)


def test_python3_counts_by_its_version(find, tmp_path):
    path = stand_in(tmp_path / "bin" / "python3", "3.10 Linux x86_64")
    assert find().stdout.strip() == str(path)


@pytest.mark.parametrize(
    "folder",
    [
        ".pyenv/versions/3.10.13/bin",
        ".asdf/installs/python/3.10.2/bin",
        ".local/share/mise/installs/python/3.10/bin",
        ".local/share/uv/python/cpython-3.10/bin",
        "miniconda3/envs/pose/bin",
    ],
)
def test_python_off_path_is_found(find, tmp_path, folder):
    broken(tmp_path / "bin" / "python3.9")
    broken(tmp_path / "bin" / "python3")
    stand_in(tmp_path / ".pyenv/versions/3.13.0/bin/python3", "3.13 Linux x86_64")
    path = stand_in(tmp_path / folder / "python3", "3.10 Linux x86_64")
    assert find().stdout.strip() == str(path)


def test_pyenv_root_is_honoured(find, tmp_path):
    path = stand_in(tmp_path / "elsewhere/versions/3.9.18/bin/python3.9", "3.9 Linux x86_64")
    assert find(PYENV_ROOT=str(tmp_path / "elsewhere")).stdout.strip() == str(path)
    assert find().returncode == 1


def test_system_folders_are_searched(find, tmp_path):
    path = stand_in(tmp_path / "opt/python 3/bin/python3.11", "3.11 Linux x86_64")
    assert find(SYSTEM_FOLDERS=f"/nowhere:{tmp_path}/opt/*/bin").stdout.strip() == str(path)


def test_nothing_found_is_one_sentence(find, tmp_path):
    result = find()
    assert_fails(result, "no Python 3.9 to 3.13 was found; install one", "PYTHON=")
    assert len(result.stderr.splitlines()) == 1
    other = stand_in(tmp_path / "bin" / "python3", "3.14 Linux x86_64")
    assert_fails(find(), f"only others, such as {other}", "PYTHON=")


def test_download_is_checked_and_kept(tmp_path):
    source = tmp_path / "pip.whl"
    source.write_bytes(b"a wheel")
    checksum = hashlib.sha256(b"a wheel").hexdigest()
    target = tmp_path / "target"
    path = fetch_pip.fetch(source.as_uri(), checksum, str(target))
    source.unlink()
    assert Path(fetch_pip.fetch(source.as_uri(), checksum, str(target))).read_bytes() == b"a wheel"
    assert os.listdir(target) == [os.path.basename(path)]


def test_download_with_another_checksum_leaves_nothing(tmp_path):
    source = tmp_path / "pip.whl"
    source.write_bytes(b"not the wheel")
    with pytest.raises(ValueError, match="SHA-256"):
        fetch_pip.fetch(source.as_uri(), "0" * 64, str(tmp_path / "target"))
    assert not (tmp_path / "target").exists()


def write_wheel(folder: Path, version: str) -> None:
    """A package `posedemo` with one module, as a real wheel."""
    info = f"posedemo-{version}.dist-info"
    files = {
        "posedemo.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: posedemo\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"posedemo-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)


class Project:
    """The repository's Makefile and scripts in a folder of their own, with one small package."""

    def __init__(self, root: Path):
        self.root = root
        (root / "wheels").mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", root)
        shutil.copytree(ROOT / "scripts", root / "scripts")
        for version in ("1.0", "2.0", "3.0"):
            write_wheel(root / "wheels", version)
        self.require("requirements.txt", "1.0")
        self.require("requirements-gpu.txt", "3.0")
        (root / "requirements-common.txt").write_text("# none\n")

    def require(self, file: str, version: str) -> None:
        (self.root / file).write_text(f"posedemo=={version}\n")

    def make_venv(self, python: str = sys.executable, *words: str, **environment: str):
        settings = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "wheels",
            "BUILD": "cpu",
        }
        # "make test" is itself a make: an inner one would print where it enters and leaves.
        outer = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
        return subprocess.run(
            ["make", "venv", f"PYTHON={python}", *words],
            cwd=self.root,
            env={**outer, **settings, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def installed(self) -> str:
        command = [".venv/bin/python", "-c", "import posedemo; print(posedemo.VERSION)"]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True).stdout.strip()

    def site_packages(self) -> Path:
        return next((self.root / ".venv" / "lib").glob("python3*")) / "site-packages"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Made once; each test leaves it installed."""
    project = Project(tmp_path_factory.mktemp("set up") / "project")
    result = project.make_venv()
    assert result.returncode == 0, result.stderr
    assert project.installed() == "1.0"
    return project


@pytest.mark.slow
def test_second_make_venv_changes_nothing(project):
    before = {path: path.lstat().st_mtime_ns for path in (project.root / ".venv").rglob("*")}
    result = project.make_venv(python="")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    result = project.make_venv(python=sys.executable)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert {
        path: path.lstat().st_mtime_ns for path in (project.root / ".venv").rglob("*")
    } == before


@pytest.mark.slow
def test_changed_requirements_are_installed(project):
    project.require("requirements.txt", "2.0")
    assert project.make_venv().returncode == 0
    assert project.installed() == "2.0"
    project.require("requirements.txt", "1.0")
    assert project.make_venv().returncode == 0
    assert project.installed() == "1.0"


@pytest.mark.slow
def test_failed_installation_says_so_and_goes_on(project):
    project.require("requirements.txt", "9.9")
    result = project.make_venv()
    assert result.returncode != 0
    assert "error: the packages of requirements.txt could not be installed" in result.stderr
    project.require("requirements.txt", "1.0")
    result = project.make_venv()
    assert result.returncode == 0
    assert "Making .venv" not in result.stdout


@pytest.mark.slow
def test_half_installed_package_is_installed_again(project):
    (project.root / ".venv" / "installed").unlink()
    (project.site_packages() / "posedemo-1.0.dist-info" / "INSTALLER").unlink()
    (project.site_packages() / "posedemo.py").unlink()
    result = project.make_venv()
    assert result.returncode == 0, result.stderr
    assert "Making .venv" not in result.stdout
    assert project.installed() == "1.0"


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["made-for", "bin"])
def test_half_made_environment_is_made_afresh(project, lost):
    path = project.root / ".venv" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = project.make_venv()
    assert result.returncode == 0, result.stderr
    assert "Making .venv" in result.stdout
    assert project.installed() == "1.0"


@pytest.mark.slow
def test_nvidia_driver_brings_the_gpu_build(project, tmp_path):
    stand_in(tmp_path / "nvidia-smi", "GPU 0: a card")
    path = f"{tmp_path}:{os.environ['PATH']}"
    result = project.make_venv(BUILD="auto", PATH=path)
    assert result.returncode == 0, result.stderr
    assert "Making .venv" in result.stdout
    assert project.installed() == "3.0"
    assert project.make_venv(BUILD="cpu", PATH=path).returncode == 0
    assert project.installed() == "1.0"


@pytest.mark.slow
def test_another_folder_leaves_the_environment_alone(project):
    project.require("requirements.txt", "2.0")
    assert project.make_venv(sys.executable, "VENV=.venv-second").returncode == 0
    assert next((project.root / ".venv-second/lib").glob("*/site-packages/posedemo-2.0.dist-info"))
    project.require("requirements.txt", "1.0")
    assert project.installed() == "1.0"


@pytest.mark.slow
def test_a_folder_that_is_no_environment_is_kept(project):
    result = project.make_venv(sys.executable, "VENV=wheels")
    assert result.returncode != 0
    assert "error: wheels exists and is not a Python environment" in result.stderr
    assert len(os.listdir(project.root / "wheels")) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "build", "sentence"),
    [("Linux riscv64", "auto", "this is Linux riscv64"), ("Darwin arm64", "gpu", "BUILD=gpu")],
)
def test_other_machines_get_a_sentence(project, tmp_path, machine, build, sentence):
    uname = tmp_path / "uname"
    uname.write_text(f"#!{BASH}\necho {machine}\n")
    uname.chmod(0o755)
    result = project.make_venv(BUILD=build, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert result.returncode != 0
    assert f"error: {sentence}" in result.stderr
    assert project.installed() == "1.0"


@pytest.mark.slow
def test_wrong_values_leave_the_environment_alone(project):
    for wrong in ({"python": "no-such-python"}, {"BUILD": "tpu"}):
        result = project.make_venv(**wrong)
        assert result.returncode != 0
        assert "error: " in result.stderr
        assert project.installed() == "1.0"


def pins() -> dict[str, list[str]]:
    lines = {name: (ROOT / name).read_text().splitlines() for name in REQUIREMENTS}
    return {
        name: [line.split("#")[0].strip() for line in text if line.split("#")[0].strip()]
        for name, text in lines.items()
    }


def lane(name: str, python: str, machine: str = "x86_64", system: str = "linux") -> dict[str, str]:
    """Package -> version of what a Python installs; each only once."""
    variables = {"python_version": python, "platform_machine": machine, "sys_platform": system}
    versions = {}
    for line in [*pins()[name], *pins()[REQUIREMENTS[0]]]:
        if line.startswith("-r "):
            continue
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(variables):
            assert pin.name not in versions, pin.name
            versions[pin.name] = str(pin.specifier)
    return versions


def test_every_requirement_is_pinned_to_one_version():
    for name, lines in pins().items():
        others = [line for line in lines if not re.match(r"[a-z0-9-]+(\[and-cuda\])?==[0-9]", line)]
        assert others == ([] if name == REQUIREMENTS[0] else ["-r requirements-common.txt"]), name


@pytest.mark.parametrize("python", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_both_builds_are_the_same_tensorflow(python):
    first = python in ("3.9", "3.10", "3.11")
    want = "==2.15.1" if first else "==2.21.0"
    cpu, gpu = lane("requirements.txt", python), lane("requirements-gpu.txt", python)
    assert (cpu["tensorflow-cpu" if first else "tensorflow"], gpu["tensorflow"]) == (want, want)
    assert ("tensorflow-addons" in cpu, "tf-keras" in cpu) == (first, not first)
    for machine, system in (("aarch64", "linux"), ("arm64", "darwin"), ("x86_64", "darwin")):
        other = lane("requirements.txt", python, machine, system)
        assert other["tensorflow"] == want
        assert "tensorflow-cpu" not in other
        assert ("tensorflow-addons" in other) == (first and machine != "aarch64")


def test_wheels_are_checked_for_each_machines_pins(tmp_path):
    (tmp_path / "common.txt").write_text("# all\nsix==1.17.0\n-c other.txt\n")
    file = tmp_path / "requirements.txt"
    file.write_text('-r common.txt\nnumpy==2.5.5; python_version >= "3.12"  # later\n')
    requirements = check_wheels.read(file)
    for python, want in (("3.9", ["six"]), ("3.12", ["six", "numpy"])):
        variables = check_wheels.environment(python, "macOS 14 arm64")
        assert [pin.name for pin in check_wheels.applicable(requirements, variables)] == want


def test_what_a_pin_needs_must_be_pinned_and_fit():
    pins = [Requirement("a[x]==1.0"), Requirement("b-c==2.0")]
    needs = ["b_c<2", "d; extra == 'x'", "e; extra == 'y'", "f; sys_platform == 'darwin'"]
    metadata = [
        {"name": "a", "version": "1.0", "requires_dist": needs},
        {"name": "b_c", "version": "2.0", "requires_python": ">=3.12"},
    ]
    variables = check_wheels.environment("3.11", "Linux aarch64")
    assert check_wheels.mismatches(pins, metadata, variables) == [
        "a needs b_c<2, not 2.0",
        "a needs d, not None",
        "b_c 2.0 is not for Python 3.11.5",
    ]


def test_pytorch_is_pinned_beside_tensorflow_and_safe():
    lines = (ROOT / "requirements-torch.txt").read_text().splitlines()
    lines = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    options = [line for line in lines if line.startswith("-")]
    index = "--extra-index-url https://download.pytorch.org/whl/cpu"
    assert options == [index, "-c requirements-common.txt"]
    for line in set(lines) - set(options):
        pin = re.match(r'torch==(\d+)\.(\d+)\.\d+(\+cpu)?; python_version (<|>=) "3\.10" and', line)
        # Older ones run code that a file hides from weights_only.
        assert pin and (int(pin[1]), int(pin[2])) >= (2, 6), line


def test_export_tools_are_pinned_and_leave_the_rest_alone():
    lines = (ROOT / "requirements-export.txt").read_text().splitlines()
    lines = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    assert lines[0] == "-c requirements-common.txt"
    markers = r"(; ((python_version|sys_platform|platform_machine) [=!<>]+ \"\S+\"( and )?)+)?"
    pin = re.compile(r"([a-z0-9]+)==[0-9.]+" + markers)
    names = {pin.fullmatch(line)[1] for line in lines[1:]}
    assert {"tf2onnx", "onnx", "onnxruntime", "openvino", "nncf"} <= names
    assert not names & {line.split("=")[0] for line in pins()["requirements-common.txt"]}
    # A target with a hyphen appears in the list of targets too.
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert "make export-tools" in listed and "make torch" in listed


def imported(path: Path) -> set[str]:
    """Top-level names of the packages that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def test_the_method_never_imports_how_data_moves():
    files = sorted((ROOT / "hourglass").rglob("*.py"))
    assert ROOT / "hourglass" / "skeleton.py" in files
    own = {"pipelines", "scripts", "train_main", "eval_main", "tests"}
    assert {path.name: imported(path) & own for path in files if imported(path) & own} == {}


def test_imports_inside_functions_count(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("import os.path\ndef f():\n    from pipelines.data.annotations import Person\n")
    assert imported(path) == {"os", "pipelines"}


def project_files() -> list[Path]:
    made = {".git", ".pytest_cache", ".ruff_cache", ".hypothesis", "data", "runs"}
    files = []
    for folder, folders, names in os.walk(ROOT):
        left_out = made if folder == str(ROOT) else {"__pycache__"}
        folders[:] = [n for n in folders if n not in left_out and not n.startswith(".venv")]
        files += [Path(folder, name) for name in names]
    return files


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    foreign = re.compile(
        "|".join(["/work" + "/", "/tmp/" + r"w\b", r"\.\./" + "shared", "DESIGN" + r"\.md"])
    )
    files = [path for path in project_files() if path != ROOT / ".ci" / "run"]
    assert ROOT / "Makefile" in files
    wrong = [str(path) for path in files if foreign.search(path.read_text(errors="ignore"))]
    assert wrong == []
