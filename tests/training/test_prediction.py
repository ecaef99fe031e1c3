"""Prediction of any image: tiles, averages, scores, confidence, frames, and the two pages, in a browser."""

import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minifcn import ops
from minifcn.cli.verbs import main
from minifcn.data.batches import Preprocessing
from minifcn.data.files import read_frames, read_image
from minifcn.data.shapes import Shapes
from minifcn.errors import DataError
from minifcn.geometry import Grid, Layer, out_size
from minifcn.kernels.threads import set_threads
from minifcn.models.context import context_of, with_context
from minifcn.models.fcn import fcn
from minifcn.models.tiling import Tiling
from minifcn.models.trunk import enlarged
from minifcn.models.zoo import NETS, TRUNKS
from minifcn.nn import evaluating
from minifcn.training.prediction import Predictor, between, entropy, shares, write_scores
from minifcn.training.trained import open_trained

PREPROCESSING = Preprocessing("RGB", 1 / 255, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    set_threads(None)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on the embedded world, which tests only read."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["--width", "2", "--lr", "0.02", "--batch", "2", "--epochs", "1", "--samples", "0", "--threads", "1"]
    assert main(["train", "--recipe", "toy", *options, "--max-train", "8", "--max-val", "2", "--run", str(folder)]) == 0
    return folder


def net_at_random(rng):
    net = NETS["fcn-squeezenet"](width=1, classes=4, init="zero")
    for parameter in net.parameters():
        parameter.data = (rng.standard_normal(parameter.shape) * 0.3 + 0.05).astype(np.float32)
    return net


def net_with_context(rng):
    """A net at random whose trunk sees the image twice as large, and ends with the mean over the whole of it."""
    net = fcn(
        lambda **options: with_context(enlarged(TRUNKS["squeezenet1_1"](**options), 2)),
        8,
        classes=4,
        width=1,
        dropout=0,
        init="zero",
    )
    for parameter in net.parameters():
        parameter.data = (rng.standard_normal(parameter.shape) * 0.3 + 0.05).astype(np.float32)
    return net


def picture(rng, height, width):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---- the predictor ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"flip": True}, {"scales": (0.75, 1.0, 1.25)}, {"flip": True, "scales": (0.6,)}], ids=str
)
def test_a_tiled_prediction_is_that_of_the_whole_image(options, rng):
    net, image = net_at_random(rng), picture(rng, 30, 270)
    whole = Predictor(net, PREPROCESSING, **options)(image, keep=["scores", "entropy"])
    tiled = Predictor(net, PREPROCESSING, Tiling.of(net, 240), **options)(image, keep=["scores", "entropy"])
    largest = abs(whole.scores).max()
    assert np.allclose(whole.scores, tiled.scores, rtol=1e-3, atol=2e-3 * largest) and largest > 0
    assert np.allclose(whole.entropy, tiled.entropy, atol=2e-3)
    assert (whole.label == tiled.label).mean() > 0.999


@pytest.mark.parametrize("options", [{}, {"flip": True, "scales": (0.9, 1.0)}], ids=str)
def test_a_net_that_resamples_its_cells_is_tiled_at_every_scale(options, rng):
    net, image = NETS["fcn_resnet50"](width=1, classes=4).eval(), picture(rng, 21, 571)
    whole = Predictor(net, PREPROCESSING, **options)(image, keep=["scores"])
    tiled = Predictor(net, PREPROCESSING, Tiling.of(net, 504), **options)(image, keep=["scores"])
    largest = abs(whole.scores).max()
    assert np.allclose(whole.scores, tiled.scores, rtol=1e-3, atol=1e-3 * largest) and largest > 0
    assert (whole.label == tiled.label).mean() > 0.999


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"flip": True, "scales": (0.75, 1.1)}, marks=pytest.mark.slow("many tiles of four copies"))],
    ids=str,
)
def test_the_mean_over_the_whole_image_is_added_up_from_tiles(options, rng, monkeypatch):
    """Half the picture is dark: no tile knows the mean that all of them need."""
    net, image = net_with_context(rng), picture(rng, 26, 470)
    image[:, 235:] //= 8
    least = Tiling.of(net, 1 << 20)
    tiling = Tiling.of(net, 2 * least.margin + 2 * least.stride)
    assert tiling.tile < 0.7 * image.shape[1]

    def scores(tiling):
        return Predictor(net, PREPROCESSING, tiling, **options)(image, keep=["scores"]).scores.astype(np.float64)

    whole = scores(Tiling())
    assert abs(scores(tiling) - whole).max() < 2e-3 * abs(whole).max()  # float16
    monkeypatch.setattr(Predictor, "_context", lambda self, copy: None)
    assert abs(scores(tiling) - whole).max() > 2e-2 * abs(whole).max()


