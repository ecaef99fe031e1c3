"""What is done to a folder of data before it is used: fetch it, unpack it, check its masks, correct them, make one."""

FILES = (
    "unpack",
    "fetch",
    "make",
    "mapping",
    "check",
    "correct",
)
