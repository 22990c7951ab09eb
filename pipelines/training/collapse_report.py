"""Table and picture of a collapse study, from the records of its runs; see ``collapse``."""

from __future__ import annotations

import numpy as np

from pipelines.training.collapse import SCORINGS
from pipelines.training.diagnosis import FALL
from pipelines.visualization import curves

Records = dict[str, list[dict]]  # by the run's name; each list is not empty


def drop(records: list[dict], scoring: str) -> float:
    """Points that the deepest score lies below the best one before it, at least 0."""
    scores = np.array([record[scoring] for record in records])
    return float(np.max(np.maximum.accumulate(scores) - scores))


def gap(records: list[dict]) -> float:
    """Most points that moving averages score below recomputed statistics of the same weights.

    Without the first two evaluations, when the averages still hold their initial values.
    """
    moving, _, recomputed, _ = SCORINGS
    return max((record[recomputed] - record[moving] for record in records[2:]), default=0.0)


def _row(name: str, records: list[dict]) -> list[str]:
    last = records[-1]
    row = [name, str(last["step"])]
    for scoring in SCORINGS:
        best = max(record[scoring] for record in records)
        row.append(f"{best:.1f} / {drop(records, scoring):.1f} / {last[scoring]:.1f}")
    row.append(f"{gap(records):.1f}")
    for key in ("staleness", "gradient_norm", "update"):
        row.append(f"{max(record[key] for record in records):.2g}")
    return row


def table(runs: Records) -> str:
    """A Markdown table with a row per run, and what follows from it."""
    scorings = [f"{scoring}: best / deepest drop / end" for scoring in SCORINGS]
    largest = [f"largest {what}" for what in ("gap", "staleness", "gradient", "update")]
    head = ["run", "steps", *scorings, *largest]
    rows = [head, ["---"] * len(head), *(_row(name, records) for name, records in runs.items())]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *_findings(runs)]) + "\n"


def _findings(runs: Records) -> list[str]:
    """Which choice alone causes a drop, and which cure alone prevents it, by moving averages."""
    moving = SCORINGS[0]
    drops = {name: drop(records, moving) for name, records in runs.items()}
    changed = {n: d for n, d in drops.items() if n.startswith("ours with") and "seed" not in n}
    cured = {n: d for n, d in drops.items() if n.startswith("predecessor with our")}
    lines = [
        f"A drop counts from {FALL:g} points; scores are mean14 PCKh@0.5 in percent. The gap: how "
        "many points moving averages score below recomputed statistics of the same weights, from "
        "the third evaluation on.",
        "",
    ]
    if "ours" in drops and changed:
        own = drops["ours"]
        causes = [f"{name} ({d:.1f})" for name, d in changed.items() if d - own > FALL]
        lines.append(
            f"- With {moving}, ours drops by {own:.1f} points. One change alone that causes a "
            f"drop deeper by more than {FALL:g}: {', '.join(causes) or 'none'}."
        )
    whole = drops.get("predecessor", 0.0)
    if whole > FALL:
        cures = [f"{name} ({d:.1f})" for name, d in cured.items() if d <= FALL]
        others = {scoring: drop(runs["predecessor"], scoring) for scoring in SCORINGS[1:]}
        cures += [f"its weights scored by: {s} ({d:.1f})" for s, d in others.items() if d <= FALL]
        lines.append(
            f"- With {moving}, the predecessor's recipe drops by {whole:.1f} points. One change "
            f"alone that prevents it: {', '.join(cures) or 'none'}."
        )
    elif "predecessor" in drops:
        lines.append(
            f"- With {moving}, the predecessor's recipe drops by {whole:.1f} points only: the "
            "collapse does not appear with this data, network and length."
        )
    return lines


def picture(runs: Records) -> bytes:
    """A panel per run, with a curve per scoring over the steps, as PNG."""
    panels = {
        name: {
            scoring: ([r["step"] for r in records], [r[scoring] for r in records])
            for scoring in SCORINGS
        }
        for name, records in runs.items()
    }
    return curves.panels(panels, "step", "mean14 PCKh@0.5, %")