def test_scores_are_written_strip_by_strip(rng, tmp_path):
    """The file is that of NumPy, and the memory that of a strip."""
    net, image, path = net_at_random(rng), picture(rng, 30, 270), tmp_path / "scores.npz"
    predictor = Predictor(net, PREPROCESSING, Tiling.of(net, 240))
    whole = predictor(image, keep=["scores"])
    counts = []

    def write(strips):
        write_scores(path, (counts.append(one.shape) or one for one in strips), list("abcd"), width=270)

    found = predictor(image, keep=["entropy"], scores_to=write)
    assert len(counts) > 3 and found.scores is None and found.entropy is not None
    assert np.array_equal(found.label, whole.label)
    with np.load(path, allow_pickle=False) as file:
        assert np.array_equal(file["scores"], whole.scores) and file["scores"].dtype == np.float16
        assert file["classes"].tolist() == list("abcd")
    tracemalloc.start()
    try:
        write_scores(path, (np.full((8, 500, 64), n, np.float16) for n in range(100)), ["a"], width=6400)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 500 * 6400 * 2 / 20  # of 51 MB
    with np.load(path) as file:
        assert file["scores"].shape == (8, 500, 6400) and (file["scores"] == np.arange(6400) // 64).all()


def test_every_cell_of_the_map_is_counted_once(rng):
    net = net_with_context(rng)
    least = Tiling.of(net, 1 << 20)
    tiling, layers = Tiling.of(net, 2 * least.margin + 2 * least.stride), context_of(net)[0].layers()
    for padding in (0, 100):
        path = [Layer(1, padding=padding), *layers]
        for size in range(tiling.tile + 1, tiling.tile + 3 * tiling.stride):
            cells = []
            for part in tiling.parts(size):
                start, stop = tiling.crop(size, part)
                there = np.arange(out_size(path, stop - start)) + int(start / Grid.of(path).stride)
                cells += there[tiling.cells(path, size, part)].tolist()
            assert cells == list(range(out_size(path, size)))


def test_flip_and_scales_average_the_scores(rng):
    net, image = net_at_random(rng), picture(rng, 40, 52)

    def scores(picture):
        with evaluating(net):
            return net(PREPROCESSING(picture)[None]).data

    resized = np.array(Image.fromarray(image).resize((26, 20), Image.Resampling.BILINEAR))
    by_hand = []
    for one in (image, resized):
        for turn in (1, -1):
            found = ops.bilinear_resize(np.ascontiguousarray(scores(one[:, ::turn])[..., ::turn]), size=(40, 52)).data
            by_hand.append(found[0])
    found = Predictor(net, PREPROCESSING, flip=True, scales=(1.0, 0.5))(image, keep=["scores"])
    exact = np.mean(by_hand, axis=0)
    assert np.allclose(found.scores, exact, rtol=2e-3, atol=1e-3 * abs(exact).max())
    assert (found.label == exact.argmax(axis=0)).mean() > 0.999
    alone = Predictor(net, PREPROCESSING)(image)
    assert np.array_equal(alone.label, scores(image)[0].argmax(axis=0)) and alone.scores is None is alone.entropy


@pytest.mark.parametrize(("size", "out"), [(5, 9), (9, 5), (1, 4), (7, 1), (6, 6)])
def test_parts_of_an_interpolation_are_those_of_the_whole(size, out, rng):
    x = rng.standard_normal((1, 1, size, 1)).astype(np.float32)
    whole = ops.bilinear_resize(x, size=(out, 1)).data[0, 0, :, 0]
    for start in range(out):
        (first, last), matrix = between(size, out, (start, out))
        part = x[0, 0, first:last, 0] if matrix is None else matrix @ x[0, 0, first:last, 0]
        assert np.allclose(part, whole[start:], atol=1e-6)


def test_entropy_is_0_where_the_net_is_sure_and_1_where_it_knows_nothing():
    scores = np.zeros((4, 1, 3))
    scores[2, 0, 1], scores[:2, 0, 2] = 200, 200
    assert np.allclose(entropy(scores), [[1, 0, 0.5]])
    assert not entropy(np.ones((1, 2, 2))).any()


def test_shares_are_counted_in_bands(rng):
    label = rng.integers(0, 3, (1030, 7)).astype(np.uint8)
    found = shares(label, ("a", "b", "c"))
    assert found == {name: (label == "abc".index(name)).mean() for name in found} and sum(found.values()) == 1


# ---- frames -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.tif"])
def test_every_frame_is_read_and_predicted(name, run, rng, capsys):
    frames = [Image.fromarray(np.full((24, 30, 3), value, np.uint8)) for value in (0, 120, 255)]
    frames[0].save(name, save_all=True, append_images=frames[1:])
    assert [int(frame.mean()) for frame in read_frames(name)] == [0, 120, 255]
    assert main(["predict", str(run), name, "--out", "out"]) == 0
    assert sorted(path.name for path in Path("out").glob("*-mask.png")) == [f"a-{i:04d}-mask.png" for i in range(3)]
    assert f"{name} frame 2: 30x24" in capsys.readouterr().out


def test_one_frame_is_read_as_read_image_does(rng):
    image = picture(rng, 5, 8)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(image).save("turned.png", exif=exif)
    Image.fromarray(image).convert("P").save("palette.gif")
    for name in ("turned.png", "palette.gif"):
        (only,) = read_frames(name)
        assert np.array_equal(only, read_image(name))
    (only,) = read_frames("turned.png")
    assert only.shape == (8, 5, 3)


def test_what_is_too_large_for_one_piece_names_the_option(run, capsys, monkeypatch):
    monkeypatch.setattr("minifcn.cli.predict.MAX_PIXELS", 2000)
    Image.new("RGB", (60, 50)).save("big.png")
    assert main(["predict", str(run), "big.png", "--out", "out"]) == 2
    assert "scale it down first, or predict it with --tile 1024" in capsys.readouterr().err
    assert main(["predict", str(run), "big.png", "--out", "out", "--tile", "1024"]) == 0
    with pytest.raises(DataError, match="expected at most 0 megapixels"):
        next(read_frames("big.png", most=2999))


# ---- the command --------------------------------------------------------------------------------------------------


def test_scores_and_confidence_are_files(run):
    image = Shapes("val", count=1)[0].image
    Image.fromarray(image).save("x.png")
    argv = ["predict", str(run), "x.png", "--out", "out", "--scores", "--confidence", "--flip", "--scales", "0.75,1"]
    assert main(argv) == 0
    with np.load("out/x-scores.npz", allow_pickle=False) as found:
        scores, classes = found["scores"], found["classes"]
    trained = open_trained(run)
    assert scores.dtype == np.float16 and scores.shape == (len(trained.classes), *image.shape[:2])
    assert tuple(classes) == trained.classes
    with Image.open("out/x-mask.png") as mask, Image.open("out/x-confidence.png") as sure:
        assert (np.array(mask) == scores.argmax(axis=0)).mean() > 0.99
        exact = 255 * entropy(scores.astype(np.float64))
        assert abs(np.array(sure) - exact).max() < 2


def test_the_line_about_tiles_and_their_scores(run, rng, capsys):
    Image.fromarray(picture(rng, 450, 700)).save("x.png")
    assert main(["predict", str(run), "x.png", "--out", "whole"]) == 0
    capsys.readouterr()
    assert main(["predict", str(run), "x.png", "--out", "tiles", "--tile", "512"]) == 0
    assert "tiles of 512 pixels, 64 of them kept: a score looks 214 pixels to each side" in capsys.readouterr().out
    labels = [np.array(Image.open(f"{folder}/x-mask.png")) for folder in ("whole", "tiles")]
    assert (labels[0] == labels[1]).mean() > 0.9999


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("--scales 1,x", "option scales is '1,x'; expected numbers from 0.25 to 4"),
        ("--scales 9", "option scales is '9'; expected numbers from 0.25 to 4"),
        ("--scales nan", "option scales is 'nan'; expected numbers from 0.25 to 4"),
        ("--tile -1", "option tile is -1; expected a number of at least 0"),
        ("--tile 100", "tile is 100; expected at least 480: this net's scores look 214 pixels to each side"),
        ("--explain 3", "option explain is '3'; expected the column and the row of a pixel"),
        ("--explain 1,2,3", "option explain is '1,2,3'; expected the column and the row of a pixel"),
        ("--explain 30,2", "option explain is 30,2; expected a pixel of x.png, which has 30x20"),
        ("--explain 3,2 x.png", "option explain: found 2 images; expected one"),
        ("--beside runs/other", "option beside goes with a pixel to explain"),
        ("--explain 3,2 --beside nowhere", "nowhere: found no such run folder or checkpoint"),
    ],
)
def test_what_is_refused(argv, line, run, rng, capsys):
    Image.fromarray(picture(rng, 20, 30)).save("x.png")
    assert main(["predict", str(run), "x.png", *argv.split(), "--out", "out"]) == 2
    assert capsys.readouterr().err.startswith(f"minifcn: {line}")
    assert not Path("out").exists()


