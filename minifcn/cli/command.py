"""How every command parses its options, reports errors and chooses its exit code.

A command is a module with `main(argv: list[str]) -> int` that returns its exit code and raises a `MinifcnError` for
whatever it refuses. `minifcn train` and `python -m minifcn.train` both run it through `guard`, so they exit in the same
way. Every command takes `--debug`, which is handled here: it lets every exception through.

    0    done
    1    a bug in minifcn: an unexpected exception
    2    refused: the arguments, a file or the device cannot be used as given
    3    the training diverged
    130  interrupted from the keyboard (128 + SIGINT, as shells count)
    141  the reader of the output has gone away (128 + SIGPIPE): `minifcn describe | head`

`say` is the one place that prints. A name in a file may hold anything; on the terminal, an escape sequence could clear
the screen or forge a line. So whatever is not printable becomes "?", and so does a letter that the terminal's encoding
lacks.
"""

import argparse
import contextlib
import dataclasses
import difflib
import os
import re
import shutil
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, TextIO, TypeVar, get_args, get_type_hints

from minifcn.errors import MinifcnError, UsageError
from minifcn.formats.limits import printable
from minifcn.kernels.memory import keep_freed_memory
from minifcn.tensor import OPS

T = TypeVar("T")
Main = Callable[[list[str]], int]


def run(main: Main) -> NoReturn:
    """Run `main` on the command line's arguments and leave with its exit code."""
    sys.exit(guard(main, sys.argv[1:]))


def guard(main: Main, argv: list[str]) -> int:
    """Return the exit code of `main(argv)`, whatever happens in it. Exceptions become one line on stderr."""
    open_streams()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as minifcn/__init__.py left it while it imported
        signal.signal(signal.SIGINT, signal.default_int_handler)
    keep_freed_memory()
    try:
        return _outcome(main, argv)
    finally:
        close_broken_streams()


def _outcome(main: Main, argv: list[str]) -> int:
    if "--debug" in argv:
        return main([word for word in argv if word != "--debug"])
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *where: warn(str(message))
            code = main(argv)
            sys.stdout.flush()  # a reader that has gone away is noticed here at the latest
            return code
    except Exception as error:
        line, code = explained(error)
    except KeyboardInterrupt:
        line, code = "interrupted", 130
    if line:
        with contextlib.suppress(OSError):  # the terminal may have gone away, too
            say(f"minifcn: {' '.join(line.split())}", to=sys.stderr)
    return code


def explained(error: Exception) -> tuple[str, int]:
    """Return an exception in one line, and the exit code it stands for; no line for a reader that has gone away."""
    if isinstance(error, MinifcnError):
        return with_flags(str(error)), error.exit_code
    if isinstance(error, BrokenPipeError):
        return "", 141
    if isinstance(error, OSError):  # a full disk, a folder without permission: the machine refuses, we made no mistake
        return f"{error.filename or 'input or output'}: {error.strerror or error}", 2
    if isinstance(error, MemoryError):
        return out_of_memory(error), 2
    return f"unexpected {type(error).__name__}: {error} (add --debug to see where)", 1


# ------------------------------------------------------------------------------------------------------------- printing


def say(*lines: str, to: TextIO | None = None) -> None:
    """Print lines, on stdout unless `to` says otherwise; what is not printable or cannot be encoded becomes "?"."""
    stream = to or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    for line in lines:
        print(printable(line).encode(encoding, "replace").decode(encoding), file=stream, flush=True)


def relay(line: str) -> None:
    """Print a line of the library, with its arguments as flags: what the `say` of a library function is given."""
    say(with_flags(line))


def warn(sentence: str) -> None:
    """Print a warning on stderr: what `say` is where only warnings are said."""
    say(f"warning: {with_flags(sentence)}", to=sys.stderr)


def open_streams() -> None:
    """Open what is closed of stdin, stdout and stderr (`minifcn train 2>&-`) on the null device.

    Otherwise Python sets `sys.stderr` to None, and the next file that is opened gets the number 2: what a library then
    writes on stderr ends up in a checkpoint.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.fstat(number)
                continue
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def close_broken_streams() -> None:
    """Flush stdout and stderr; one that cannot be written loses what is buffered instead of failing at the exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


