"""Common to all command lines: flags in groups, errors in one sentence, exit codes."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import dataclasses
import functools
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging

# TensorFlow's own errors of full disks, memory, permissions and paths.
_OF_FILES = {
    *("ResourceExhaustedError", "PermissionDeniedError", "NotFoundError", "UnavailableError"),
    *("FailedPreconditionError", "AlreadyExistsError"),
}

# What users can fix; anything else is a bug of ours and keeps its traceback.
EXPECTED = (OSError, ValueError, FloatingPointError)

# A step's tensors come and go with its operations, and every new page of 4 KB costs a fault.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

# Flags that only a comparison with other trainers needs: --help leaves them out.
EXPERIMENT = "Experiment"

_GROUPS: dict[str, list[str]] = {}  # title -> names of flags, in the order of their definition
_METAVARS = {"int": "N", "float": "X", "string enum": "NAME"}
_MORE = """\
Write --name=value. --flagfile=FILE reads flags from a file, such as those in configs/.
--helpfull lists absl's own flags as well, and those of experiments.
"""


@contextlib.contextmanager
def group(title: str) -> Iterator[None]:
    """List the flags defined inside under ``title`` in --help; a title may be reused."""
    before = set(flags.FLAGS)
    yield
    _GROUPS.setdefault(title, []).extend(name for name in flags.FLAGS if name not in before)


# Rules beyond absl's inclusive bounds: a predicate, and the message for values that violate it.
Rule = tuple[Callable[[Any], bool], str]
POSITIVE: Rule = (lambda value: 0 < value < math.inf, "must be above 0 and finite")
NOT_NEGATIVE: Rule = (lambda value: 0 <= value < math.inf, "must not be negative, and finite")

_FORMER: dict[str, str] = {}  # name of a flag in earlier versions -> advice


def option(
    default: Any,
    help_text: str,
    *,
    group: str = "",
    choices: Sequence[str] = (),
    lower: int | None = None,
    upper: int | None = None,
    rule: Rule | None = None,
    may_change: bool = False,
    formerly: str = "",
) -> Any:
    """A dataclass field that ``define`` turns into a flag, with everything about that flag.

    Args:
      default: of the flag; ``dataclasses.MISSING`` for a required flag.
      help_text: for --help, which adds the bounds and the default.
      group: heading in --help of this field and the following ones, until the next heading.
      choices: allowed values of a string.
      lower: smallest allowed number.
      upper: largest allowed number.
      rule: further check of a value; a ValueError that it raises counts as False.
      may_change: see ``pipelines.config.Config``.
      formerly: the flag's name in earlier versions.
    """
    metadata = {key: value for key, value in locals().items() if key != "default"}
    return dataclasses.field(default=default, metadata=metadata)


def define(kind: type, removed: dict[str, str] | None = None) -> None:
    """Define one absl flag per field of a dataclass made of ``option`` fields.

    Args:
      kind: the dataclass.
      removed: flag of earlier versions without a successor -> why it is not needed.
    """
    title = ""
    for field in dataclasses.fields(kind):
        title = field.metadata["group"] or title
        with group(title):
            _define_one(field)
        if field.metadata["formerly"]:
            _FORMER[field.metadata["formerly"]] = f"it is now called --{field.name}"
    for name, reason in (removed or {}).items():
        _FORMER[name] = f"it no longer exists, because {reason}; remove it"


def _define_one(field: dataclasses.Field) -> None:
    about, required = field.metadata, field.default is dataclasses.MISSING
    shared = {"help": about["help_text"], "required": required}
    shared |= {"name": field.name, "default": None if required else field.default}
    bounds = {"lower_bound": about["lower"], "upper_bound": about["upper"]}
    if about["choices"]:
        flags.DEFINE_enum(enum_values=list(about["choices"]), **shared)
    elif field.type in ("int", "float"):
        {"int": flags.DEFINE_integer, "float": flags.DEFINE_float}[field.type](**shared, **bounds)
    else:
        {"str": flags.DEFINE_string, "bool": flags.DEFINE_boolean}[field.type](**shared)
    if about["rule"]:
        holds, sentence = about["rule"]
        flags.register_validator(field.name, functools.partial(_holds, holds), sentence)


def _holds(rule: Callable[[Any], bool], value: Any) -> bool:
    try:
        return rule(value)
    except ValueError:
        return False


def parsed(kind: type) -> Any:
    """An instance of the dataclass ``kind`` with the parsed flags."""
    return kind(**{field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(kind)})


def current_name(kind: type, name: str) -> str:
    """Name of the field of ``kind`` that is, or in an earlier version was, called ``name``."""
    former = {field.metadata["formerly"]: field.name for field in dataclasses.fields(kind)}
    return former.get(name, name)


def use_huge_pages() -> None:
    """Restart this process with huge pages for large blocks of memory, unless it has them.

    glibc (from 2.35) reads the setting only when a process starts. Call this before any slow
    import. A GLIBC_TUNABLES that is already set is left unchanged.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        with open("/proc/self/cmdline", "rb") as file:  # sys.argv lacks Python's own options
            words = file.read().split(b"\0")[1:-1]
        os.execve(sys.executable, [sys.executable, *words], {**os.environ, **HUGE_PAGES})


