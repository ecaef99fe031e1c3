"""Pictures and masks on disk: what each kind of file becomes, and what is refused (rows 27-29 and 31 of the faults)."""

import contextlib
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from minifcn.data.files import opened, read_image, read_mask, write_image, write_mask
from minifcn.data.tools.raw import read_png_mask
from minifcn.errors import DataError, ShapeError, UsageError
from minifcn.viz import palette

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)


@contextlib.contextmanager
def refused(path, *words):
    """The refusal names the file and says each of `words`, in one line."""
    with pytest.raises(DataError) as caught:
        yield
    message = str(caught.value)
    assert os.fspath(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


def png(path, width, height, *, bits, colour, rows=b""):
    """A PNG written by hand: Pillow cannot write every kind that it reads."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body)
    return path


# ---------------------------------------------------------------------------------------------------- photographs


def test_a_png_comes_back_bit_for_bit_and_a_jpeg_nearly(tmp_path):
    write_image(tmp_path / "a.png", PICTURE)
    assert np.array_equal(read_image(tmp_path / "a.png"), PICTURE)
    smooth = np.repeat(np.linspace(0, 255, 64)[None, :, None], 48, axis=0).repeat(3, axis=2).astype(np.uint8)
    write_image(tmp_path / "a.jpg", smooth)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - smooth).max() <= 4


def test_the_result_is_an_array_of_our_own(tmp_path):
    write_image(tmp_path / "a.png", PICTURE)
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8 and image.flags.writeable and image.flags.c_contiguous


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (7, 1), (500, 1), (31, 33)])
def test_pictures_and_masks_of_any_size_are_legal(tmp_path, height, width):
    rgb = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    label = RNG.integers(0, 5, (height, width), dtype=np.uint8)
    write_image(tmp_path / "a.png", rgb)
    write_mask(tmp_path / "m.png", label)
    assert np.array_equal(read_image(tmp_path / "a.png"), rgb)
    assert np.array_equal(read_mask(tmp_path / "m.png", classes=5), label)


def test_grey_and_one_bit_pictures_become_rgb(tmp_path):
    Image.fromarray(PICTURE[:, :, 0]).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), PICTURE[:, :, :1].repeat(3, axis=2))
    bits = PICTURE[:, :, 0] > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert np.array_equal(read_image(tmp_path / "bits.png")[:, :, 1], bits * np.uint8(255))


def test_sixteen_bits_keep_their_high_byte(tmp_path):
    deep = RNG.integers(0, 2**16, (5, 6)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "deep.png")[:, :, 0], deep // 256)
    rows = b"".join(b"\0" + row.astype(">u2").repeat(3).tobytes() for row in deep)
    png(tmp_path / "colour.png", 6, 5, bits=16, colour=2, rows=rows)
    assert np.array_equal(read_image(tmp_path / "colour.png")[:, :, 2], deep // 256)


def test_cmyk_becomes_rgb(tmp_path):
    inks = np.zeros((8, 16, 4), dtype=np.uint8)
    inks[:, 8:, 3] = 255  # white paper on the left, black ink on the right
    Image.frombytes("CMYK", (16, 8), inks.tobytes()).save(tmp_path / "print.jpg", quality=100)
    image = read_image(tmp_path / "print.jpg")
    assert image[:, :8].min() >= 250 and image[:, 8:].max() <= 5


def test_transparency_is_laid_on_white(tmp_path):
    grey = np.zeros((2, 3, 2), dtype=np.uint8)
    grey[:, 0] = (10, 255)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    colours = np.zeros((2, 3, 4), dtype=np.uint8)
    colours[:, 0] = (10, 10, 10, 255)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    indexed = Image.fromarray(np.array([[1, 0, 0], [1, 0, 0]], dtype=np.uint8))
    indexed.putpalette([0, 0, 0, 10, 10, 10])
    indexed.save(tmp_path / "indexed.png", transparency=0)
    for name in ("grey", "colours", "indexed"):
        assert read_image(tmp_path / f"{name}.png")[:, :, 0].tolist() == [[10, 255, 255]] * 2, name


@pytest.mark.parametrize(
    "orientation, upright",
    [(2, lambda a: a[:, ::-1]), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)],
)
def test_pictures_are_turned_upright(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), upright(PICTURE))
    faint = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 254, dtype=np.uint8)])
    Image.fromarray(faint).save(tmp_path / "faint.png", exif=exif)
    assert np.abs(read_image(tmp_path / "faint.png").astype(int) - upright(PICTURE)).max() <= 1


def test_the_content_decides_and_the_first_frame_counts(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), value, dtype=np.uint8)) for value in (40, 200)]
    frames[0].save(tmp_path / "moving.png", format="GIF", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "moving.png") == 40).all()
    # Telephones write JPEGs with a second, smaller picture behind the first.
    frames[0].save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "phone.jpg") == 40).all()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_refused(tmp_path, suffix, kept):
    path = tmp_path / f"cut.{suffix}"
    write_image(path, PICTURE)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with refused(path, "replace the file"):
        read_image(path)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    for read in (read_image, lambda file: read_mask(file, classes=3)):
        with refused(path, "empty (0 bytes)"):
            read(path)


def test_text_and_postscript_named_jpg_are_refused(tmp_path):
    path = tmp_path / "page.jpg"
    for content in (b"<html><body>404 Not Found</body></html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
        path.write_bytes(content)
        with refused(path, "not recognised", "JPEG, PNG"):
            read_image(path)


def test_samples_of_32_bits_are_refused(tmp_path):
    path = tmp_path / "depth.pfm"
    for header, mode in ((b"P5 1 1 65535\n", "mode I;"), (b"Pf\n1 1\n-1.0\n", "mode F;")):
        path.write_bytes(header + b"\0\0\0\0")
        with refused(path, mode, "8-bit RGB"):
            read_image(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "PPM", "GIF"])
def test_damaged_bytes_give_a_picture_or_a_refusal(tmp_path, kind):
    path = tmp_path / "damaged"
    Image.fromarray(PICTURE).save(path, format=kind)
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for _ in range(50):
        damaged = whole.copy()
        damaged[RNG.integers(min(len(whole), 300), size=3)] = RNG.integers(256, size=3)
        path.write_bytes(damaged.tobytes())
        with contextlib.suppress(DataError):
            image = read_image(path)
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_what_is_no_regular_file_is_refused(tmp_path):
    with refused(tmp_path / "none.jpg", "No such file"):
        read_image(tmp_path / "none.jpg")
    with refused(tmp_path, "no regular file"):
        read_image(tmp_path)
    with pytest.raises(DataError, match="cannot be opened"):
        read_image("a\0b.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    path = tmp_path / "pipe.jpg"
    os.mkfifo(path)
    held = os.open(path, os.O_RDWR)  # so that a reader that does open it fails instead of waiting forever
    try:
        with refused(path, "no regular file"):
            read_image(path)
    finally:
        os.close(held)


# Beyond 89 megapixels Pillow warns, beyond 179 it raises by itself; the answer is the same.
@pytest.mark.parametrize("width, height", [(10_000, 5_001), (10_000, 10_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_megapixels_are_refused_before_decoding(tmp_path, width, height):
    path = png(tmp_path / "bomb.png", width, height, bits=8, colour=0)  # a header, and not one pixel
    for read in (read_image, lambda file: read_mask(file, classes=3)):
        with refused(path, "at most 50 megapixels"):
            read(path)


def test_fifty_megapixels_may_be_tried(tmp_path):
    path = png(tmp_path / "large.png", 10_000, 5_000, bits=8, colour=0)
    path.write_bytes(path.read_bytes() + bytes(7_000))  # with which it could hold as many pixels of one bit
    with refused(path, "cannot be decoded"):
        read_mask(path, classes=3)  # which may be of one class, and small
    path.write_bytes(path.read_bytes() + bytes(500_000))
    with refused(path, "cannot be decoded"):
        read_image(path)


# ---------------------------------------------------------------------------------------------------------- masks


def test_a_mask_comes_back_as_its_indices_in_the_colours_of_voc(tmp_path):
    label = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "m.png", label)
    assert np.array_equal(read_mask(tmp_path / "m.png", classes=255), label)
    with Image.open(tmp_path / "m.png") as picture:
        assert np.array_equal(np.array(picture.convert("RGB")).reshape(256, 3), palette(256))


def test_grey_masks_are_indices_too(tmp_path):
    label = np.array([[0, 1, 255], [2, 2, 0]], dtype=np.uint8)
    Image.fromarray(label).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", classes=3), label)


@pytest.mark.parametrize("bits, classes", [(1, 2), (2, 4), (4, 16)])
def test_palette_masks_of_few_bits_and_transparent_ones_keep_their_indices(tmp_path, bits, classes):
    label = RNG.integers(0, classes, (9, 11), dtype=np.uint8)
    picture = Image.fromarray(label)
    picture.putpalette(palette(classes).tobytes())
    picture.save(tmp_path / "m.png", bits=bits, transparency=0)
    assert (tmp_path / "m.png").read_bytes()[24] == bits
    assert np.array_equal(read_mask(tmp_path / "m.png", classes=classes), label)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_masks_of_few_bits_are_refused(tmp_path, bits):
    # Pillow would stretch their values to 0..255.
    path = png(tmp_path / "m.png", 8, 1, bits=bits, colour=0, rows=b"\0" + b"\x11" * bits)
    with refused(path, f"{bits} bits a sample", "8-bit grey"):
        read_mask(path, classes=16)


def test_colours_depth_and_transparency_are_no_indices(tmp_path):
    path = tmp_path / "m.png"
    pictures = [Image.new(mode, (2, 2)) for mode in ("RGB", "RGBA", "LA")]
    for picture in [*pictures, Image.fromarray(np.zeros((2, 2), dtype=np.uint16))]:
        picture.save(path)
        with refused(path, f"mode {picture.mode}", "palette indices or 8-bit grey"):
            read_mask(path, classes=21)


def test_ids_that_are_no_class_are_refused_with_their_values(tmp_path):
    label = np.zeros((4, 5), dtype=np.uint8)
    label[0, 0], label[1, :2], label[2, 2] = 37, 21, 255
    write_mask(tmp_path / "m.png", label)
    with refused(tmp_path / "m.png", "21, 37", "3 of 20 pixels", "0..20 or 255"):
        read_mask(tmp_path / "m.png", classes=21)
    label[label == 37] = 20
    label[label == 21] = 254
    write_mask(tmp_path / "m.png", label)
    with refused(tmp_path / "m.png", "holds 254 at"):
        read_mask(tmp_path / "m.png", classes=21)


def test_a_mask_in_a_lossy_or_another_format_is_refused(tmp_path):
    path = tmp_path / "m.png"
    for kind in ("JPEG", "GIF", "BMP"):
        Image.new("L", (8, 8)).save(path, format=kind)
        with refused(path, "not recognised; expected PNG;"):
            read_mask(path, classes=3)


def test_a_mask_on_its_side_is_refused(tmp_path):
    exif = Image.Exif()
    exif[274] = 3
    Image.new("L", (8, 8)).save(tmp_path / "m.png", exif=exif)
    with refused(tmp_path / "m.png", "EXIF orientation 3"):
        read_mask(tmp_path / "m.png", classes=3)


def test_an_all_void_mask_is_legal(tmp_path):
    write_mask(tmp_path / "m.png", np.full((3, 4), 255, dtype=np.uint8))
    assert (read_mask(tmp_path / "m.png", classes=3) == 255).all()


@pytest.mark.parametrize("classes", [0, 256])
def test_the_number_of_classes_leaves_room_for_void(tmp_path, classes):
    write_mask(tmp_path / "m.png", np.zeros((1, 1), dtype=np.uint8))
    with pytest.raises(UsageError, match=r"1\.\.255"):
        read_mask(tmp_path / "m.png", classes=classes)


# -------------------------------------------------------------------------------------------------------- writing


def test_only_what_can_be_read_back_is_written(tmp_path):
    for wrong in (np.zeros((2, 2)), np.zeros((2, 2, 3), dtype=np.uint8)):
        with pytest.raises(ShapeError, match="write_mask"):
            write_mask(tmp_path / "m.png", wrong)
    for wrong in (np.zeros((2, 2, 3)), np.zeros((2, 2, 4), dtype=np.uint8), np.zeros((2, 2), dtype=np.uint8)):
        with pytest.raises(ShapeError, match="write_image"):
            write_image(tmp_path / "a.png", wrong)
    with pytest.raises(UsageError, match=r"ends in \.png"):
        write_mask(tmp_path / "m.jpg", np.zeros((2, 2), dtype=np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        write_image(tmp_path / "none" / "a.png", PICTURE)
    with pytest.raises(UsageError, match="cannot be written"):
        write_image(tmp_path / "a.unknown", PICTURE)


def announced(width: int, height: int) -> bytes:
    """A PNG whose header announces a grey picture that its 20 bytes of data cannot hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pieces = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in pieces
    )


