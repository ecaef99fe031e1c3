"""The embedded world keeps its promises: the same pictures for the same seed, and nothing that colour gives away.

Two classifiers that see little are fitted here, one on single colours and one on patches of 9x9 pixels. Both must
fail: a world they could segment would teach a fully convolutional net nothing.
"""

import numpy as np
import pytest

from minifcn.data.sample import VOID
from minifcn.data.shapes import CAMERA, CLASSES, FAR, GEOMETRY, Scene, Shapes
from minifcn.data.tools.make import make_tree
from minifcn.data.voc import VOCSegmentation
from minifcn.errors import UsageError
from minifcn.metrics import ConfusionMatrix


def stacked(split, count):
    samples = list(Shapes(split, count=count))
    return np.stack([s.image for s in samples]), np.stack([s.label for s in samples])


@pytest.fixture(scope="module")
def train():
    return stacked("train", 300)


@pytest.fixture(scope="module")
def val():
    return stacked("val", 60)


def same(a, b):
    names = ("image", "label", "depth", "geometry")
    return a.id == b.id and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


# The same again ------------------------------------------------------------------------------------------------------


def test_a_picture_depends_on_seed_split_and_index_alone():
    few, many = Shapes("train", count=4), Shapes("train", count=4000)
    assert many.ids[3] == "train-000003" and len(many) == len(many.ids) == 4000
    _ = many[1234], few[0]
    assert all(same(few[i], many[i]) for i in range(4))
    assert same(many[-1], many[3999])
    with pytest.raises(IndexError):
        few[4]


@pytest.mark.slow("draws hundreds of pictures")
def test_splits_and_seeds_share_no_picture():
    worlds = [Shapes(split, count=25, seed=seed) for split in ("train", "val", "test") for seed in (0, 1, 2**32)]
    pictures = {sample.image.tobytes() for world in worlds for sample in world}
    assert len(pictures) == 25 * len(worlds)


def test_another_size_is_the_same_scene_at_another_resolution():
    agreements = []
    for small, large in zip(Shapes("val", count=12), Shapes("val", count=12, size=192), strict=True):
        middles = large.label[1::3, 1::3]
        sure = (small.label != VOID) & (middles != VOID)
        agreements.append(np.mean(small.label[sure] == middles[sure]))
    assert np.mean(agreements) > 0.98


# What a sample holds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 131, (64, 500), (500, 64), 500])
def test_any_size_from_64_to_500(size):
    height, width = (size, size) if isinstance(size, int) else size
    for sample in Shapes("test", count=3, size=size):
        assert sample.image.shape == (height, width, 3) and sample.image.dtype == np.uint8
        assert sample.label.shape == (height, width) and sample.label.dtype == np.uint8
        assert sample.geometry.shape == (height, width) and sample.geometry.dtype == np.uint8
        assert sample.depth.shape == (height, width) and sample.depth.dtype == np.float32
        assert set(np.unique(sample.label)) <= {*range(len(CLASSES)), VOID}
        assert set(np.unique(sample.geometry)) <= set(range(len(GEOMETRY)))
        assert sample.depth.min() > 0 and sample.depth.max() <= FAR


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"split": "trainval"}, "trainval"),
        ({"size": 63}, "63"),
        ({"size": (64, 501)}, "501"),
        ({"size": 64.0}, "64.0"),
        ({"size": (64, 64, 3)}, "(64, 64, 3)"),
        ({"count": 0}, "count"),
        ({"count": True}, "count"),
        ({"seed": -1}, "-1"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong, named):
    with pytest.raises(UsageError, match="embedded world") as refusal:
        Shapes(**{"split": "train", "count": 2, **wrong})
    assert named in str(refusal.value) and "\n" not in str(refusal.value)


def test_every_class_is_there_often_enough_to_learn(train):
    shares = np.bincount(train[1].ravel(), minlength=256) / train[1].size
    assert shares[1 : len(CLASSES)].min() > 0.015
    assert 0.5 < shares[0] < 0.8
    assert 0.02 < shares[VOID] < 0.15


def test_void_lies_between_the_classes(train):
    left, right = train[1][:, :, :-1], train[1][:, :, 1:]
    bare = (left != right) & (left != VOID) & (right != VOID)
    bordered = (left != VOID) & (right == VOID)
    assert bare.sum() < 0.02 * bordered.sum()


