"""HDF5 and MATLAB files: what h5py and SciPy write and read, real ones, and hostile ones."""

import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import MEGABYTE, at_most, flips, mutations, refused, survives, truncations

from minifcn.errors import UsageError
from minifcn.formats.h5 import read_h5
from minifcn.formats.mat import read_mat

W = np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5


@pytest.fixture
def keras(h5py: Any, tmp_path: Path) -> Callable[..., Path]:
    """Writes an HDF5 file in which `fill(file)` put what it liked."""

    def write(fill: Callable[[Any], object], **options: Any) -> Path:
        path = tmp_path / "net.h5"
        with h5py.File(path, "w", **options) as file:
            fill(file)
        return path

    return write


def dense(file: Any) -> None:
    """A layer as Keras leaves it: in a folder of its name within one of its name."""
    file.attrs["model_config"] = "__import__('os').abort()"
    file["dense/dense/kernel:0"] = W
    file["dense/dense/bias:0"] = W[0]


# ------------------------------------------------------------------------------------------------------- h5: it reads


def test_what_keras_writes_is_read(keras: Callable[..., Path]) -> None:
    arrays = read_h5(keras(dense))
    assert list(arrays) == ["dense/dense/bias:0", "dense/dense/kernel:0"]
    assert np.array_equal(arrays["dense/dense/kernel:0"], W) and np.array_equal(arrays["dense/dense/bias:0"], W[0])