@pytest.mark.slow("predicts 16 megapixels in another process", first=True)
def test_a_large_image_is_predicted_in_bounded_memory(run):
    """Whole, its input and its first layer would take more: 16 million pixels times 3 and 2 channels of 4 bytes."""
    small = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(small.repeat(80, axis=0).repeat(80, axis=1)).save("large.png", compress_level=1)
    program = (
        "import sys; from minifcn.cli.verbs import main; code = main(sys.argv[1:]); "
        "print(open('/proc/self/status').read()); sys.exit(code)"  # the peak of rusage counts the parent's, too
    )
    argv = ["predict", str(run), "large.png", "--out", "out", "--tile", "1024", "--threads", "1"]
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True)
    with Image.open("out/large-mask.png") as mask:
        assert mask.size == (4000, 4000)
    assert int(re.search(r"VmHWM:\s*(\d+) kB", done.stdout)[1]) < 360_000


# ---- the pages ----------------------------------------------------------------------------------------------------


def test_the_index_page_shows_classes_fades_them_and_names_them(run, chromium, tmp_path):
    world = Shapes("val", count=2, size=96)
    for i in range(2):
        Image.fromarray(world[i].image).save(f"<{i}>'.png")
    assert main(["predict", str(run), "<0>'.png", "<1>'.png", "--out", "out"]) == 0
    page = chromium.page()
    page.open((tmp_path / "out" / "index.html").as_uri())
    assert page.run("document.querySelectorAll('.look').length") == 2
    page.run(
        "(slider => {slider.value = 20; slider.dispatchEvent(new Event('input'))})(document.querySelector('input'))"
    )
    assert page.run("document.querySelector('.mask').style.opacity") == "0.2"
    label = np.array(Image.open("out/<0>'-mask.png"))
    classes = open_trained(run).classes
    move = """((x, y, kind) => {
        const stack = document.querySelector('.stack'), box = stack.getBoundingClientRect();
        const at = {clientX: box.left + (x + 0.5) / 96 * box.width, clientY: box.top + (y + 0.5) / 96 * box.height};
        stack.dispatchEvent(new PointerEvent(kind, at));
        return document.querySelector('output').textContent;
    })"""
    for x, y in ((0, 0), (40, 70), (95, 95), (60, 30)):
        assert page.run(f"{move}({x}, {y}, 'pointermove')") == classes[label[y, x]]
    assert page.run(f"{move}(40, 70, 'click')").endswith("""'<0>'"'"'.png' --explain 40,70""")
    assert page.complaints == [] and len(set(page.requests)) == 1
    page.close()