# Space ---------------------------------------------------------------------------------------------------------------


def test_what_covers_is_nearer_than_what_it_covers(monkeypatch):
    cover, covered = Scene.cover, []

    def watched(scene, part, *args, **kwargs):
        before = scene.depth[part].copy()
        cover(scene, part, *args, **kwargs)
        covered.append(before - scene.depth[part])

    monkeypatch.setattr(Scene, "cover", watched)
    for _ in Shapes("train", count=40, size=96):
        pass
    assert min(np.min(difference, initial=0) for difference in covered) > -1e-3
    assert sum(np.count_nonzero(difference > 0.5) for difference in covered) > 1000


def test_depth_and_geometry_tell_one_story():
    ground, vertical, sky = (GEOMETRY.index(name) for name in ("horizontal", "vertical", "sky"))
    for sample in Shapes("val", count=20):
        assert np.all((sample.geometry == sky) == (sample.depth == FAR))
        flat = np.where(sample.geometry == ground, sample.depth, np.nan)
        rows = ~np.isnan(flat).all(axis=1)
        per_row = np.nanmean(flat[rows], axis=1)
        assert np.all(np.diff(per_row) < 0), "the ground comes nearer from row to row"
        np.testing.assert_allclose(np.diff(CAMERA / per_row), 1 / 64, rtol=1e-3)
        standing = np.isin(sample.label, [CLASSES.index(n) for n in ("ball", "crate", "tent", "tree", "house")])
        assert np.all(sample.geometry[standing] == vertical)
        assert np.all((sample.depth[rows] <= per_row[:, None] + 1e-3)[standing[rows]]), "things stand on their ground"
        assert np.all(sample.geometry[sample.label == CLASSES.index("pond")] == ground)


@pytest.mark.slow("draws hundreds of pictures")
def test_sizes_vary_fourfold_and_parts_are_thin(monkeypatch, train):
    place, widths = Scene.place, {}

    def watched(scene, name, thing, x, base, z):
        widths.setdefault(name, []).append(2 * thing.half_width / z)
        place(scene, name, thing, x, base, z)

    monkeypatch.setattr(Scene, "place", watched)
    for _ in Shapes("train", count=150):
        pass
    for name, spans in widths.items():
        assert max(spans) > 4 * min(spans), name
    is_tree = np.pad(train[1] == CLASSES.index("tree"), ((0, 0), (0, 0), (1, 1))).astype(np.int8)
    edges = np.diff(is_tree, axis=2)
    runs = np.argwhere(edges == -1)[:, 2] - np.argwhere(edges == 1)[:, 2]
    assert np.mean(runs < 8) > 0.3, "trunks"


# What gives a class away, and what does not --------------------------------------------------------------------------


def colours(images, bins=16):
    """Each pixel's colour as one number below bins**3."""
    r, g, b = np.moveaxis(images // (256 // bins), -1, 0).astype(np.int64)
    return (r * bins + g) * bins + b


def mean_iu(truth, prediction):
    table = ConfusionMatrix(len(CLASSES))
    table.update(truth, prediction)
    return table.mean_iu()


def test_ball_crate_and_balloon_share_their_colours(train):
    codes = colours(train[0], bins=4)

    def histogram(name):
        counts = np.bincount(codes[train[1] == CLASSES.index(name)], minlength=64)
        return counts / counts.sum()

    def distance(one, other):
        return np.abs(histogram(one) - histogram(other)).sum() / 2

    assert distance("ball", "crate") < 0.25 and distance("ball", "balloon") < 0.25
    assert distance("ball", "pond") > 0.5, "what the distance is between classes that look different"


def test_balls_lie_on_the_ground_and_balloons_hang_in_the_air():
    ball, balloon = CLASSES.index("ball"), CLASSES.index("balloon")
    hanging, lying = [], []
    for sample in Shapes("train", count=60):
        ground = np.argwhere(sample.geometry == GEOMETRY.index("horizontal"))[:, 0].min()
        rows = {c: np.argwhere(sample.label == c)[:, 0] for c in (ball, balloon)}
        hanging += [rows[balloon].max() < ground] if rows[balloon].size else []
        lying += [rows[ball].max() > ground] if rows[ball].size else []
    assert len(hanging) > 20 and np.all(hanging)
    assert len(lying) > 20 and np.mean(lying) > 0.9, "but for those of which something hides the foot"


def test_the_colour_of_a_pixel_does_not_give_its_class_away(train, val):
    (images, labels), (val_images, val_labels) = train, val
    sure = labels != VOID
    table = np.zeros((16**3, len(CLASSES)))
    np.add.at(table, (colours(images)[sure], labels[sure]), 1)
    plain = table.argmax(axis=1)
    # Weighed by class, the rare classes are guessed more often, which is kinder to the mean.
    weighed = (table / np.sqrt(table.sum(axis=0))).argmax(axis=1)
    scores = [mean_iu(val_labels, choice[colours(val_images)]) for choice in (plain, weighed)]
    assert 1.2 / len(CLASSES) < max(scores) < 0.35


def windows(images):
    """Every pixel's surroundings of 9x9 pixels: (N, H, W, 243) numbers around 0."""
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (9, 9), axis=(1, 2))


