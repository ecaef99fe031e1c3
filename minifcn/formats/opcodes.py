r"""Interpret the harmless part of a pickle, which is enough to read weights.

Most files describe their content. A pickle *computes* it: it is a list of commands for a machine with a stack and
numbered boxes (the memo), and what lies on the stack in the end is the object. The pickle of `{"w": 3}`:

    \x80\x02              I speak protocol 2
    }                     push an empty dict
    q\x00                 put what is on top into box 0 (in case it is needed again)
    X\x01\x00\x00\x00w    push the text "w"
    K\x03                 push the number 3
    s                     pop value and key, and set them in the dict below
    .                     stop: the top of the stack is the answer

That would be harmless. But the language has two more words: `c` pushes any importable object by its name, and `R` pops
arguments and a callable, and *calls* it. `cos\nsystem\n` and `R` are a shell. So an untrusted pickle must not be
unpickled, and PyTorch's files, which all contain pickles, are a problem.

Here is the answer. Of the language's seventy words this machine knows some thirty, those that files of weights use.
`c` finds nothing but the names it was given, and `R` calls nothing but our own functions. Some names that stand beside
weights in a checkpoint (a device, a NumPy number, argparse's options) are known and never imported: what a pickle makes
of them is an `Other`, which is passed over. The machine also counts: words (each takes time), and bytes only as far as
the file has them. `r` with box number 2^32 - 1, nine bytes in all with what belongs around it, makes an unpickler that
keeps its boxes in an array reserve gigabytes; ours keeps them in a dict.

`pickletools.genops` of the standard library reads the same words and is made for looking at pickles: it takes halves of
surrogate pairs for UTF-8, the texts of Python 2 for Latin-1, and undoes escapes in names, so that `to\x72ch` passes
for `torch`. What decides whether a name is known should see the bytes, so the few kinds of arguments are read here.

Values on the stack are int, float, str, bool, None, tuple, list, dict (also in the place of OrderedDict), `Name`,
`Other`, and what the functions return. They may be nested so deep that printing or comparing one exhausts Python's own
stack: no code here or above does either before it knows the type.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any

from minifcn.formats.limits import FETCH_AGAIN, Cursor, refusal, short

MAX_WORDS = 200_000  # 30 or so for a tensor, of which the largest nets have a few thousand
MAX_INTEGER = 16  # bytes; the magic number in front of old PyTorch files has ten
MAX_KEY = 2**31  # an integer of 61 bits or more can have the hash of another: 20,000 such keys take seconds
SAVE_STATE = "save the weights alone, torch.save(net.state_dict()), or take another file"
ORDERED_DICT = "collections.OrderedDict"
# Beside weights people save options, counters, random states and sizes. None of these is imported or made.
PASSED_OVER = frozenset(
    f"{module}.{name}"
    for modules, names in {
        "argparse": "Namespace",
        "types": "SimpleNamespace",
        "collections": "Counter defaultdict deque",
        "__builtin__ builtins": "set frozenset list dict tuple int float str bool complex slice range bytearray",
        "datetime": "datetime date timedelta",
        "pathlib pathlib._local": "Path PosixPath WindowsPath PurePosixPath",
        "_codecs": "encode",
        "numpy": "dtype ndarray",
        "numpy.core.multiarray numpy._core.multiarray": "scalar _reconstruct",
        "torch": "device Size float16 float32 float64 bfloat16 int32 int64 uint8 bool strided contiguous_format "
        "channels_last",
        "torch.torch_version": "TorchVersion",
        "torch.serialization": "_get_layout",
        "pytorch_lightning.utilities.parsing lightning_fabric.utilities.data lightning.fabric.utilities.data "
        "lightning.pytorch.utilities.parsing": "AttributeDict",
        "easydict": "EasyDict",
    }.items()
    for module in modules.split()
    for name in names.split()
)


class Name:
    """What `c` pushes: the name of something that a real unpickler would have imported."""

    def __init__(self, text: str) -> None:
        self.text = text


class Other:
    """What stands for an object of a name in `PASSED_OVER`: nothing of it is kept."""


class Machine:
    """Run one pickle, from `cursor` to its `.`: `Machine(cursor).run()` returns what it computes.

    functions: `{"module.name": function of the argument tuple}`, called by `R`. constants: names that may only lie on
    the stack. persistent: called by `Q`, with which a file refers to what it keeps outside of the pickle.
    """

    def __init__(
        self,
        cursor: Cursor,
        *,
        functions: Mapping[str, Callable[[Any], Any]] | None = None,
        constants: frozenset[str] = frozenset(),
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.cursor, self.functions, self.constants = cursor, functions or {}, constants
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack: `(` remembers one, `t` and others go back to it
        self.memo: dict[int, Any] = {}
        self.budget = MAX_WORDS

    def run(self) -> Any:
        """Run word after word and return the answer. FormatError for a word that is unknown or does not fit."""
        while True:
            self.spend(1)
            word = bytes(self.cursor.take(1, "word"))
            if word == b".":
                answer = self.pop()
                if self.stack or self.marks:
                    raise self.refusal("more than one thing on the stack at the end", "one")
                return answer
            if word not in WORDS:
                raise self.refusal(f"the word {word!r}", "one that files of weights use", then=SAVE_STATE)
            WORDS[word](self)

    def refusal(self, found: str, expected: str, *, then: str = FETCH_AGAIN) -> Exception:
        at = f"{self.cursor.field}: byte {self.cursor.start + self.cursor.at}"
        return refusal(self.cursor.path, at, found, expected, then=then)

    def spend(self, count: int) -> None:
        """Every word costs time, and so does every element that one copies."""
        self.budget -= count
        if self.budget < 0:
            raise self.refusal(f"more than {MAX_WORDS} words", "as many as the weights of a net take")

    # -------------------------------------------------------------------------------------------------------- the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        """Return the top, if it lies above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.refusal("an empty stack", "something on it")
        return self.stack.pop()

    def pop_type(self, kind: type) -> Any:
        value = self.pop()
        if type(value) is not kind:
            raise self.refusal(f"a {type(value).__name__}", f"a {kind.__name__}")
        return value

    def pop_mark(self) -> list[Any]:
        """Return everything above the last mark."""
        if not self.marks:
            raise self.refusal("no mark", "one on the stack")
        height = self.marks.pop()
        values = self.stack[height:]
        del self.stack[height:]
        return values

    def pop_tuple(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    # ------------------------------------------------------------------------------------------------- numbers and text

    def protocol(self) -> None:
        found = self.cursor.integer(1, "protocol")
        if found != 2:
            raise self.refusal(f"pickle protocol {found}", "2, which PyTorch writes", then=SAVE_STATE)

    def push_integer(self, size: int, *, signed: bool = False) -> None:
        self.push(self.cursor.integer(size, "integer", signed=signed))

    def push_long(self) -> None:
        size = self.cursor.integer(1, "size of an integer")
        if size > MAX_INTEGER:
            raise self.refusal(f"an integer of {size} bytes", f"at most {MAX_INTEGER}")
        self.push_integer(size, signed=True)

    def push_float(self) -> None:
        self.push(struct.unpack(">d", self.cursor.take(8, "float"))[0])  # the one number that is big endian

    def push_text(self, size: int) -> None:
        text = bytes(self.cursor.take(self.cursor.integer(size, "length of a text"), "text"))
        try:
            self.push(text.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise self.refusal("a text that is not UTF-8", "UTF-8") from error

    # -------------------------------------------------------------------------------------------------- lists and dicts

    def extend(self, values: list[Any]) -> None:
        if self.passed_over():
            return
        target = self.pop_type(list)
        target.extend(values)
        self.push(target)

    def set_items(self, values: list[Any]) -> None:
        """Keys and values in turn. A key that comes twice is two answers to one question."""
        if self.passed_over():
            return
        target = self.pop_type(dict)
        if len(values) % 2:
            raise self.refusal("a key without a value", "both")
        for key, value in zip(values[::2], values[1::2]):
            if type(key) not in (str, int):
                raise self.refusal(f"a key that is a {type(key).__name__}", "a text or an integer")
            if type(key) is int and not -MAX_KEY <= key < MAX_KEY:
                raise self.refusal(f"the key {key}", "one of at most 32 bits")
            if key in target:
                raise self.refusal(f"the key {short(key)} twice", "each key once")
            target[key] = value
        self.push(target)

    # --------------------------------------------------------------------------------------------------------- the memo

    def put(self, size: int) -> None:
        value = self.pop()
        self.memo[self.cursor.integer(size, "box")] = value
        self.push(value)

    def get(self, size: int) -> None:
        box = self.cursor.integer(size, "box")
        if box not in self.memo:
            raise self.refusal(f"box {box} empty", "something in it")
        self.push(self.memo[box])

    # --------------------------------------------------------------------------------- the words that make it dangerous

    def name(self) -> None:
        """`c`: nothing is imported. The name itself is pushed, if it is one of those that are known."""
        module, name = (self.cursor.line(what).decode("latin-1") for what in ("module", "name"))
        text = f"{module}.{name}"
        if not any(text in known for known in (self.functions, self.constants, PASSED_OVER, (ORDERED_DICT,))):
            raise self.refusal(f"the name {text}", "only what rebuilds tensors; nothing was run", then=SAVE_STATE)
        self.push(Name(text))

    def call(self) -> None:
        """`R`: the function is ours, and so is what it does with the arguments."""
        arguments, callee = self.pop_type(tuple), self.pop_type(Name).text
        if callee == ORDERED_DICT:
            self.push({})
            self.set_items(self.pairs(arguments))
        elif callee in self.functions:
            self.push(self.functions[callee](arguments))
        elif callee in PASSED_OVER:
            self.push(Other())
        else:
            raise self.refusal(f"a call of {callee}", "a call of what rebuilds tensors", then=SAVE_STATE)

    def pairs(self, arguments: tuple[Any, ...]) -> list[Any]:
        """Return the keys and values, in turn, of `[[key, value], ...]`, which Python 2 gave to OrderedDict."""
        if not arguments:
            return []
        pairs = arguments[0]
        if len(arguments) > 1 or type(pairs) is not list:
            raise self.refusal("other arguments of OrderedDict", "none, or a list of pairs")
        self.spend(len(pairs))  # one list in a box can be copied again and again, by two words each time
        if any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
            raise self.refusal("an element of OrderedDict that is no pair", "pairs of key and value")
        return [each for pair in pairs for each in pair]

    def build(self) -> None:
        """`b`: attributes for an object. A state dict's are notes about its layers' versions, which are passed over."""
        state = self.pop()
        if self.passed_over():
            return
        target = self.pop_type(dict)
        if type(state) is not dict:
            raise self.refusal(f"a {type(state).__name__}", "a dict")
        self.push(target)

    def new(self) -> None:
        """`\x81`: an object of a class, of which only those are known that are passed over."""
        self.pop_type(tuple)
        if (callee := self.pop_type(Name).text) not in PASSED_OVER:
            raise self.refusal(f"an object of {callee}", "plain tensors", then=SAVE_STATE)
        self.push(Other())

    def passed_over(self) -> bool:
        """Return whether an `Other` lies on top, for which everything that it is given is dropped."""
        return len(self.stack) > (self.marks[-1] if self.marks else 0) and type(self.stack[-1]) is Other

    def refer(self) -> None:
        """`Q`: something outside of the pickle, by its number."""
        if self.persistent is None:
            raise self.refusal("a reference to a storage", "none in this part of the file")
        self.push(self.persistent(self.pop()))


WORDS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": Machine.protocol,
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push_integer(1),
    b"M": lambda m: m.push_integer(2),
    b"J": lambda m: m.push_integer(4, signed=True),
    b"\x8a": Machine.push_long,
    b"G": Machine.push_float,
    b"X": lambda m: m.push_text(4),
    b"U": lambda m: m.push_text(1),  # Python 2's text; `T` where it is longer than 255 bytes
    b"T": lambda m: m.push_text(4),
    b")": lambda m: m.push(()),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b"\x85": lambda m: m.pop_tuple(1),
    b"\x86": lambda m: m.pop_tuple(2),
    b"\x87": lambda m: m.pop_tuple(3),
    b"a": lambda m: m.extend([m.pop()]),
    b"e": lambda m: m.extend(m.pop_mark()),
    b"s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    b"u": lambda m: m.set_items(m.pop_mark()),
    b"q": lambda m: m.put(1),
    b"r": lambda m: m.put(4),
    b"h": lambda m: m.get(1),
    b"j": lambda m: m.get(4),
    b"c": Machine.name,
    b"R": Machine.call,
    b"b": Machine.build,
    b"\x81": Machine.new,
    b"Q": Machine.refer,
}
