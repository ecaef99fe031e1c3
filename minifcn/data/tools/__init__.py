"""Tools for folders of data: unpack, fetch, make, check and correct."""

FILES = (
    "unpack",
    "fetch",
    "make",
    "mapping",
    "check",
    "correct",
)