def test_the_config_is_not_even_looked_at(
    keras: Callable[..., Path], h5py: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 22."""
    path = keras(dense)
    for method in ("__getitem__", "get", "get_id", "__iter__"):
        monkeypatch.setattr(h5py.AttributeManager, method, lambda *_: pytest.fail("an attribute was read"))
    assert len(read_h5(path)) == 2


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", ">i2", "u1", "?"])
def test_any_layout_and_byte_order_comes_back_exactly(
    keras: Callable[..., Path], rng: np.random.Generator, dtype: str
) -> None:
    """Row 24."""
    base = (
        (rng.standard_normal((4, 5, 6)) * 50).astype(dtype)
        if dtype != "u1"
        else rng.integers(256, size=(4, 5), dtype="u1")
    )
    tensors = {
        "a": base,
        "fortran": np.asfortranarray(base),
        "strided": base[::2, ::-1],
        "scalar": base.flat[7],
        "t": base.T,
    }

    def fill(file: Any) -> None:
        for name, array in tensors.items():
            file[name] = array
        for name, options in {
            "chunked": {"chunks": True},
            "deflated": {"compression": 9, "shuffle": True, "fletcher32": True},
            "cut": {"chunks": tuple(side - 1 for side in base.shape), "compression": 1},
        }.items():
            file.create_dataset(name, data=base, **options)

    arrays = read_h5(keras(fill))
    assert len(arrays) == len(tensors) + 3
    for name, array in arrays.items():
        expected = tensors.get(name, base)
        assert array.dtype == np.dtype(dtype).newbyteorder("=") and np.array_equal(array, expected), name


@pytest.mark.parametrize("libver", ["earliest", "latest", None])
def test_every_age_of_the_format_is_read(keras: Callable[..., Path], libver: str | None) -> None:
    assert len(read_h5(keras(dense, libver=libver))) == 2


# ------------------------------------------------------------------------------------------- h5, row 22: hostile ones


def links(h5py: Any) -> dict[str, Callable[[Any], object]]:
    return {
        "a soft link": lambda file: file.__setitem__("w", h5py.SoftLink("/dense/dense/kernel:0")),
        "an external link": lambda file: file.__setitem__("w", h5py.ExternalLink("other.h5", "/secret")),
        "a link to a device": lambda file: file.__setitem__("w", h5py.ExternalLink("/dev/zero", "/secret")),
        "a folder in itself": lambda file: file["dense"].__setitem__("again", file["dense"]),
        "a folder twice": lambda file: file.__setitem__("again", file["dense"]),
        "the root in a folder": lambda file: file["dense"].__setitem__("again", file),
    }


@pytest.mark.parametrize(
    "what",
    [
        "a soft link",
        "an external link",
        "a link to a device",
        "a folder in itself",
        "a folder twice",
        "the root in a folder",
    ],
)
def test_links_are_refused_unopened(keras: Callable[..., Path], h5py: Any, tmp_path: Path, what: str) -> None:
    """Row 22."""
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = W

    def fill(file: Any) -> None:
        dense(file)
        links(h5py)[what](file)

    message = refused(read_h5, keras(fill))
    assert "w: found a" in message and "Link" in message if "link" in what else "a folder in itself" in message


def test_a_second_name_of_an_array_is_an_array(keras: Callable[..., Path]) -> None:
    def fill(file: Any) -> None:
        dense(file)
        file["tied"] = file["dense/dense/kernel:0"]

    assert np.array_equal(read_h5(keras(fill))["tied"], W)


UNREADABLE: dict[str, Any] = {
    "text": lambda h5py: ("w", {"data": "rm -rf"}),
    "bytes": lambda h5py: ("w", {"data": np.bytes_(b"rm -rf")}),
    "ragged": lambda h5py: ("w", {"shape": (2,), "dtype": h5py.vlen_dtype(np.float32)}),
    "reference": lambda h5py: ("w", {"shape": (2,), "dtype": h5py.ref_dtype}),
    "compound": lambda h5py: ("w", {"data": np.zeros(2, [("a", "f4"), ("b", "i8")])}),
    "complex": lambda h5py: ("w", {"data": np.zeros(2, complex)}),
    "opaque": lambda h5py: ("w", {"data": np.zeros(2, "V5")}),
    "long double": lambda h5py: ("w", {"data": np.zeros(2, np.longdouble)}),
    "no shape": lambda h5py: ("w", {"data": h5py.Empty("f4")}),
}  # fmt: skip


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_is_no_array_of_numbers_is_refused(keras: Callable[..., Path], h5py: Any, what: str) -> None:
    """Row 22."""
    name, options = UNREADABLE[what](h5py)
    message = refused(read_h5, keras(lambda file: file.create_dataset(name, **options)))
    assert "w: found dtype" in message or "w: found no shape" in message


@pytest.mark.parametrize("options", [{}, {"chunks": (10**6,)}, {"chunks": (10**6,), "compression": 9}])
def test_a_trillion_elements_are_refused_before_one_is_read(
    keras: Callable[..., Path], h5py: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Row 22. 10^12 numbers that were never written take no space in the file, and 4 TB in memory."""
    path = keras(lambda file: file.create_dataset("w", shape=(10**12,), dtype="f4", **options))
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda *_: pytest.fail("a dataset was read"))
    assert "w: found 4000000000000 bytes, expected at most" in refused(read_h5, path)


@pytest.mark.parametrize("options", [{}, {"chunks": (10,)}, {"chunks": (10,), "compression": 9}])
def test_numbers_that_nobody_wrote_are_refused(keras: Callable[..., Path], options: dict[str, Any]) -> None:
    """The library would fill them in."""
    path = keras(lambda file: file.create_dataset("w", shape=(100,), dtype="f4", fillvalue=7, **options))
    assert "w: found 0 " in refused(read_h5, path)


def test_values_elsewhere_are_refused(keras: Callable[..., Path], h5py: Any, tmp_path: Path) -> None:
    """Row 22, in the two other ways of HDF5 to read another file: by name in a dataset, and by a virtual one."""
    (tmp_path / "passwords").write_bytes(b"secret: 1234")
    external = [(str(tmp_path / "passwords"), 0, 12)]
    path = keras(lambda file: file.create_dataset("w", shape=(12,), dtype="u1", external=external))
    with h5py.File(path) as file:
        assert bytes(file["w"][()]) == b"secret: 1234"  # which is what the library does
    assert "w: found values in other files" in refused(read_h5, path)

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout(shape=(2, 3), dtype="f4")
        layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "w", shape=(2, 3))
        file.create_virtual_dataset("w", layout)

    assert "w: found values in other files" in refused(read_h5, keras(virtual))


