"""README's commands for one's own data, run on a tiny data set; pictures of a given size."""

import re
import shlex

import numpy as np
import PIL.Image

from tests.helpers.forked import ROOT

TRAIN = (
    "--stacks=1 --channels=8 --depth=1 --size=32 --global_batch_size=8 --steps=4 --log_every=2 "
    "--evaluate_every=100 --evaluation_batch_size=4 --ema_decay=0 --strategy=one "
    "--precise_bn_examples=0"
)
# Script -> words that make its command small.
SMALL = {
    "scripts/make_tfrecords.py": "--workers=1 --side=32",
    "scripts/draw_records.py": "--count=2 --size=64",
    "train_main.py": TRAIN,
    "eval_main.py": TRAIN,
    "scripts/export.py": "--people=4",
    "scripts/predict.py": "",
}


def picture(path, size=(200, 100), orientation=0):
    """Write a grey picture of width x height px, with an EXIF orientation if one is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = PIL.Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    PIL.Image.fromarray(np.full((*size[::-1], 3), 90, np.uint8)).save(path, exif=exif)


def _commands(page: str, beginning: str) -> list[str]:
    text = (ROOT / page).read_text().replace("\\\n", " ")
    lines = re.findall(r"^    (python .+)", text, re.MULTILINE)
    return [" ".join(line.split()) for line in lines if line.split(" ", 1)[1].startswith(beginning)]


def from_annotations_to_joints(folder, fork_script, dataset: str, *words: str) -> list[str]:
    """Convert as docs/data.md does, go on as README does, and predict; what each printed."""
    (first,) = _commands("docs/data.md", f"scripts/make_tfrecords.py --dataset={dataset} ")
    rest = [
        line for name in ("scripts", "train_", "eval_") for line in _commands("README.md", name)
    ]
    rest = [line for line in rest if "=runs/mine" in line or "draw_records" in line]
    rest = [line for line in rest if "data/mine" in line]
    assert len(rest) == 4
    order = ("draw_records", "train_main", "eval_main", "export")
    rest = [next(line for line in rest if name in line) for name in order]
    predict = "python scripts/predict.py --checkpoint=runs/mine one.jpg"
    printed = []
    for line in [f"{first} {shlex.join(words)}", *rest, predict]:
        _, script, *options = shlex.split(line)
        options += shlex.split(SMALL[script])
        done = fork_script(folder, str(ROOT / script), *options)
        assert done["code"] == 0 and "Traceback" not in done["errors"], (line, done)
        printed.append(done["output"] + done["errors"])
    assert (folder / "exports" / "mine" / "1" / "saved_model.pb").stat().st_size
    assert (folder / "predictions" / "one.jpg").stat().st_size
    return printed
