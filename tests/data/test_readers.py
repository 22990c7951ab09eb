"""The table of readers: what --dataset offers, and that each choice goes to its own reader."""

import importlib
import pathlib
import types

import cv2
import numpy as np

from pipelines.data import readers, tfrecords
from pipelines.data.readers.table import READERS
from tests.helpers.forked import ROOT

SCRIPT = str(ROOT / "scripts" / "make_tfrecords.py")

# A data set of one's own: a module, and a line in the table.
OWN = """
import runpy, sys, types

sys.path.insert(0, {root!r})

import numpy as np
from hourglass.skeleton import Skeleton
from pipelines.data.annotations import LABELLED, Annotated, Person
from pipelines.data.readers import table


def read(annotations):
    with open(annotations) as file:
        name, x, y = file.read().split()
    joints = np.array([[float(x), float(y)]])
    state = np.array([LABELLED], np.uint8)
    person = Person(name + "#1", name, "train", 0, joints[0], 20.0, joints, state, 1.0)
    return Annotated("own", Skeleton(("nose",)), (person,), {{}}, "a rule", 0, (annotations,))


own = types.ModuleType("own")
own.FILES, own.read = ("own.txt",), read
table.READERS["own"] = own
runpy.run_path({script!r}, run_name="__main__")
"""


def modules() -> dict[str, types.ModuleType]:
    names = {path.stem for path in pathlib.Path(readers.__file__).parent.glob("*.py")}
    return {n: importlib.import_module(f"{readers.__name__}.{n}") for n in names - {"__init__"}}


def test_every_reader_is_in_the_table():
    """A reader names the files that it looks for; what it shares with others has no FILES."""
    assert {name: m for name, m in modules().items() if hasattr(m, "FILES")} == READERS
    assert all(reader.FILES and callable(reader.read) for reader in READERS.values())


def test_a_new_data_set_goes_to_its_own_reader(tmp_path, fork_script):
    (tmp_path / "data" / "own" / "images").mkdir(parents=True)
    (tmp_path / "data" / "own" / "own.txt").write_text("a.png 12 9")
    cv2.imwrite(
        str(tmp_path / "data" / "own" / "images" / "a.png"), np.zeros((20, 30, 3), np.uint8)
    )
    script = tmp_path / "own.py"
    script.write_text(OWN.format(root=str(ROOT), script=SCRIPT))
    done = fork_script(tmp_path, str(script), "--dataset=own", "--side=16", "--workers=1")
    assert done["code"] == 0, done
    info = tfrecords.read_info(str(tmp_path / "data" / "records"))
    assert (info.name, info.skeleton.joints, info.count("train")) == ("own", ("nose",), 1)


def test_an_unknown_data_set_is_an_error_that_names_the_choices(tmp_path, fork_script):
    done = fork_script(tmp_path, SCRIPT, "--dataset=nope")
    assert done["code"] == 1 and not (tmp_path / "data").exists()
    assert f"<auto|{'|'.join(READERS)}>" in done["errors"], done
