"""The page of people: what it shows, in which order, and that nothing in the files can get out."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import pathlib
import re

import cv2
import numpy as np
import pytest

from hourglass.skeleton import LSP, MPII
from pipelines.data.annotations import MISSING
from pipelines.evaluation import people_page
from pipelines.visualization import draw
from tests.helpers.forked import ROOT
from tests.helpers.people import draw_person, write_records
from tests.helpers.prediction_files import write_truth


class Page(html.parser.HTMLParser):
    """A page as a browser sees it: elements with attributes, and the text of each script."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.scripts, self.texts = [], {}, {}
        self._script, self._tag = None, ""
        self.feed(text)
        self.setup, self.people = (json.loads(self.scripts[k]) for k in ("setup", "everybody"))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._tag = tag
        if tag == "script":
            self._script = dict(attributes).get("id", "code")
            self.scripts[self._script] = ""

    def handle_endtag(self, tag):
        self._script = None if tag == "script" else self._script

    def handle_data(self, data):
        if self._script:
            self.scripts[self._script] += data
        else:
            self.texts[self._tag] = self.texts.get(self._tag, "") + data


@pytest.fixture(scope="module")
def offsets(info):
    """Person n's joints are n / 10 heads off; one joint of person 2 is 20."""
    moved = np.repeat(np.arange(10)[:, None] / 10, 16, 1)
    moved[2, 3] = 20.0
    return moved


@pytest.fixture(scope="module")
def written(info, offsets, tmp_path_factory):
    """A page of predictions, the path of the predictions, and the path of the page."""
    folder = tmp_path_factory.mktemp("browse")
    predictions = write_truth(folder / "predictions.json", info, offsets)
    output = folder / "people.html"
    people_page.run(info.folder, str(output), predictions_file=predictions, size=64)
    return Page(output.read_text()), predictions, output


@pytest.fixture(scope="module")
def page(written):
    return written[0]


def decoded(person):
    kind, data = person["image"].split(",")
    assert kind == "data:image/jpeg;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


class TestPage:
    def test_worst_first_and_errors_in_head_sizes(self, page, drawn, offsets):
        _, people = drawn
        unscored = [p.row for p in people["validation"] if np.isnan(p.head_size)]
        assert len(unscored) == 1
        means = {}
        for person in people["validation"]:
            known = person.state != MISSING
            means[person.row] = offsets[person.row][known].mean()
        expected = sorted(set(means) - set(unscored), key=lambda row: -means[row]) + unscored
        assert [one["row"] for one in page.people] == expected and expected[:2] == [2, 9]
        for one in page.people:
            person = people["validation"][one["row"]]
            assert one["id"] == person.id
            for j, error in enumerate(one["errors"]):
                if person.state[j] == MISSING or person.row in unscored:
                    assert error is None
                else:
                    assert error == pytest.approx(offsets[person.row, j], abs=2e-3)
            if person.row not in unscored:
                assert one["mean"] == pytest.approx(means[person.row], abs=2e-3)

    def test_states(self, page, drawn):
        for one in page.people:
            person = drawn[1]["validation"][one["row"]]
            names = {0: "missing", 1: "occluded", 2: "visible"}
            assert one["state"] == [names[state] for state in person.state.tolist()]
            assert [j for j, at in enumerate(one["truth"]) if at is None] == np.flatnonzero(
                person.state == MISSING
            ).tolist()

    def test_truth_lies_on_the_discs_of_the_picture(self, written, info, tmp_path):
        """Joints are discs of their own hue: at 256 px the hue under the truth is the joint's."""
        output = tmp_path / "large.html"
        people_page.run(info.folder, str(output), size=256)
        right = total = 0
        for one in Page(output.read_text()).people:
            hsv = cv2.cvtColor(decoded(one), cv2.COLOR_BGR2HSV).astype(int)
            for j, at in enumerate(one["truth"]):
                if at and MPII.joints[j] not in ("pelvis", "thorax"):  # others lie over them
                    x, y = np.rint(at).astype(int)
                    off = abs(hsv[y, x, 0] - j * 11)
                    right, total = right + (min(off, 180 - off) <= 5), total + 1
        assert total > 100 and right / total > 0.9

    def test_prediction_lies_next_to_the_truth_in_the_direction_it_was_moved(self, page, drawn):
        for one in page.people:
            person = drawn[1]["validation"][one["row"]]
            if np.isnan(person.head_size):
                continue
            for true, point, error in zip(one["truth"], one["predicted"], one["errors"]):
                if true:
                    moved = error * person.head_size * 64 / (person.side * people_page.VIEW)
                    np.testing.assert_allclose(point, [true[0] + moved, true[1]], atol=0.05)

    def test_pictures_have_the_size_asked_for_and_show_the_person(self, page):
        for one in page.people:
            assert decoded(one).shape == (64, 64, 3) and decoded(one).std() > 20
        assert len({one["image"] for one in page.people}) == 10

    def test_colours_are_those_of_the_other_pictures(self, page):
        image = draw.person(np.zeros((64, 64, 3), np.uint8), np.full((16, 2), 32.0), MPII)
        assert page.setup["joints"] == list(MPII.joints)
        assert page.setup["limbs"] == [list(limb) for limb in MPII.limbs]
        last = page.setup["colors"]["joints"][-1]
        assert tuple(bytes.fromhex(last[1:])) == tuple(image[32, 32])
        assert len(page.setup["colors"]["limbs"]) == len(MPII.limbs)
        assert list(page.setup["colors"]["sides"]) == ["right", "left", "middle"]
        assert page.setup["colors"]["sides"]["left"] == last

    def test_summary(self, page, info):
        assert "10 people, 9 scored; PCKh@0.5 in percent" in page.texts["p"]
        assert info.head_rule in page.texts["p"] and page.setup["people"] == 10

    def test_scores(self, page, drawn, offsets):
        surely, perhaps, joints = 0, 0, 0
        for person in drawn[1]["validation"]:
            known = (person.state != MISSING) & np.isfinite(person.head_size)
            joints += known.sum()
            # Of person 5, exactly half a head off, rounding decides.
            surely += (offsets[person.row] < 0.45)[known].sum()
            perhaps += (offsets[person.row] < 0.55)[known].sum()
        scores = page.setup["scores"]
        names = ["head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"]
        assert list(scores) == [*names, "mean14", "weighted14", "pooled16"]
        assert surely - 1e-3 <= scores["pooled16"] * joints / 100 <= perhaps + 1e-3
        assert 0 < surely < perhaps < joints

    def test_without_predictions_it_is_the_records_order(self, info, tmp_path, capsys):
        output = tmp_path / "new" / "people.html"
        people_page.run(info.folder, str(output), max_people=4, size=32)
        page = Page(output.read_text())
        assert [one["row"] for one in page.people] == [0, 1, 2, 3]
        assert all("errors" not in one and "predicted" not in one for one in page.people)
        size = output.stat().st_size / 1e6
        assert capsys.readouterr().out == f"{output}: 4 of 10 people, {size:.1f} MB\n"
        assert list(output.parent.iterdir()) == [output]

    def test_other_split(self, info, tmp_path):
        people_page.run(info.folder, str(tmp_path / "train.html"), split="train", size=32)
        page = Page((tmp_path / "train.html").read_text())
        assert len(page.people) == 24 and page.people[5]["id"] == "train5.jpg#1"

    def test_total_size_is_bounded_and_the_best_are_left_out(self, info, written, tmp_path, capsys):
        whole, predictions, output = written
        limit = output.stat().st_size * 0.7 / 1e6
        path = tmp_path / "small.html"
        people_page.run(
            info.folder, str(path), predictions_file=predictions, size=64, megabytes=limit
        )
        shown = Page(path.read_text()).people
        assert path.stat().st_size <= limit * 1e6
        assert 0 < len(shown) < 10 and shown == whole.people[: len(shown)]
        out = capsys.readouterr().out
        assert f"{len(shown)} of 10 people" in out and f"exceed --megabytes={limit:g}" in out