def run(work: Callable[..., int | None], words: str = "") -> None:
    """Parse the command line, run ``work`` and exit with its code: every script's last line.

    --help prints the flags in their groups and exits with 0. An invalid flag prints one sentence
    to standard error and exits with 1, as does any error that ``answer`` expects.

    Args:
      work: called without arguments or, if ``words`` is set, with the list of positional
        arguments. It may return an exit code.
      words: name of the positional arguments in --help, such as "INPUT..."; "": they are errors,
        because a forgotten -- would otherwise be silently ignored.
    """
    codes: list[int] = []

    def main(line: list[str]) -> int:
        codes.append(answer(lambda: work(line[1:]) if words else work()))
        return codes[0]

    # Registered before the work, called after whatever the work registers.
    atexit.register(_leave, codes)
    app.run(main, flags_parser=functools.partial(_parse, words=words))


def _leave(codes: list[int]) -> None:
    """End the process now if the work has ended, with its exit code.

    Python would take TensorFlow's graphs and queues apart first, which takes seconds, after a long
    training even a minute, and saves nothing.
    """
    if codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0])


def answer(work: Callable[[], int | None]) -> int:
    """Run ``work``; an expected error becomes one sentence on standard error and exit code 1.

    An unhandled Ctrl-C gives exit code 130, as in a shell.
    """
    try:
        return work() or 0
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not _is_tensorflows(error):
            raise
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1


def _is_tensorflows(error: Exception) -> bool:
    # By name: scripts that need no TensorFlow must not import it for its errors.
    return type(error).__module__.startswith("tensorflow") and type(error).__name__ in _OF_FILES


def _parse(line: list[str], words: str) -> list[str]:
    """The program's name and the positional arguments of a command line."""
    if {"--help", "-h"} & set(line):
        print(_help(line[0], words), end="")
        sys.exit(0)
    try:
        left = flags.FLAGS(line)
    except flags.Error as error:
        _exit_with(_sentence(error) + _flagfiles(line))
    except (OSError, UnicodeDecodeError) as error:
        _exit_with(f"--flagfile cannot be read as text: {error}{_flagfiles(line)}")
    except SystemExit:
        sys.exit(0)  # absl exits with 1 after --helpfull
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.WARNING  # otherwise absl shows every library's notices
    if len(left) > 1 and not words:
        _exit_with(f"not a flag: {' '.join(left[1:])}; flags start with --{_flagfiles(line)}")
    return left


def _sentence(error: flags.Error) -> str:
    name = getattr(error, "flagname", "")
    name = name if name in _FORMER else name.removeprefix("no")
    return f"--{name}: {_FORMER[name]}" if name in _FORMER else " ".join(str(error).split())


def _flagfiles(line: list[str]) -> str:
    """Where else than on the command line the cause of an error may be."""
    named = [word.partition("=")[2] for word in line if re.match("--?flagfile=", word)]
    return f"; see {', '.join(named)}" if named else ""


def _exit_with(sentence: str) -> None:
    print(f"error: {sentence} (--help lists the flags)", file=sys.stderr)
    sys.exit(1)


def _help(program: str, words: str) -> str:
    """The --help page: what the script does, and our own flags in their groups."""
    page = argparse.ArgumentParser(
        usage=f"python {program} [flags] {words}".rstrip(),
        description=sys.modules["__main__"].__doc__,
        epilog=_MORE,
        add_help=False,
        formatter_class=functools.partial(
            argparse.RawDescriptionHelpFormatter, max_help_position=28
        ),
    )
    for title, names in _GROUPS.items():
        if title == EXPERIMENT:
            continue
        section = page.add_argument_group(title)
        for flag in map(flags.FLAGS.__getitem__, names):
            form = {"action": "store_true"} if flag.boolean else {"metavar": _metavar(flag)}
            name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
            section.add_argument(name, help=_help_text(flag).replace("%", "%%"), **form)
    return page.format_help()


def _metavar(flag: flags.Flag) -> str:
    return _METAVARS.get(flag.flag_type(), "TEXT")


def _help_text(flag: flags.Flag) -> str:
    """A flag's help, the rule for its values, and its default unless the help names it."""
    if flag.default is None and flag.validators:
        return f"{flag.help} (required)"
    bounds = [getattr(flag.parser, end, None) for end in ("lower_bound", "upper_bound")]
    bounded = bounds != [None, None]
    rules = [flag.parser.syntactic_help] if bounded else [rule.message for rule in flag.validators]
    text = "; ".join([flag.help, *rules])
    if "default" in flag.help:
        return text
    value = (flag.default_as_str or "").strip("'")
    return f"{text} (default: {value or 'none'})"