def features(patches):
    return patches.reshape(-1, 243).astype(np.float32) / 64 - 2


@pytest.mark.slow("fits a classifier to patches of 300 pictures")
def test_a_patch_of_9_by_9_does_not_give_the_class_away(train, val, rng):
    """A multinomial softmax on patches, fitted by plain gradient descent with momentum."""
    (images, labels), (val_images, val_labels) = train, (val[0][:25], val[1][:25])
    places = np.argwhere(labels != VOID)
    rarity = 1 / np.sqrt(np.bincount(labels[labels != VOID]))[labels[labels != VOID]]
    places = places[rng.choice(len(places), 20_000, p=rarity / rarity.sum())].T
    x, t = features(windows(images)[tuple(places)]), labels[tuple(places)]
    mean, axes = x.mean(axis=0), np.linalg.svd(x[:4000] - x.mean(axis=0), full_matrices=False)
    whiten = axes[2].T / (axes[1] / np.sqrt(4000) + 0.1)
    x = (x - mean) @ whiten
    w, b = np.zeros((243, len(CLASSES)), np.float32), np.zeros(len(CLASSES), np.float32)
    vw, vb = np.zeros_like(w), np.zeros_like(b)
    losses = []
    for epoch in range(6):
        for batch in np.array_split(rng.permutation(len(x)), 100):
            scores = x[batch] @ w + b
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            losses.append(-np.log(p[np.arange(len(batch)), t[batch]] + 1e-9).mean())
            p[np.arange(len(batch)), t[batch]] -= 1
            rate = 0.02 * (1 - epoch / 6)
            vw, vb = 0.9 * vw + rate * x[batch].T @ p / len(batch), 0.9 * vb + rate * p.mean(axis=0)
            w, b = w - vw, b - vb
    assert np.mean(losses[-50:]) < 0.92 * np.log(len(CLASSES)), "the fit has learned something"
    guess = ((features(windows(val_images)) - mean) @ whiten @ w + b).argmax(axis=1)
    assert 1.2 / len(CLASSES) < mean_iu(val_labels, guess.reshape(val_labels.shape)) < 0.50


# The world as files --------------------------------------------------------------------------------------------------


def test_the_tree_reads_back(tmp_path):
    pytest.importorskip("PIL")
    root = make_tree(tmp_path / "world", counts={"train": 3, "val": 2}, size=(70, 90), seed=5)
    for split, count in (("train", 3), ("val", 2)):
        world = Shapes(split, count=count, size=(70, 90), seed=5)
        tree = VOCSegmentation(root, split)
        assert tree.classes == world.classes and tree.ids == world.ids
        for written, sample in zip((tree[i] for i in range(count)), world, strict=True):
            assert np.array_equal(written.label, sample.label)
            assert np.abs(written.image.astype(int) - sample.image).mean() < 8


def test_the_tree_is_written_to_a_new_folder_only(tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "letter.txt").write_text("dear")
    for folder in (tmp_path, tmp_path / "letter.txt", tmp_path / "letter.txt" / "world"):
        with pytest.raises(UsageError, match="choose a"):
            make_tree(folder, counts={"val": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
