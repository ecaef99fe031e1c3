"""Read weight files of other programs without those programs.

Each format has one file here, and in it one function, `read_<format>(path, *, allow_nonfinite=False)`, which gives
`{name: array}` under the file's own names and in the file's own order. The arrays are fresh, or read-only views of the
mapped file, which must not be rewritten while they are in use.

A file of weights was downloaded, so it is not trusted. Every reader compares a length with the bytes that are there
before it uses it, runs no code from the file, and refuses a faulty file with one `FormatError`."""

FILES = (
    "limits",
    "strict_json",
    "not_weights",
    "archive",
    "npz",
    "opcodes",
    "torch_tensors",
    "torch_zip",
    "torch_legacy",
    "protobuf",
    "caffemodel",
    "prototxt",
    "safetensors",
    "h5",
    "mat",
    "files",
    "checkpoint",
)
