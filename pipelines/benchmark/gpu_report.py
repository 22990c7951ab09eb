"""``gpu_check``'s results as one Markdown page and one JSON file, to paste into an issue."""

from __future__ import annotations

from pipelines.benchmark import gpu_check

TITLES = {
    "machine": "Driver, CUDA, GPUs, TensorFlow",
    "records": "Records to measure on",
    "augmentation": "Warp and heatmaps against float64",
    "network": "Forward pass, loss and gradients against float64",
    "placement": "Devices of a training step's operations",
    "input": "Input pipeline on this host",
    "speed 2": "Training hg_s2",
    "data wait": "A training on records",
    "devices": "Several devices, the same batch on each",
    "torch": "PyTorch, the same step",
    "speed 8": "Training hg_s8",
}
SMALLER = {
    "cpu": "TensorFlow has no GPU here: this ran on the CPU, at smaller sizes. In what follows "
    '"GPU" is the CPU as well, and the figures show nothing about GPUs.',
    "smallest": "Smallest sizes: this shows that the command works; the figures mean nothing.",
}


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines]


def _machine(result: dict, results: dict) -> list[str]:
    tf, library = result["tensorflow"], result["driver_library"]
    gpus = [f"{g['name']}, {g['memory_mb']} MB, {g['compute_capability']}" for g in result["gpus"]]
    seen = [f"{g['name']} ({g['compute_capability']})" for g in tf.get("gpus", [])]
    build = f"CUDA {tf['cuda']}, cuDNN {tf['cudnn']}" if tf.get("cuda_build") else "CPU build"
    rows = {
        "GPUs of the machine": "; ".join(gpus)
        or f"{result['gpus_there']} ({result['nvidia_smi']})",
        "driver": result["driver"] or "none",
        "newest CUDA that the driver supports": library.get("cuda")
        or library.get("error", "unknown"),
        "TensorFlow": f"{tf.get('version', tf.get('failed'))}, {build}",
        "TensorFlow sees": "; ".join(seen) or "no GPU",
        "variables": "; ".join(f"{k}={v}" for k, v in result["variables"].items()) or "none set",
        "packages": ", ".join(f"{k} {v}" for k, v in result["packages"].items()),
    }
    lines = table(["what", ""], [[key, value] for key, value in rows.items()])
    log = ["", "TensorFlow's log:", "", *(f"    {line}" for line in tf.get("said", []))]
    remarks = [f"- {remark}" for remark in result["remarks"]]
    return [*lines, "", *remarks, *(log if tf.get("said") else [])]


def _augmentation(result: dict, results: dict) -> list[str]:
    rows = [
        [name, f"{off['pictures']:.1e}", f"{off['heatmaps']:.1e}"]
        for name, off in result["differences"].items()
    ]
    limits = [f"{result['limits'][what]:.0e}" for what in ("pictures", "heatmaps")]
    head = ["on", "pictures, relative to their range", "heatmaps, relative to the peak"]
    return table(head, [*rows, ["allowed", *limits]])


def _network(result: dict, results: dict) -> list[str]:
    keys = ("heatmaps", "loss", "gradient")
    rows = [
        [name, *(f"{off[key]:.1e}" for key in keys), f"{off['cosine']:.5f}"]
        for name, off in result["differences"].items()
    ]
    return table(["relative difference", *keys, "cosine of the gradients"], rows)


def _placement(result: dict, results: dict) -> list[str]:
    rows = [[f"operations on {k}", f"{v}"] for k, v in result["operations"].items()]
    rows += [[f"copies {k}", f"{v}"] for k, v in result["copies"].items()]
    lines = table(["what", "number"], rows)
    if not any(name.startswith("GPU") for name in result["operations"]):
        return lines
    large = [[one["op"], one["name"], f"{one['bytes']:,}"] for one in result["large"]]
    copied = [
        [f"{c['from']} -> {c['to']}", c["tensor"], f"{c['bytes']:,}"] for c in result["copied"]
    ]
    largest = [*large, *copied]
    lines += [
        "",
        f"{result['large_count']} operations on the CPU output {result['least']} bytes or more.",
    ]
    if not largest:
        return lines
    head = ["operation or copy", "name", "bytes"]
    return [*lines, "The largest of these and of the copies:", "", *table(head, largest)]


def _rates(result: dict, results: dict) -> list[str]:
    rows = []
    for name, part in result["parts"].items():
        if "failed" in part:
            rows.append([name, f"not measured: {part['failed']}", "", ""])
            continue
        peak = part.get("gpu_peak_mb")
        memory = (
            f"GPU {' + '.join(f'{mb:,}' for mb in peak)}" if peak else f"{part['peak_mb']:,.0f}"
        )
        spread = f"{min(part['rates']):,.1f} to {max(part['rates']):,.1f}"
        rows.append([name, f"{part['median']:,.1f}", spread, memory])
    return table(["what", "images/s", "rounds", "peak memory, MB"], rows)