def test_the_page_that_explains_says_what_the_command_says(run, chromium, tmp_path, capsys):
    image = Shapes("val", count=1, size=96)[0].image
    Image.fromarray(image).save("x.png")
    assert main(["predict", str(run), "x.png", "--explain", "50,60", "--out", "out"]) == 0
    printed = capsys.readouterr().out
    trained = open_trained(run)
    with evaluating(trained.net):
        scores = trained.net(trained.preprocessing(image)[None]).data[0, :, 60, 50]
    winner = trained.classes[int(scores.argmax())]
    assert f"pixel 50,60 is {winner}, score {scores.max():.3f}, before " in printed
    page = chromium.page()
    page.open((tmp_path / "out" / "x-explain-50-60.html").as_uri())
    rows = page.run(
        "[...document.querySelectorAll('.parts tbody tr')].map(r => [...r.children].map(c => c.textContent))"
    )
    assert [row[0] for row in rows] == ["fc7", "pool4", "pool3", "sum: the score"]
    for column in (1, 2, 3):
        assert sum(float(row[column]) for row in rows[:-1]) == pytest.approx(float(rows[-1][column]), abs=2e-4)
    assert float(rows[-1][1]) == pytest.approx(scores.max(), abs=1e-4)
    boxes, layers = (
        page.run(f"document.querySelectorAll('{what}').length") for what in ("rect.field", "tr[data-layer]")
    )
    assert boxes == layers > 15
    chosen = """(name => {
        document.querySelector(`tr[data-layer="${name}"]`).dispatchEvent(new PointerEvent('pointerenter'));
        return document.querySelector('rect.chosen').dataset.layer;
    })"""
    assert page.run(f"{chosen}('trunk.head.fc6')") == "trunk.head.fc6"
    assert page.run("document.querySelector('.gradient').naturalWidth") == 96
    assert page.complaints == [] and len(set(page.requests)) == 1
    page.close()