def out_of_memory(error: MemoryError) -> str:
    """Return a MemoryError in one line: which op asked for how much, what CuPy's pool holds, and what needs less.

    The pool's unused blocks are given back to the device, so that whatever still has to be done can be done.
    """
    places = {(function.__wrapped__.__code__.co_filename, name) for name, function in OPS.items()}  # type: ignore[attr-defined]
    frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    called = ((code.co_filename, code.co_qualname.partition(".")[0]) for code in frames)  # a gradient lies in its op
    asking = [name for file, name in called if (file, name) in places]
    where = f" in {asking[0]}" if asking else ""
    cupy = sys.modules.get("cupy")
    held = ""
    if cupy is not None and type(error).__module__.startswith("cupy"):
        pool = cupy.get_default_memory_pool()
        used, total = pool.used_bytes() >> 20, pool.total_bytes() >> 20
        pool.free_all_blocks()
        held = f" CuPy's pool held {total} MiB, {used} MiB of them in use;"
    said = str(error).rstrip(". ") or "the request was refused"
    return f"out of memory{where}: {said};{held} a smaller --batch, --crop or --width needs less"


ARGUMENT = re.compile(r"`([a-z][a-z_]*)=([^`\s]*)`")


def with_flags(message: str) -> str:
    """Return a message of the library with its arguments as flags.

    The library knows no flags; it writes an argument as in Python, between backticks: `skip_bad=True` is --skip-bad,
    `torch=False` --no-torch, `map=FILE` --map FILE, and `lr=...` --lr.
    """

    def flag(found: re.Match[str]) -> str:
        name, value = flag_of(found[1]), found[2]
        special = {"True": name, "...": name, "False": flag_of(f"no_{found[1]}"), '""': f"{name}="}
        return special.get(value, f"{name} {value}")

    return ARGUMENT.sub(flag, message)


def parse(options: type[T], argv: list[str], *, verb: str) -> T:
    """Return the options of a command without words; see `parse_words`."""
    words, chosen = parse_words(options, argv, verb=verb)
    if words:
        raise UsageError(f"found {words[0]!r}, which belongs to no option; `minifcn {verb} --help` lists them")
    return chosen


def parse_words(
    options: type[T], argv: list[str], *, verb: str, words: str = "", count: int = -1, after: str = ""
) -> tuple[list[str], T]:
    """Return the bare words of a command line (`predict RUN image ...`) and its options as one dataclass.

    `--help` prints `help_text`, then `after`, and leaves; `words` is what it shows before the options. Raises
    `UsageError` for another number of words than `count` (-1: any number).
    """
    found, given = read(options, argv, verb=verb)
    usage = f"{verb} {words}".strip()
    chosen = finish(options, given, verb=usage, default=options(), after=after)
    if count not in (-1, len(found)):
        raise UsageError(f"{verb}: found {' '.join(found) or 'nothing'!r}; expected: minifcn {usage}")
    return found, chosen