def best(results: dict, section: str) -> tuple[str, float]:
    """Name and images/s of the fastest row of a section; ("", 0.0) if nothing was measured."""
    parts = results.get(section, {}).get("parts", {})
    rates = {name: part["median"] for name, part in parts.items() if "failed" not in part}
    name = max(rates, key=rates.get, default="")
    return name, rates.get(name, 0.0)


def _input(result: dict, results: dict) -> list[str]:
    lines = _rates(result, results)
    one = result["parts"][gpu_check.PER_CORE].get("median")
    needed = [
        f"{name} takes {rate:,.0f} images/s, the decoding of {rate / one:.1f} cores; this process "
        f"has {result['cores']}."
        for name, rate in (best(results, section) for section in ("speed 2", "speed 8"))
        if one and rate
    ]
    return [*lines, "", *needed]


def _data_wait(result: dict, results: dict) -> list[str]:
    shares = [p["waited"] for p in result["parts"].values() if p.get("waited") is not None]
    return [*_rates(result, results), "", *(f"Data wait {s:.1%} of the time." for s in shares)]


def _devices(result: dict, results: dict) -> list[str]:
    rates = [part.get("median") for part in result["parts"].values()]
    names = list(result["parts"])
    gains = [
        f"{name}: {rate / rates[0]:.2f} times one"
        for name, rate in zip(names[1:], rates[1:])
        if rate and rates[0]
    ]
    return [*_rates(result, results), "", "; ".join(gains)]


def _torch(result: dict, results: dict) -> list[str]:
    name, theirs = best({"torch": result}, "torch")
    lines = _rates(result, results)
    if not name:
        return lines
    ours = results.get("speed 2", {}).get("parts", {})
    batch = name.split(", ")[1]
    same = {
        k: p["median"] for k, p in ours.items() if "failed" not in p and f", {batch}, bf16" in k
    }
    part = result["parts"][name]
    where = f"PyTorch {part['torch']} on {part['device']}"
    ratios = [f"{rate / theirs:.2f} times as fast: {k}" for k, rate in same.items()]
    turns = "Measured one after the other; scripts/benchmark.py --parts=train alternates them."
    return [*lines, "", f"{where}, the faster of the rows: {theirs:,.1f}. {turns}", *ratios]


_BODIES = {
    "machine": _machine,
    "records": lambda result, results: ["Drawn and converted, at the size of MPII's."],
    "augmentation": _augmentation,
    "network": _network,
    "placement": _placement,
    "input": _input,
    "speed 2": _rates,
    "data wait": _data_wait,
    "devices": _devices,
    "torch": _torch,
    "speed 8": _rates,
}


def _section(name: str, results: dict) -> list[str]:
    result = results.get(name)
    if result is None:
        body = ["Not measured: TensorFlow does not see the GPUs."]
    elif "failed" in result:
        body = [f"Not measured: {result['failed']}"]
    else:
        notes = [result["note"]] if "note" in result else []
        body = [*_BODIES[name](result, results), *notes]
    taken = f" ({result['seconds']:.0f} s)" if result else ""
    return [f"## {TITLES[name]}{taken}", "", *body, ""]


def markdown(about: dict, results: dict[str, dict], sizes: str, problems: list[str]) -> str:
    """The page.

    Args:
      about: from ``environment.describe``, with the total "seconds".
      results: from ``gpu_check.run``.
      sizes: name of the sizes.
      problems: from ``gpu_check.problems``.
    """
    lines = ["# GPU check", ""]
    lines += [f"**{one}**" for one in problems] or ["No problem found."]
    lines += ["", f"{about['date']}, commit {about['commit']}, {about['cores']} cores of "]
    lines[-1] += f"{about['cpu']}, {about['memory_gb']} GB, {about['machine']}, Python "
    lines[-1] += f"{about['python']}; {about['seconds']:.0f} s in all, load at the start "
    lines[-1] += f"{about['load_at_start']:.1f}."
    lines += ["", SMALLER[sizes]] if sizes in SMALLER else []
    body = [line for name in TITLES for line in _section(name, results)]
    return "\n".join([*lines, "", *body]).rstrip() + "\n"


def as_json(about: dict, results: dict[str, dict], sizes: str, problems: list[str]) -> dict:
    """Everything, for json.dump."""
    return {"environment": about, "sizes": sizes, "problems": problems, "sections": results}