class TestSomeJointsUnknown:
    def test_people_without_prediction_are_named_and_last(self, info, offsets, tmp_path, capsys):
        ids = [f"validation{row}.jpg#1" for row in range(8)]
        predictions = write_truth(tmp_path / "some.json", info, offsets, ids=ids)
        people_page.run(
            info.folder, str(tmp_path / "some.html"), predictions_file=predictions, size=32
        )
        page = Page((tmp_path / "some.html").read_text())
        assert [one["row"] for one in page.people][-2:] == [8, 9]
        assert ["errors" in one for one in page.people] == [True] * 8 + [False] * 2
        line = "2 people without a prediction: validation8.jpg#1, validation9.jpg#1"
        assert line in capsys.readouterr().out and line in page.texts["p"]
        # Nor do they count as misses: of the eight, one has no head size.
        assert "10 people, 7 scored" in page.texts["p"]

    def test_positions_that_are_no_numbers_are_infinite_errors(self, info, offsets, tmp_path):
        moved = offsets.copy()
        moved[3, 1] = np.nan
        predictions = write_truth(tmp_path / "nan.json", info, moved)
        people_page.run(
            info.folder, str(tmp_path / "nan.html"), predictions_file=predictions, size=32
        )
        first = Page((tmp_path / "nan.html").read_text()).people[0]
        assert first["row"] == 3 and first["mean"] == "Infinity"
        assert first["errors"][1] == "Infinity" and first["predicted"][1] is None