@pytest.mark.parametrize("options", [{"compression": "lzf"}, {"scaleoffset": 3}])
def test_filters_that_are_programs_are_refused(keras: Callable[..., Path], options: dict[str, Any]) -> None:
    path = keras(lambda file: file.create_dataset("w", data=np.arange(100), chunks=(50,), **options))
    assert "w: found filters [" in refused(read_h5, path)


@pytest.mark.parametrize("unfolded", [39, 41, 2**25])
def test_a_chunk_that_unfolds_to_another_size_is_refused(keras: Callable[..., Path], h5py: Any, unfolded: int) -> None:
    """The library itself unfolds whatever is there, and then looks."""

    def fill(file: Any) -> None:
        made = file.create_dataset("w", shape=(10,), dtype="f4", chunks=(10,), compression=9)
        made.id.write_direct_chunk((0,), zlib.compress(bytes(unfolded)))

    path = keras(fill)
    with at_most(MEGABYTE):
        assert "w: found a chunk that unfolds to more or less, expected 40" in refused(read_h5, path, measured=False)


def test_a_chunk_without_its_filters_is_refused(keras: Callable[..., Path]) -> None:
    def fill(file: Any) -> None:
        made = file.create_dataset("w", shape=(10,), dtype="f4", chunks=(10,), compression=9)
        made.id.write_direct_chunk((0,), bytes(40), filter_mask=1)

    assert "w: found a chunk without filters" in refused(read_h5, keras(fill))


def test_the_first_block_leads_nowhere_else(keras: Callable[..., Path]) -> None:
    old = keras(dense, libver="earliest").read_bytes()
    new = keras(dense, libver="latest").read_bytes()
    path = keras(dense)
    for data, at, says in [
        (old, 48, "driver or extension"),
        (new, 20, "driver or extension"),
        (old, 24, "first and last byte"),
        (old, 13, "sizes of addresses"),
        (new, 8, "version of the first block"),
        (new, 0, "signature"),
    ]:
        path.write_bytes(data[:at] + b"\x09" + data[at + 1 :])
        assert says in refused(read_h5, path)


def test_an_empty_file_of_arrays_is_refused(keras: Callable[..., Path]) -> None:
    assert "datasets: found none" in refused(read_h5, keras(lambda file: file.create_group("dense")))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused_unless_asked_for(keras: Callable[..., Path], value: float) -> None:
    """Row 23."""
    path = keras(lambda file: file.__setitem__("dense/bias:0", np.array([1, value], np.float32)))
    assert "dense/bias:0: found NaN or infinity" in refused(read_h5, path)
    assert np.array_equal(read_h5(path, allow_nonfinite=True)["dense/bias:0"], [1, value], equal_nan=True)


def tiny(file: Any) -> None:
    file["w"] = W[:1]
    file.create_dataset("z", data=np.ones((4, 2)), chunks=(2, 2), compression=9, shuffle=True, fletcher32=True)


@pytest.mark.slow("each length of a file is read")
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_every_truncation_of_hdf5_is_refused(keras: Callable[..., Path], libver: str) -> None:
    path = keras(tiny, libver=libver)
    data = path.read_bytes()
    assert survives(read_h5, path, data) and not any(survives(read_h5, path, part) for part in truncations(data))