def read(
    options: type, argv: list[str], *, verb: str, optional: Sequence[str] = ()
) -> tuple[list[str], dict[str, Any]]:
    """Return the bare words and the values of the options that are given, by field name; one sentence for a mistake.

    `optional` names more flags, which may have a value or none ("" then).
    """
    kinds = {flag_of(name): kind for name, kind, _, _ in described(options)}
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("-h", "--help", action="store_true")
    for flag, kind in kinds.items():
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction)
        else:
            parser.add_argument(flag, type=partial(_value, kind))
    for name in optional:
        parser.add_argument(flag_of(name), nargs="?", const="")
    try:
        given, words = parser.parse_known_args([_dashed(word) for word in argv])
    except argparse.ArgumentError as fault:
        flag, _, other = str(fault.argument_name).partition("/")
        if kinds.get(flag, bool) is bool:
            value = fault.message.removeprefix("ignored explicit argument ")
            raise UsageError(f"option {flag} takes no value, found {value}; it is {flag} or {other}") from None
        problem = fault.message if fault.message.startswith("is ") else "has no value"
        raise UsageError(f"option {flag} {problem}; expected {KINDS[kinds[flag]][1]}") from None
    known = ["--help", *kinds, *(flag_of(f"no_{flag[2:]}") for flag, kind in kinds.items() if kind is bool)]
    known += map(flag_of, optional)
    for word in words:
        if word.startswith("-") and len(word) > 1:
            flag = word.partition("=")[0]
            close = difflib.get_close_matches(flag, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"`minifcn {verb} --help` lists the options"
            raise UsageError(f"option {flag} does not exist; {hint}")
    return words, vars(given)


def finish(options: type[T], given: dict[str, Any], *, verb: str, default: T, after: str = "") -> T:
    """Return `default` with the values that `read` found; or print the help, if that is asked for, and leave."""
    if given.pop("help", False):
        say(*help_text(options, verb=verb, default=default).split("\n"), *(["", *after.split("\n")] if after else []))
        raise SystemExit(0)
    return dataclasses.replace(default, **given)  # type: ignore[type-var]


KINDS: dict[Any, tuple[str, str]] = {
    int: ("N", "a whole number"),
    float: ("X", "a number"),
    str: ("WORD", "a word after it"),
    float | str: ("X", "a number or a word"),
}
"""What --help shows for a value of each type, and what an error expects."""


def _value(kind: Any, text: str) -> Any:
    for one in get_args(kind) or (kind,):  # of a union the first that fits
        with contextlib.suppress(ValueError):
            return one(text)
    raise argparse.ArgumentTypeError(f"is {text!r}" if text else "")


def flag_of(name: str) -> str:
    """Return the flag of a field: `max_train` is --max-train."""
    return "--" + name.replace("_", "-")


def _dashed(word: str) -> str:
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


def described(options: type) -> list[tuple[str, type, str, str]]:
    """Return each field's name, type, description and, where a section of --help begins with it, the section's title.

    A field is declared `name: Annotated[int, "description", "section"] = 8`.
    """
    hints = get_type_hints(options, include_extras=True)
    found = []
    for field in dataclasses.fields(options):
        kind, about, section, *_ = *get_args(hints[field.name]), "", "", ""
        found.append((field.name, kind or hints[field.name], about, section))
    return found


def terminal_width() -> int:
    """Return how long a line of help may be; a narrow terminal breaks it once more."""
    return min(max(shutil.get_terminal_size().columns, 60), 110)


def help_text(options: type, *, verb: str, default: Any = None) -> str:
    """Return what `--help` prints: every option with its description and default, in sections."""
    default = default or options()
    width = terminal_width()
    intro = textwrap.wrap(" ".join((options.__doc__ or "").split()), width)
    lines = [f"usage: minifcn {verb} [options]", "", *intro, ""]
    for name, kind, about, section in described(options):
        if section:
            lines += ["", section] if lines[-1] else [section]
        flag, value = flag_of(name), getattr(default, name)
        shown = flag.replace("--", "--[no-]", 1) if kind is bool else f"{flag} {KINDS[kind][0]}"
        usual = "" if value == "" else f" [{value if kind is not bool else 'yes' if value else 'no'}]"
        first, *more = textwrap.wrap(about + usual, width - 26) or [""]
        lines += [f"  {shown:<23} {first}", *(" " * 26 + line for line in more)]
    return "\n".join(
        [*lines, "  -h, --help              show this", "  --debug                 show the traceback of an error"]
    )


SCALES: Any = (float, "numbers from 0.25 to 4, such as 0.75,1,1.25", (0.25, 4))
"""What the numbers of an option `scales` may be."""


def numbers(
    name: str, text: str, kind: Callable[[str], float], expected: str, ends: tuple[float, float], count: int = 0
) -> tuple[Any, ...]:
    """Return the numbers of an option like "0.75,1,1.25", each in a range; `count` of them, if that is not 0."""
    try:
        found = tuple(kind(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(ends[0] <= value <= ends[1] for value in found) or count not in (0, len(found)):
        raise UsageError(f"option {name} is {text!r:.60}; expected {expected}")
    return found


def net_options(options: Any) -> dict[str, Any]:
    """Return what the options width, layers, classes and padding ask of a net: those that are neither 0 nor empty."""
    given = {name: value for name in ("width", "layers", "classes") if (value := getattr(options, name, 0))}
    if options.padding:
        given["padding"] = int(options.padding) if options.padding.isdecimal() else options.padding
    return given


def image_size(text: str) -> tuple[int, int]:
    """Return `500x375` or `500` as (height, width); `UsageError` for anything else."""
    sides = text.split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() and 0 < int(side) < 2**20 for side in sides):
        raise UsageError(f"option size is {text!r}; expected height x width in pixels, such as 500x500")
    return int(sides[0]), int(sides[-1])
