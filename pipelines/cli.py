"""What every command line does alike: flags in groups, plain sentences and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator

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
        _refuse(" ".join(str(error).split()))
    except SystemExit:
        sys.exit(0)  # absl leaves with 1 after --helpfull, though that is what was asked for
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.WARNING  # otherwise absl shows every library's notices
    if len(left) > 1 and not words:
        _refuse(f"not a flag: {' '.join(left[1:])}; flags start with --")
    return left


def _refuse(sentence: str) -> None:
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