@pytest.mark.slow("hundreds of damaged files are read")
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_flipped_bits_of_hdf5_give_arrays_or_one_refusal(
    keras: Callable[..., Path], rng: np.random.Generator, libver: str
) -> None:
    """A sample of 600 bits and 300 edits: the library takes milliseconds, and has survived all of them."""
    path = keras(tiny, libver=libver)
    data = path.read_bytes()
    every = list(flips(data))
    tried = [every[at] for at in rng.choice(len(every), 600, replace=False)] + list(mutations(rng, data, count=300))
    found = [survives(read_h5, path, one) for one in tried]
    assert 20 < found.count(None) < 880


@pytest.mark.slow("each bit of a file: thousands of readings", first=True)
def test_every_flipped_bit_of_the_smallest_hdf5_gives_arrays_or_one_refusal(keras: Callable[..., Path]) -> None:
    path = keras(lambda file: file.create_dataset("w", data=W), meta_block_size=64)  # else a third of it is unused
    data = path.read_bytes()
    found = [survives(read_h5, path, one) for one in flips(data)]
    assert len(found) == 8 * len(data) and 1000 < found.count(None) < len(found)


def test_without_h5py_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "net.mat").write_bytes(bytes(512) + b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    for read, name in ((read_h5, "net.h5"), (read_mat, "net.mat")):
        with pytest.raises(UsageError, match=r"h5py.*pip install 'minifcn\[interop\]'"):
            read(tmp_path / name)


# ----------------------------------------------------------------------------------------------- mat: versions 5 to 7

HEAD = b"MATLAB 5.0 MAT-file, by hand".ljust(124)


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(
    real: bytes,
    sizes: tuple[int, ...] = (2, 3),
    *,
    flags: int = 6,
    name: bytes = b"w",
    order: str = "<",
    more: bytes = b"",
) -> bytes:
    """A matrix of doubles by default; `real` is the whole element of its values."""
    parts = [
        element(6, struct.pack(order + "II", flags, 0), order),
        element(5, struct.pack(f"{order}{len(sizes)}i", *sizes), order),
        element(1, name, order),
    ]
    return element(14, b"".join(parts) + real + more, order)


def deflated(data: bytes) -> bytes:
    folded = zlib.compress(data)
    return struct.pack("<II", 15, len(folded)) + folded


SIX = element(9, struct.pack("<6d", 0, 1, 2, 3, 4, 5))


@pytest.fixture
def mat(tmp_path: Path) -> Callable[..., Path]:
    def write(*elements: bytes, head: bytes = HEAD + b"\x00\x01IM") -> Path:
        path = tmp_path / "net.mat"
        path.write_bytes(head + b"".join(elements))
        return path

    return write


def test_matrices_written_by_hand_are_read(mat: Callable[..., Path]) -> None:
    small = struct.pack("<HH4s", 2, 4, b"\1\2\3\4")  # four bytes of kind 2 within the tag
    path = mat(matrix(SIX), deflated(matrix(SIX, name=b"v")), matrix(small, (1, 4), name=b"u"))
    arrays = read_mat(path)
    assert list(arrays) == ["w", "v", "u"] and all(array.dtype == np.float64 for array in arrays.values())
    assert np.array_equal(arrays["w"], [[0, 2, 4], [1, 3, 5]]) and np.array_equal(arrays["v"], arrays["w"])
    assert np.array_equal(arrays["u"], [[1, 2, 3, 4]])


def test_a_big_endian_file_is_read(mat: Callable[..., Path]) -> None:
    """Row 24."""
    real = element(9, struct.pack(">6d", 0, 1, 2, 3, 4, 5), ">")
    arrays = read_mat(mat(matrix(real, order=">"), head=HEAD + b"\x01\x00MI"))
    assert np.array_equal(arrays["w"], [[0, 2, 4], [1, 3, 5]]) and arrays["w"].dtype == np.dtype("f8")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"])
def test_what_scipy_writes_is_read(
    scipy_io: Any, tmp_path: Path, rng: np.random.Generator, dtype: str, compressed: bool
) -> None:
    """Row 24, too: any layout goes in."""
    base = (rng.random((3, 4, 5)) * 100).astype(dtype)
    variables = {"w": base, "flat": base[:, 0, 0], "turned": base.T, "strided": base[::2, ::-1], "none": base[:0, 0]}
    scipy_io.savemat(tmp_path / "net.mat", variables, do_compression=compressed)
    arrays, expected = read_mat(tmp_path / "net.mat"), scipy_io.loadmat(tmp_path / "net.mat")
    assert list(arrays) == list(variables)
    for name, array in arrays.items():
        assert array.shape == expected[name].shape and np.array_equal(array, expected[name])
        assert array.dtype == (np.uint8 if dtype == "?" else np.dtype(dtype))


@pytest.mark.parametrize(
    "name", ["weights/formats/ilsvrc_2012_mean.mat", "nyud_samples/meta/splits.mat", "ade20k_samples/color150.mat"]
)
def test_real_files_of_version_5_are_read_as_scipy_reads_them(data_root: Path, scipy_io: Any, name: str) -> None:
    arrays = read_mat(data_root / name)
    expected = {key: array for key, array in scipy_io.loadmat(data_root / name).items() if not key.startswith("__")}
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(array, expected[key]) and array.size > 400 for key, array in arrays.items())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ade20k_samples/objectName150.mat", "objectNames: found a cell"),
        ("nyud_samples/meta/class13Mapping.mat", "classMapping13: found a struct"),
    ],
)
def test_real_files_of_other_things_are_refused_by_name(data_root: Path, name: str, says: str) -> None:
    assert says in refused(read_mat, data_root / name)