HOSTILE = "</script><script>alert(1)</script><!--<script>&\"'@@PEOPLE@@.jpg"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Records in which all names try to become markup."""

    def draw_hostile(k, split, row, skeleton):
        image, person = draw_person(k, split, row, MPII)
        return image, dataclasses.replace(person, id=f"{HOSTILE}#{row}")

    skeleton = dataclasses.replace(MPII, joints=(HOSTILE, *MPII.joints[1:]), pairs=(), bones=())
    folder = tmp_path_factory.mktemp("hostile")
    counts = {"validation": 3}
    info, _ = write_records(folder, counts, skeleton=skeleton, draw=draw_hostile)
    document = json.loads((folder / "dataset.json").read_text())
    document.update(name=HOSTILE, head_rule=HOSTILE)
    (folder / "dataset.json").write_text(json.dumps(document))
    predictions = write_truth(folder / "predictions.json", info, np.zeros((3, 16)))
    people_page.run(info.folder, str(folder / "people.html"), predictions_file=predictions, size=32)
    return (folder / "people.html").read_text()


class TestUntrusted:
    def test_names_are_text(self, hostile):
        page = Page(hostile)
        assert [one["id"] for one in page.people] == [f"{HOSTILE}#{row}" for row in range(3)]
        assert page.setup["joints"][0] == HOSTILE
        assert HOSTILE in page.texts["title"] and HOSTILE in page.texts["h1"]
        assert HOSTILE in page.texts["p"]

    def test_the_page_has_its_own_elements_only(self, hostile, page, written):
        assert len(re.findall("<script[ >]", hostile)) == 3
        assert "<!--" not in hostile
        kinds = [tag for tag, _ in Page(hostile).elements]
        assert kinds == [tag for tag, _ in page.elements]

    def test_only_the_pages_own_script_may_run_and_nothing_is_fetched(self, hostile, page):
        for one in (page, Page(hostile)):
            policies = [a["content"] for tag, a in one.elements if "http-equiv" in a]
            digest = base64.b64encode(hashlib.sha256(one.scripts["code"].encode()).digest())
            assert policies == [
                "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
                f"script-src 'sha256-{digest.decode()}'"
            ]
            for _, attributes in one.elements:
                assert not {"src", "href", "onclick", "onload", "style"} & set(attributes)
        addresses = set(re.findall(r"https?://[^\s\"']+", hostile))
        assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address

    def test_the_script_writes_text_only(self, page):
        for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert unsafe not in page.scripts["code"]


class TestRejections:
    def rejected(self, match, error, *arguments, **options):
        with pytest.raises(error, match=match):
            people_page.run(*arguments, **options)

    def test_no_records(self, tmp_path):
        page = tmp_path / "people.html"
        self.rejected("make_tfrecords.py", FileNotFoundError, str(tmp_path / "no"), str(page))
        assert not page.exists()

    def test_empty_split(self, info, tmp_path):
        match = "no people in the split 'test'"
        self.rejected(match, ValueError, info.folder, str(tmp_path / "p.html"), split="test")

    def test_other_joints(self, info, offsets, tmp_path):
        predictions = write_truth(tmp_path / "lsp.json", info, offsets, skeleton=LSP)
        page = str(tmp_path / "p.html")
        match = "lsp.json predicts 14 joints .* have 16.*name the records that were predicted"
        self.rejected(match, ValueError, info.folder, page, predictions_file=predictions)

    def test_other_people(self, info, offsets, tmp_path):
        ids = [f"validation{row}.jpg#1" for row in range(8)] + ["somebody.jpg#1"]
        predictions = write_truth(tmp_path / "other.json", info, offsets, ids=ids)
        match = r"1 of 9 people in .*other.json are not in the validation split .*\(somebody"
        page = str(tmp_path / "p.html")
        self.rejected(match, ValueError, info.folder, page, predictions_file=predictions)

    def test_not_predictions(self, info, tmp_path):
        (tmp_path / "p.json").write_text('{"people": 3}')
        wrong = {"predictions_file": str(tmp_path / "p.json")}
        self.rejected("not a predictions", ValueError, info.folder, str(tmp_path / "x"), **wrong)
        wrong = {"predictions_file": str(tmp_path / "absent.json")}
        self.rejected("no file at", FileNotFoundError, info.folder, str(tmp_path / "x"), **wrong)

    def test_no_room(self, info, tmp_path):
        page = tmp_path / "p.html"
        self.rejected(
            "is too small for one person", ValueError, info.folder, str(page), megabytes=0.001
        )
        assert not page.exists()

    def test_damaged_shard(self, own_records, tmp_path):
        info = own_records()
        path = pathlib.Path(info.shards("validation")[0])
        path.write_bytes(path.read_bytes()[:-20])
        self.rejected("record 2 of 3 is damaged", ValueError, info.folder, str(tmp_path / "p.html"))


@pytest.mark.slow
def test_command(info, written, tmp_path, fork_script):
    _, predictions, output = written
    local = tmp_path / "predictions.json"
    local.write_bytes(pathlib.Path(predictions).read_bytes())
    runs = {
        0: [f"--records={info.folder}", f"--predictions={local}", "--size=64"],
        1: [f"--records={tmp_path}"],
    }
    for code, words in runs.items():
        answer = fork_script(ROOT, "scripts/browse.py", *words)
        printed = answer["output"] + answer["errors"]
        assert answer["code"] == code, printed
        assert "Traceback" not in printed
        assert ("10 of 10 people" if code == 0 else "error: no records in") in printed
    theirs = Page((tmp_path / "people.html").read_text())
    assert theirs.people == Page(output.read_text()).people
