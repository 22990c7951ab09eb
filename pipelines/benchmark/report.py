"""Measured groups as tables and as JSON."""

from __future__ import annotations

import dataclasses

import rich.console
import rich.table

from pipelines.benchmark.comparison import Group, Row


def _value(result: dict, kind: str) -> float:
    """What a row of this kind compares: units/s, GFLOP/s or MB; KeyError if not known."""
    if kind == "memory":
        return result["peak_mb"]
    if kind == "peak" and result["unit"] == "images":
        return result["median"] * result["flop_per_image"] * 1e-9
    return result["median"]


def reached(row: Row, results: dict[str, dict]) -> tuple[float | None, str]:
    """The row's figure and the task compared with, or None and why it is not measured.

    ``results``: the group's, as ``rounds.measure`` returns them.
    """
    absent = {"failed": "not part of this run"}
    over = results.get(row.over, absent)
    measured = {n: results[n] for n in row.under if "failed" not in results.get(n, absent)}
    if "failed" in over:
        return None, f"{row.over}: {over['failed']}"
    if not measured:
        return None, f"{row.under[0]}: {results.get(row.under[0], absent)['failed']}"
    best = max(measured, key=lambda name: _value(measured[name], row.kind))
    return _value(over, row.kind) / _value(measured[best], row.kind), best


def line(row: Row, group: Group, results: dict[str, dict], defined: bool) -> dict:
    """A row of the table of figures; ``defined``: measured at the settings it is defined for."""
    value, other = reached(row, results)
    fields = dataclasses.asdict(row)
    fields["how"] = fields.pop("kind")  # the key in earlier versions' JSON, too
    return {
        **fields,
        "settings": settings(group),
        "reached": value,
        "per_round": [] if value is None else _per_round(row, results[row.over], results[other]),
        "compared_with": other if value is not None else None,
        "why_not": other if value is None else None,
        "verdict": _verdict(row, value, defined),
    }


def _verdict(row: Row, value: float | None, defined: bool) -> str:
    if value is None:
        return "not measured"
    if row.reach is None:
        return ""
    if not defined:
        return "other settings"
    if row.most:
        return "PASS" if value <= row.reach else "above"
    return "PASS" if value >= row.reach else "below"


def _per_round(row: Row, over: dict, under: dict) -> list[float]:
    """The row's figure in each round, in which both were measured within seconds of each other."""
    if row.kind == "memory":
        return []
    scale = _value(over, row.kind) / over["median"] * under["median"] / _value(under, row.kind)
    return [scale * a / b for a, b in zip(over["rates"], under["rates"])]


def settings(group: Group) -> str:
    """Stacks x channels, input size, batch and number type as text."""
    c = group.config
    kind = "bf16" if "bfloat16" in c.precision else c.precision
    return f"{c.stacks} x {c.channels}, {c.size} px, batch {c.global_batch_size}, {kind}"


def figures(lines: list[dict]) -> rich.table.Table:
    """The table of figures to reach."""
    table = rich.table.Table("part", "against", "at", "reach", "reached (in each round)", "verdict")
    for one in lines:
        sign = "<=" if one["most"] else ">="
        target = "" if one["reach"] is None else f"{sign} {one['reach']:g}"
        value, rounds = one["reached"], one["per_round"]
        shown = f"not measured: {one['why_not']}"
        if value is not None:
            shown = f"{value:.3f}"
            shown += f" ({min(rounds):.3f}-{max(rounds):.3f})" if rounds else ""
        table.add_row(one["part"], one["against"], one["settings"], target, shown, one["verdict"])
    return table


def measurements(group: Group, results: dict[str, dict]) -> rich.table.Table:
    """Everything measured in a group."""
    title = f"{group.name} ({settings(group)})"
    columns = (
        "what",
        "rate",
        "spread",
        "ms each",
        "GFLOP/s",
        "of peak",
        "steps",
        "traces",
        "peak MB",
    )
    table = rich.table.Table(*columns, title=title, title_justify="left")
    peak = max((r["median"] for r in results.values() if r.get("unit") == "GFLOP"), default=0.0)
    for name, result in results.items():
        if "failed" in result:
            table.add_row(name, f"not measured: {result['failed']}")
            continue
        rate, unit = result["median"], result["unit"]
        counted = unit == "GFLOP" or "flop_per_image" in result
        table.add_row(
            name,
            f"{rate:,.1f} {unit}/s",
            f"{100 * result['spread']:.0f} %",
            f"{1e3 / rate:.2f}",
            f"{_value(result, 'peak'):,.0f}" if counted else "",
            f"{_value(result, 'peak') / peak:.3f}" if counted and peak else "",
            f"{len(result['rates'])} x {result['steps']}",
            ", ".join(str(count) for count in result.get("traces", {}).values()),
            f"{result['peak_mb']:,.0f}",
        )
    return table


def show(console: rich.console.Console, measured: list[tuple[Group, dict]]) -> None:
    """Print every group and the training loop's data wait."""
    for group, results in measured:
        if group.tasks:
            console.print(measurements(group, results))
        for name, result in results.items():
            if name == "end_to_end" and result.get("waited") is not None:
                percent = 100 * result["waited"]
                console.print(f"{name}: data wait {percent:.2f} % of the time")


def as_json(about: dict, measured: list[tuple[Group, dict]], lines: list[dict]) -> dict:
    """Everything, for json.dump."""
    groups = [
        {"name": g.name, "config": dataclasses.asdict(g.config), "parts": r} for g, r in measured
    ]
    return {"environment": about, "groups": groups, "figures": lines}