@pytest.mark.parametrize(("width", "height"), [(7, 5_963_785), (7, 4_456_457), (6000, 6000)])
def test_a_png_mask_holds_what_it_announces_or_is_refused(tmp_path, width, height) -> None:
    (tmp_path / "m.png").write_bytes(announced(width, height))
    for read in (lambda path: read_mask(path, classes=3), read_png_mask):
        with pytest.raises(DataError, match=r"header announces .* in a file of \d+ bytes; expected at most 2097152"):
            read(tmp_path / "m.png")


def test_a_large_mask_of_one_class_is_read(tmp_path) -> None:
    Image.new("L", (6000, 5000)).save(tmp_path / "m.png", optimize=True)
    assert (tmp_path / "m.png").stat().st_size < 40_000
    assert read_mask(tmp_path / "m.png", classes=2).shape == (5000, 6000)


@pytest.mark.parametrize(("kind", "at", "apart"), [("BMP", 18, 4), ("GIF", 6, 2)])
def test_a_mask_of_another_format_holds_what_it_announces_too(tmp_path, kind, at, apart) -> None:
    Image.new("L", (7, 9)).save(tmp_path / "m", format=kind)
    data = bytearray((tmp_path / "m").read_bytes())
    data[at : at + 2] = data[at + apart : at + apart + 2] = (7000).to_bytes(2, "little")  # width and height
    (tmp_path / "m").write_bytes(data)
    with (
        pytest.raises(DataError, match="header announces 7000x7000 pixels in a file of"),
        opened(tmp_path / "m", formats=(kind,), what="mask"),
    ):
        pass
