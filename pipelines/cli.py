"""What every command line does alike: flags in groups, plain sentences and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging

# What users can mend; anything else is our mistake and keeps its traceback.
EXPECTED = (OSError, ValueError, FloatingPointError)

# A step's tensors come and go with its operations, and every new page of 4 KB costs a fault.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

_GROUPS: dict[str, list[str]] = {}  # title -> names of flags, in the order of their definition
_PLACES = {"int": "N", "float": "X", "string enum": "NAME"}
_MORE = """\
Write --name=value. --flagfile=FILE reads flags from a file, such as those in configs/.
--helpfull lists absl's own flags, too.
"""


@contextlib.contextmanager
def group(title: str) -> Iterator[None]:
    """Flags that are defined inside stand under ``title`` in --help; a title may come again."""
    before = set(flags.FLAGS)
    yield
    _GROUPS.setdefault(title, []).extend(name for name in flags.FLAGS if name not in before)


# Rules beyond absl's inclusive bounds: what must hold, and the sentence for a value that does not.
Rule = tuple[Callable[[Any], bool], str]
POSITIVE: Rule = (lambda value: 0 < value < math.inf, "must be above 0 and finite")
NOT_NEGATIVE: Rule = (lambda value: 0 <= value < math.inf, "must not be negative, and finite")

_FORMER: dict[str, str] = {}  # name of a flag in earlier versions -> what became of it


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
    """A dataclass field that ``define`` makes a flag of; everything about the flag stands here.

    Args:
      default: of the flag; ``dataclasses.MISSING`` for a flag that must be given.
      help_text: for --help, which adds the bounds and the default.
      group: heading in --help of this field and those after it, until another one begins.
      choices: allowed values of a string.
      lower: smallest allowed number.
      upper: largest allowed number.
      rule: further test of a value; a ValueError that it raises counts as False.
      may_change: see ``pipelines.config.Config``.
      formerly: the flag's name in earlier versions.
    """
    metadata = {key: value for key, value in locals().items() if key != "default"}
    return dataclasses.field(default=default, metadata=metadata)


def define(kind: type, removed: dict[str, str] | None = None) -> None:
    """Define one absl flag per field of a dataclass made of ``option`` fields.

    Args:
      kind: the dataclass.
      removed: flags of earlier versions without a successor -> why none is needed.
    """
    title = ""
    for field in dataclasses.fields(kind):
        title = field.metadata["group"] or title
        with group(title):
            _define_one(field)
        if field.metadata["formerly"]:
            _FORMER[field.metadata["formerly"]] = f"it is called --{field.name} now"
    for name, reason in (removed or {}).items():
        _FORMER[name] = f"it no longer exists, because {reason}; leave it out"


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
    """The dataclass ``kind`` of the parsed flags."""
    return kind(**{field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(kind)})


def current_name(kind: type, name: str) -> str:
    """The name of a field of ``kind`` that was called ``name`` in this or an earlier version."""
    former = {field.metadata["formerly"]: field.name for field in dataclasses.fields(kind)}
    return former.get(name, name)


def use_huge_pages() -> None:
    """Start this process again with huge pages for large blocks of memory, unless it has them.

    glibc (from 2.35) reads the setting when a process starts and never again. Call it before
    anything that takes time is imported. A GLIBC_TUNABLES that is set already stays as it is.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        with open("/proc/self/cmdline", "rb") as file:  # sys.argv lacks Python's own options
            words = file.read().split(b"\0")[1:-1]
        os.execve(sys.executable, [sys.executable, *words], {**os.environ, **HUGE_PAGES})


def run(work: Callable[..., int | None], words: str = "") -> None:
    """Parse the command line, do ``work`` and leave with its exit code: every script's last line.

    --help prints the flags in their groups and leaves with 0. A wrong flag is one sentence on
    standard error and exit code 1, as is any error that ``answer`` expects.

    Args:
      work: called without arguments, or with the list of words that are no flags where ``words``
        says what these mean. It may return an exit code.
      words: such as "INPUT..."; when "", a word that is no flag is refused, because a forgotten --
        would otherwise be ignored silently.
    """

    def main(line: list[str]) -> int:
        return answer(lambda: work(line[1:]) if words else work())

    app.run(main, flags_parser=functools.partial(_parse, words=words))


def answer(work: Callable[[], int | None]) -> int:
    """Run ``work``; an expected error becomes one sentence on standard error and exit code 1.

    Ctrl-C where nothing handles it gives exit code 130, as in a shell.
    """
    try:
        return work() or 0
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parse(line: list[str], words: str) -> list[str]:
    """The words of a command line that are no flags, after its first."""
    if {"--help", "-h"} & set(line):
        print(_help(line[0], words), end="")
        sys.exit(0)
    try:
        left = flags.FLAGS(line)
    except flags.Error as error:
        _exit_with(_sentence(error))
    except SystemExit:
        sys.exit(0)  # absl leaves with 1 after --helpfull, though that is what was asked for
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.WARNING  # otherwise absl shows every library's notices
    if len(left) > 1 and not words:
        _exit_with(f"not a flag: {' '.join(left[1:])}; flags start with --")
    return left


def _sentence(error: flags.Error) -> str:
    name = getattr(error, "flagname", "")
    name = name if name in _FORMER else name.removeprefix("no")
    return f"--{name}: {_FORMER[name]}" if name in _FORMER else " ".join(str(error).split())


def _exit_with(sentence: str) -> None:
    print(f"error: {sentence} (--help lists the flags)", file=sys.stderr)
    sys.exit(1)


def _help(program: str, words: str) -> str:
    """What --help prints: what the script is for, and our own flags in their groups."""
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
        section = page.add_argument_group(title)
        for flag in map(flags.FLAGS.__getitem__, names):
            form = {"action": "store_true"} if flag.boolean else {"metavar": _place(flag)}
            name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
            section.add_argument(name, help=_meaning(flag).replace("%", "%%"), **form)
    return page.format_help()


def _place(flag: flags.Flag) -> str:
    return _PLACES.get(flag.flag_type(), "TEXT")


def _meaning(flag: flags.Flag) -> str:
    """A flag's help, the rule for its values, and its default unless the help names it."""
    if flag.default is None and flag.validators:
        return f"{flag.help} (required)"
    bounds = [getattr(flag.parser, side, None) for side in ("lower_bound", "upper_bound")]
    bounded = bounds != [None, None]
    rules = [flag.parser.syntactic_help] if bounded else [rule.message for rule in flag.validators]
    text = "; ".join([flag.help, *rules])
    if "default" in flag.help:
        return text
    value = (flag.default_as_str or "").strip("'")
    return f"{text} (default: {value or 'none'})"
