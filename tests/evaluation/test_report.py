"""The printed table."""

import io

import rich.console

from pipelines.evaluation import report


def printed(columns):
    rows = {"PCKh@0.5": {c: 1.25 * k for k, c in enumerate(columns)}, "people": 3}
    rows["AUC"] = {c: 50.0 + k for k, c in enumerate(columns)}
    console = rich.console.Console(width=120, record=True, file=io.StringIO())
    console.print(report.table(rows, "title"))
    return [line.split() for line in console.export_text().replace("│", " ").splitlines()]


def test_a_column_for_each_group():
    lines = printed(["nose", "eye", "mean14"])
    assert ["PCKh@0.5", "0.0", "1.2", "2.5"] in lines and ["AUC", "50.0", "51.0", "52.0"] in lines


def test_many_groups_go_down_instead():
    lines = printed([f"paw{k}" for k in range(20)])
    assert ["paw0", "0.0", "50.0"] in lines and ["paw19", "23.8", "69.0"] in lines
