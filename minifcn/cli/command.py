"""How every command parses its options, reports errors and chooses its exit code.

A command is a module with `main(argv: list[str]) -> int` that returns its exit code and raises a `MinifcnError` for
whatever it refuses. It ends with

    if __name__ == "__main__":
        run(main)

so that `python -m minifcn.train` and `minifcn train` (cli.py) leave in the same way. `--debug` belongs to all of them:
it is taken out of the arguments here, and lets every exception through.

    0    done
    1    a mistake of ours: an exception nobody foresaw
    2    refused: the arguments, a file or the device cannot be used as given
    3    the training diverged
    130  interrupted from the keyboard (128 + SIGINT, as shells count)
    141  nobody reads the output any more (128 + SIGPIPE): `minifcn describe | head`
"""

import contextlib
import dataclasses
import difflib
import inspect
import io
import os
import re
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from minifcn.errors import MinifcnError, UsageError
from minifcn.kernels.memory import keep_freed_memory
from minifcn.tensor import OPS

T = TypeVar("T")
Main = Callable[[list[str]], int]


def run(main: Main) -> NoReturn:
    """Run `main` on the command line's arguments and leave with its exit code."""
    sys.exit(guard(main, sys.argv[1:]))


def guard(main: Main, argv: list[str]) -> int:
    """The exit code of `main(argv)`, whatever happens in it. Exceptions become one line on stderr."""
    keep_freed_memory()
    if "--debug" in argv:
        return main([word for word in argv if word != "--debug"])
    try:
        code = main(argv)
        sys.stdout.flush()  # a reader that has gone away is noticed here at the latest, not at the interpreter's exit
        return code
    except MinifcnError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered has nowhere to go
        return 141
    except OSError as error:  # a full disk, a folder without permission: the machine's refusal rather than our mistake
        return _say(f"{error.filename or 'input or output'}: {error.strerror or error}", 2)
    except MemoryError as error:
        return _say(out_of_memory(error), 2)
    except Exception as error:
        return _say(f"unexpected {type(error).__name__}: {error} (add --debug to see where)", 1)


def out_of_memory(error: MemoryError) -> str:
    """A MemoryError in one line: which op asked for how much, what CuPy's pool holds, and what needs less.

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


def _say(message: str, code: int) -> int:
    words = " ".join(message.split())
    line = "".join(letter if letter.isprintable() else "?" for letter in words)  # it may quote a name out of a file
    print(f"minifcn: {line}", file=sys.stderr)
    return code


def parse(options: type[T], argv: list[str], *, verb: str, default: Any = None, words: str = "", after: str = "") -> T:
    """The command line as one dataclass, by tyro; whatever does not fit is one sentence with the nearest option.

    `default` holds the values of options that are not given. `--help` prints `help_text`, then `after`, and leaves;
    `words` is what it shows before the options, "RUN image ...".
    """
    import tyro

    if "-h" in argv or "--help" in argv:
        print(help_text(options, verb=f"{verb} {words}".strip(), default=default))
        print(f"\n{after}" if after else "", end="\n" if after else "")
        raise SystemExit(0)
    check_words(options, argv, verb=verb)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(options, args=argv, prog=f"minifcn {verb}", default=default)
    except SystemExit as leaving:
        if not leaving.code:
            raise
        words = " ".join("".join(c if c.isprintable() and c not in "╭╮╰╯─│" else " " for c in said.getvalue()).split())
        raise UsageError(f"{words or 'the options cannot be read'} (`minifcn {verb} --help`)") from None


def check_words(options: type, argv: list[str], *, verb: str) -> None:
    """Refuse, in our words, an option that does not exist, a value that is missing or no number, and stray words."""
    fields = dataclasses.fields(options)
    kinds = {field.name.replace("_", "-"): str(getattr(field.type, "__name__", field.type)) for field in fields}
    known = [*kinds, *(f"no-{name}" for name, kind in kinds.items() if kind == "bool")]
    waiting = list(argv)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"found {word!r}, which belongs to no option; `minifcn {verb} --help` lists them")
        flag, equals, value = word[2:].partition("=")
        flag = flag.replace("_", "-")
        if flag not in known:
            close = difflib.get_close_matches(flag, known, n=1)
            hint = f"did you mean --{close[0]}?" if close else f"`minifcn {verb} --help` lists the options"
            raise UsageError(f"option --{flag} does not exist; {hint}")
        kind = kinds.get(flag, "bool")
        if kind == "bool":
            if equals:
                raise UsageError(f"option --{flag} takes no value, found {value!r}; it is --{flag} or --no-{flag}")
            continue
        if not equals:
            value = waiting.pop(0) if waiting and not waiting[0].startswith("--") else ""
        if not value and not (equals and kind == "str"):
            raise UsageError(f"option --{flag} has no value; expected {VALUES[kind]}")
        try:
            NUMBERS.get(kind, str)(value)
        except ValueError:
            raise UsageError(f"option --{flag} is {value!r}; expected {VALUES[kind]}") from None


NUMBERS: dict[str, Callable[[str], Any]] = {"int": int, "float": float}
VALUES = {"int": "a whole number", "float": "a number", "str": "a word after it"}


def help_text(options: type, *, verb: str, default: Any = None) -> str:
    """What `--help` prints: the options as the dataclass's source has them, in the sections its comments make.

    There a field is followed by its docstring; neither exists at run time, so the source is read.
    """
    default = default or options()
    width = min(shutil.get_terminal_size().columns, 110)
    lines = [f"usage: minifcn {verb} [options]", "", *textwrap.wrap(options.__doc__ or "", width), ""]
    name, text = "", ""
    for line in inspect.getsource(options).splitlines():
        if line.startswith("    # "):
            lines += ["", line[6:]] if lines[-1] else [line[6:]]
        elif match := re.match(r"    (\w+): (\w+) = ", line):
            name, kind, text = match[1], match[2], ""
        elif name and (text or line.startswith('    """')):
            text = f"{text} {line.strip()}".strip()
            if not text[3:].endswith('"' * 3):
                continue  # the docstring goes on
            flag = f"--{name}".replace("_", "-")
            shown = flag.replace("--", "--[no-]", 1) if kind == "bool" else f"{flag} {METAVARS[kind]}"
            value = getattr(default, name)
            usual = "" if value == "" else f" [{value if kind != 'bool' else 'yes' if value else 'no'}]"
            about = textwrap.wrap(text.removeprefix('"' * 3).removesuffix('"' * 3).strip() + usual, width - 26)
            lines += [f"  {shown:<23} {about[0]}", *(" " * 26 + more for more in about[1:])]
            name = ""
    return "\n".join(
        [*lines, "  -h, --help              show this", "  --debug                 show the traceback of an error"]
    )


METAVARS = {"int": "N", "float": "X", "str": "WORD"}


def split_words(options: type, argv: list[str]) -> tuple[list[str], list[str]]:
    """(the bare words of a command line, its options with their values), for verbs such as `predict RUN image ...`."""
    flags = {
        f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(options) if field.type in ("bool", bool)
    }
    words, rest, waiting = [], [], list(argv)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-"):
            words.append(word)
            continue
        rest.append(word)
        takes_value = "=" not in word and word not in flags | {flag.replace("--", "--no-") for flag in flags} | {
            "--help"
        }
        if takes_value and word != "-h" and waiting:
            rest.append(waiting.pop(0))
    return words, rest