def test_two_runs_explain_a_pixel_side_by_side(run, chromium, tmp_path, capsys):
    image = Shapes("val", count=1, size=96)[0].image
    Image.fromarray(image).save("x.png")
    options = "--width 1 --stages 16 --max-train 4 --max-val 1 --batch 2 --epochs 1 --samples 0 --threads 1"
    assert main(["train", *options.split(), "--run", "the <other>"]) == 0
    capsys.readouterr()
    argv = ["predict", str(run), "x.png", "--explain", "50,60", "--out", "out"]
    assert main([*argv, "--beside", str(run)]) == 2
    assert "the run itself; expected another" in capsys.readouterr().err
    assert main([*argv, "--beside", f"{run}/../{run.name}/"]) == 2
    assert "the run itself; expected another" in capsys.readouterr().err
    assert main([*argv, "--beside", "the <other>"]) == 0
    printed = capsys.readouterr().out
    page = chromium.page()
    page.open((tmp_path / "out" / "x-explain-50-60-beside-the <other>.html").as_uri())
    first = page.run("document.querySelector('section p').textContent")
    assert first in printed.splitlines()
    winners = []
    for name, maps in ((str(run), ["fc7", "pool4", "pool3"]), ("the <other>", ["fc7", "pool4"])):
        column = f"[...document.querySelectorAll('[data-run]')].filter(one => one.dataset.run === {name!r})"
        trained = open_trained(name)
        with evaluating(trained.net):
            scores = trained.net(trained.preprocessing(image)[None]).data[0, :, 60, 50]
        winners.append(trained.classes[int(scores.argmax())])
        rows = page.run(
            f"{column}.flatMap(one => [...one.querySelectorAll('.parts tbody tr')])"
            ".map(row => [...row.children].map(cell => cell.textContent))"
        )
        assert [row[0] for row in rows] == [*maps, "sum: the score"]
        assert float(rows[-1][1]) == pytest.approx(scores.max(), abs=1e-4)
        assert f"pixel 50,60 is {winners[-1]}, score {scores.max():.3f}" in page.run(f"{column}[0].textContent")
    assert ("the same answer" if winners[0] == winners[1] else "different answers") in first
    left, right = page.run(
        "[...document.querySelectorAll('[data-run] .parts')].map(one => one.getBoundingClientRect())"
        ".map(box => [box.x, box.y])"
    )
    assert left[0] < right[0] and abs(left[1] - right[1]) < 100  # the names above may take another line
    assert page.complaints == [] and len(set(page.requests)) == 1
    page.close()
