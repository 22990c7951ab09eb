"""Imports go in one direction: data <- inference <- evaluation <- training."""

import ast
import pathlib
import re

import pytest

IMPORT = re.compile(r"\s*(from|import) ")
PIPELINES = pathlib.Path(__file__).parents[1] / "pipelines"

# What each room may import of the others. Modules at the root of ``pipelines`` belong to "root".
ALLOWED = {
    "data": set(),
    "visualization": set(),
    "inference": {"data", "visualization"},
    "evaluation": {"data", "inference", "visualization"},
    "training": {"data", "inference", "evaluation", "visualization"},
    "export": {"data", "inference", "evaluation"},
    "benchmark": {"data", "inference", "evaluation", "training", "export"},
    "root": {"data"},
}
# Leaves at the root, which the rooms that checkpoints and config read from may import in turn.
BELOW_DATA = {"io"}


def room_of(path: pathlib.Path) -> str:
    parts = path.relative_to(PIPELINES).parts
    return parts[0] if len(parts) > 1 else "root"


def imported(source: str) -> set[str]:
    """Names of the modules under ``pipelines`` that a source imports, at its top or inside."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pipelines":
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("pipelines.")}
    return names


def forbidden(room: str, source: str) -> list[str]:
    """Imports that go against the direction."""
    wrong = []
    for name in sorted(imported(source)):
        first = name.split(".")[1]
        target = first if (PIPELINES / first).is_dir() else "root"
        allowed = ALLOWED[room] | {room}
        if room not in ("data", "visualization"):
            allowed = allowed | {"root"}
        if target not in allowed and first not in BELOW_DATA:
            wrong.append(name)
    return wrong


@pytest.mark.parametrize(
    "path", sorted(PIPELINES.rglob("*.py")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_no_import_goes_against_the_direction(path):
    assert forbidden(room_of(path), path.read_text()) == []


def test_every_room_is_listed_and_what_the_root_holds():
    rooms = {path.name for path in PIPELINES.iterdir() if (path / "__init__.py").exists()}
    assert rooms == ALLOWED.keys() - {"root"}
    assert {path.stem for path in PIPELINES.glob("*.py")} == {
        *("__init__", "checkpoint_files", "checkpoints", "cli"),
        *("config", "devices", "io", "optional"),
    }


@pytest.mark.parametrize(
    "room, line",
    [
        ("data", "from pipelines.inference import forward"),
        ("data", "from pipelines import config"),
        ("inference", "from pipelines.evaluation.scoring import score"),
        ("visualization", "def late():\n    from pipelines.data import tfrecords"),
        ("evaluation", "import pipelines.training.train"),
    ],
)
def test_a_forbidden_import_is_detected(room, line):
    assert forbidden(room, line)


def test_the_method_imports_no_pipelines():
    for path in (PIPELINES.parent / "hourglass").glob("*.py"):
        assert not imported(path.read_text()), path


def test_no_test_file_imports_another():
    tests = PIPELINES.parent / "tests"
    for path in tests.rglob("test_*.py"):
        imports = [line for line in path.read_text().splitlines() if IMPORT.match(line)]
        assert not [line for line in imports if re.search(r"\btest_\w+", line)], path