LIES: dict[str, tuple[bytes, str]] = {
    "a length of 2 GB": (struct.pack("<II", 14, 2**31) + bytes(64), "64 bytes left"),
    "a length of 2 GB, deflated": (deflated(matrix(struct.pack("<II", 9, 2**31 - 8) + bytes(16))), "16 bytes left"),
    "10^12 numbers": (matrix(SIX, (10**6, 10**6)), "48 bytes of values of kind 9"),
    "2^64 numbers": (matrix(SIX, (2**30, 2**30, 16)), "whose bytes can be counted"),
    "a negative size": (matrix(SIX, (-2, -3)), "sizes of at least 0"),
    "33 sizes": (matrix(SIX, (6,) + (1,) * 32), "at most 32 sizes"),
    "one size": (matrix(SIX, (6,)), "at least two sizes"),
    "fewer numbers": (matrix(SIX, (2, 2)), "48 bytes of values"),
    "more elements": (matrix(SIX, more=SIX), "104 bytes of values"),
    "an unknown kind": (matrix(element(77, bytes(48))), "of kind 77"),
    "doubles in a matrix of bytes": (matrix(SIX, flags=9), "of kind 9"),
    "a cell": (matrix(SIX, flags=1), "w: found a cell"),
    "a struct": (matrix(SIX, flags=2), "w: found a struct"),
    "an object": (matrix(SIX, flags=3), "w: found an object"),
    "a text": (matrix(SIX, flags=4), "w: found a text"),
    "a sparse matrix": (matrix(SIX, flags=5), "w: found a sparse matrix"),
    "a function": (matrix(SIX, flags=16), "w: found a function"),
    "an opaque one": (matrix(SIX, flags=17), "w: found complex or of class 17"),
    "a complex one": (matrix(SIX, flags=6 | 8 << 8, more=SIX), "w: found complex"),
    "a name twice": (matrix(SIX) + matrix(SIX), "w: found the name twice"),
    "no name": (matrix(SIX, name=b""), "printable letters"),
    "an empty matrix element": (element(14, b""), "an empty one"),
    "an element of no matrix": (element(9, bytes(8)), "an element of kind 9"),
    "a deflated element of no matrix": (deflated(element(9, bytes(8))), "an element of kind 9"),
    "deflated twice": (deflated(deflated(matrix(SIX))), "an element of kind 15"),
    "deflated badly": (struct.pack("<II", 15, 8) + b"\x78\x9c123456", "a deflated matrix"),
    "deflated and cut": (deflated(matrix(SIX))[:4] + struct.pack("<I", 20) + deflated(matrix(SIX))[8:28], "no end"),
    "five bytes in a tag": (matrix(struct.pack("<HH4s", 2, 5, b"1234"), (1, 5)), "at most 4"),
    "nothing": (b"", "variables: found none"),
    "NaN": (matrix(element(9, struct.pack("<2d", 1, np.nan)), (1, 2)), "w: found NaN or infinity"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_a_matrix_that_lies_is_refused(mat: Callable[..., Path], what: str) -> None:
    """Rows 22 and 23 for MATLAB."""
    data, says = LIES[what]
    assert says in refused(read_mat, mat(data))


@pytest.mark.parametrize("head", [HEAD + b"\x00\x02IM", HEAD + b"\x00\x01MI", bytes(128)])
def test_other_versions_are_refused(mat: Callable[..., Path], head: bytes) -> None:
    assert "version 5 to 7.3; save it in MATLAB" in refused(read_mat, mat(matrix(SIX), head=head))


def test_a_deflated_bomb_is_refused_in_bounded_memory(mat: Callable[..., Path], scipy_io: Any) -> None:
    """64 MB in 65 kB, of which the shape mentions two numbers; and what SciPy does with a length."""
    assert "more than all of the file may hold" in refused(
        read_mat, mat(deflated(matrix(element(9, bytes(2**26)), (1, 2))))
    )
    lie = mat(deflated(matrix(struct.pack("<II", 9, 2**28) + bytes(16), (1, 2))))
    assert lie.stat().st_size < 200
    with at_most(MEGABYTE):
        refused(read_mat, lie, measured=False)
    with (
        pytest.raises(AssertionError, match=r"256\.0 MB reserved"),
        at_most(MEGABYTE),
        pytest.raises(OSError, match="read"),
    ):
        scipy_io.loadmat(lie)


@pytest.mark.parametrize("fold", [bytes, deflated])
def test_every_truncation_of_a_matrix_is_refused(mat: Callable[..., Path], fold: Callable[[bytes], bytes]) -> None:
    path = mat(fold(matrix(SIX)))
    data = path.read_bytes()
    assert survives(read_mat, path, data) and not any(survives(read_mat, path, part) for part in truncations(data))


@pytest.mark.parametrize("fold", [bytes, deflated])
def test_every_flipped_bit_of_a_matrix_gives_arrays_or_one_refusal(
    mat: Callable[..., Path], rng: np.random.Generator, fold: Callable[[bytes], bytes]
) -> None:
    path = mat(fold(matrix(SIX)))
    data = path.read_bytes()
    found = [survives(read_mat, path, one) for one in [*flips(data), *mutations(rng, data, count=1000)]]
    assert 500 < found.count(None) < len(found) - 500


# --------------------------------------------------------------------------------------------------- mat: version 7.3


def test_real_files_of_version_7_3_are_read_as_h5py_reads_them(data_root: Path, h5py: Any) -> None:
    formats = data_root / "weights" / "formats"
    arrays = read_mat(formats / "mat73_testfile14.mat")
    with h5py.File(formats / "mat73_testfile14.mat") as file:
        assert list(arrays) == ["data"] and np.array_equal(arrays["data"], file["data"][()].T)
        assert arrays["data"].shape == (3, 1, 4, 2)
    arrays = read_mat(formats / "mat73_testfile6.mat")
    with h5py.File(formats / "mat73_testfile6.mat") as file:
        assert list(arrays) == ["A", "B"] and np.array_equal(arrays["B"], file["B"][()].T)
        assert file["A"].attrs["MATLAB_empty"] and arrays["A"].shape == tuple(file["A"][()]) == (0, 0)


def test_the_real_file_of_references_and_nan_is_refused_by_name(data_root: Path, h5py: Any, tmp_path: Path) -> None:
    """Rows 22 and 23: first for its references; and without all that is no array of numbers, for its NaN."""
    path = data_root / "weights" / "formats" / "mat73_testfile1.mat"
    assert "#refs#/D: found dtype object" in refused(read_mat, path)
    with h5py.File(path) as file, h5py.File(tmp_path / "numbers.h5", "w") as numbers:
        for name, dataset in file["data"].items():
            if isinstance(dataset, h5py.Dataset) and dataset.dtype.kind in "iuf":
                numbers["data/" + name] = dataset[()]
    assert "data/arr_nan: found NaN or infinity" in refused(read_h5, tmp_path / "numbers.h5")
    loaded = read_h5(tmp_path / "numbers.h5", allow_nonfinite=True)
    assert np.isnan(loaded["data/nan_"]).all() and np.isfinite(loaded["data/arr_float"]).all()


@pytest.fixture
def mat73(h5py: Any, tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of version 7.3: HDF5 behind 512 bytes, and each array with its class attached."""

    def write(name: str, array: Any, **attributes: Any) -> Path:
        path = tmp_path / "net.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            made = file.create_dataset(name, data=array)
            made.attrs.update(attributes)
        with open(path, "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, by hand".ljust(124) + b"\x00\x02IM")
        return path

    return write


def test_a_matrix_of_version_7_3_has_matlabs_shape(mat73: Callable[..., Path]) -> None:
    array = read_mat(mat73("w", W, MATLAB_class=np.bytes_(b"single")))["w"]
    assert array.shape == (3, 2) and np.array_equal(array, W.T)


@pytest.mark.parametrize(
    ("array", "attributes", "says"),
    [
        (np.zeros((1, 4), "u2"), {"MATLAB_class": np.bytes_(b"char")}, "w: found a char"),
        (np.zeros((1, 6), "u4"), {"MATLAB_class": np.bytes_(b"missing")}, "w: found a missing"),
        (np.zeros(2), {"MATLAB_class": "double"}, "w: MATLAB_class: found dtype object"),
        (np.zeros(2), {"MATLAB_class": np.bytes_(b"x" * 33)}, "w: MATLAB_class: found dtype |S33"),
        (np.zeros(2), {"MATLAB_class": np.bytes_([b"double"] * 2)}, "w: MATLAB_class: found dtype |S6, shape (2,)"),
        (np.zeros(2), {"MATLAB_class": np.zeros((2, 2))}, "w: MATLAB_class: found dtype float64"),
        (np.array([2, 3], "u8"), {"MATLAB_empty": np.uint8(1)}, "w: found an empty matrix [2, 3]"),
        (np.array([0, 2**63], "u8"), {"MATLAB_empty": np.uint8(1)}, "w: shape: found (0, 92"),
        (np.array([0.0, 1.0]), {"MATLAB_empty": np.uint8(1)}, "w: shape: found (0.0, 1.0)"),
    ],
)
def test_a_lie_in_version_7_3_is_refused(
    mat73: Callable[..., Path], array: np.ndarray, attributes: dict[str, Any], says: str
) -> None:
    assert says in refused(read_mat, mat73("w", array, **attributes))


def test_flipped_bits_of_version_7_3_give_arrays_or_one_refusal(
    mat73: Callable[..., Path], rng: np.random.Generator
) -> None:
    """A sample of 300 bits and 300 edits."""
    path = mat73("w", W, MATLAB_class=np.bytes_(b"single"))
    data = path.read_bytes()
    every = list(flips(data[512:]))
    tried = [data[:512] + every[at] for at in rng.choice(len(every), 300, replace=False)]
    found = [survives(read_mat, path, one) for one in [*tried, *mutations(rng, data, count=300)]]
    assert 20 < found.count(None) < 580
