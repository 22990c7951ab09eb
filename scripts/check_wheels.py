"""Check that every pin has a wheel for every Python and machine, and every dependency a pin.

    python scripts/check_wheels.py [requirements.txt [3.12 ...]]

queries the package index through pip, without installing, and prints a Markdown table. pip
evaluates markers for the Python that runs it, so they are evaluated here for the other machines.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
# glibc 2.28 is of 2018; pip does not add the lower tags for Linux, for macOS it does.
_LINUX = ["manylinux2014", *(f"manylinux_2_{k}" for k in range(5, 29))]
# machine -> sys_platform, platform_system, platform_machine, tags of its wheels
MACHINES = {
    "Linux x86-64": ("linux", "Linux", "x86_64", _LINUX),
    "Linux aarch64": ("linux", "Linux", "aarch64", _LINUX),
    "macOS 14 arm64": ("darwin", "Darwin", "arm64", ["macosx_14_0"]),
    "macOS 14 x86-64": ("darwin", "Darwin", "x86_64", ["macosx_14_0"]),
}
TENSORFLOW = ("tensorflow", "tensorflow_cpu", "tensorflow-cpu")
# scripts/find_python.sh rejects these.
REJECTED = {("3.12", "macOS 14 x86-64"), ("3.13", "macOS 14 x86-64")}


def read(path: pathlib.Path) -> list[Requirement]:
    """The requirements of a file and of those that it includes."""
    lines = [line.split(" #")[0].strip() for line in path.read_text().splitlines()]
    requirements = []
    for line in lines:
        if line.startswith("-r "):
            requirements += read(path.parent / line[3:])
        elif line and line[0] not in "#-":
            requirements.append(Requirement(line))
    return requirements


def environment(python: str, machine: str) -> dict[str, str]:
    """Variables of markers; not x.y.0, because some packages exclude a Python's first releases."""
    platform, system, processor, _ = MACHINES[machine]
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.5",
        "os_name": "posix",
        "platform_machine": processor,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": system,
        "platform_version": "",
        "python_full_version": f"{python}.5",
        "python_version": python,
        "sys_platform": platform,
    }


def applicable(requirements: list[Requirement], environment: dict, extras=()) -> list[Requirement]:
    """Those with a marker that applies, with or without one of the extras."""
    tried = [{**environment, "extra": extra} for extra in ("", *extras)]
    return [r for r in requirements if not r.marker or any(r.marker.evaluate(t) for t in tried)]


def query(pins: list[Requirement], python: str, machine: str) -> list[dict]:
    """Metadata of each pin's wheel. Raises ValueError with pip's error if one has none."""
    *_, processor, tags = MACHINES[machine]
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.json")
        options = (
            f"install --dry-run --quiet --no-deps --ignore-installed --report {report}".split()
        )
        # pip would compare the packages' required Python with its own; see mismatches.
        options += "--only-binary=:all: --ignore-requires-python --implementation cp".split()
        options += ["--python-version", python]
        options += [word for tag in tags for word in ("--platform", f"{tag}_{processor}")]
        pip = [sys.executable, "-m", "pip", *options, "--target", folder]
        lines = [f"{pin.name}{pin.specifier}" for pin in pins]
        done = subprocess.run([*pip, *lines], capture_output=True, text=True)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise ValueError(errors[-1] if errors else done.stderr)
        return [item["metadata"] for item in json.loads(report.read_text())["install"]]


def mismatches(pins: list[Requirement], metadata: list[dict], environment: dict) -> list[str]:
    """Pins for another Python, and dependencies without a pin or with an unsuitable one."""
    versions = {canonicalize_name(item["name"]): item["version"] for item in metadata}
    extras = {canonicalize_name(pin.name): pin.extras for pin in pins}
    python, problems = environment["python_full_version"], []
    for item in metadata:
        if not SpecifierSet(item.get("requires_python", "")).contains(python):
            problems.append(f"{item['name']} {item['version']} is not for Python {python}")
        needs = [Requirement(line) for line in item.get("requires_dist", [])]
        for need in applicable(needs, environment, extras[canonicalize_name(item["name"])]):
            version = versions.get(canonicalize_name(need.name))
            if version is None or not need.specifier.contains(version, prereleases=True):
                problems.append(f"{item['name']} needs {need.name}{need.specifier}, not {version}")
    return problems


def cell(requirements: list[Requirement], python: str, machine: str) -> tuple[bool, str]:
    """Whether all pins are available and consistent, and the table's text."""
    if (python, machine) in REJECTED:
        return True, "not supported"
    variables = environment(python, machine)
    pins = applicable(requirements, variables)
    try:
        metadata = query(pins, python, machine)
    except ValueError as error:
        return False, str(error)
    problems = mismatches(pins, metadata, variables)
    names = {pin.name for pin in pins}
    addons = " with add-ons" if "tensorflow-addons" in names else ""
    [tensorflow] = {item["version"] for item in metadata if item["name"] in TENSORFLOW}
    summary = f"TensorFlow {tensorflow}{addons}, {len(pins)} wheels"
    return not problems, "; ".join(problems) or summary


def main(path: str = "requirements.txt", *pythons: str) -> int:
    """Print the table of a file; 1 if a wheel or pin is missing."""
    requirements = read(pathlib.Path(path))
    print(f"| Python | {' | '.join(MACHINES)} |\n|---|{'---|' * len(MACHINES)}")
    complete = True
    for python in pythons or PYTHONS:
        cells = [cell(requirements, python, machine) for machine in MACHINES]
        complete &= all(good for good, _ in cells)
        print(f"| {python} | {' | '.join(text for _, text in cells)} |", flush=True)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
