"""Tools for folders of data: unpack, fetch, make, check, correct and import."""

FILES = (
    "unpack",
    "fetch",
    "make",
    "mapping",
    "raw",
    "sidecars",
    "meaning",
    "silent",
    "check",
    "correct",
    "pairing",
    "splits",
    "drawing",
    "annotations",
    "importing",
)
