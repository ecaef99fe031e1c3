"""Appendix A: closed forms on masks whose loss can be counted by hand, an oracle pixel by pixel, and the real masks."""

import itertools

import numpy as np
import pytest
from test_voc import make_tree

from minifcn.data.files import write_image, write_mask
from minifcn.errors import UsageError
from minifcn.experiments.reproduction.bound import (
    FACTORS,
    GAP,
    PAPER,
    WAYS,
    bilinear,
    blocks,
    cell_votes,
    highest,
    majority,
    middles,
    sampled,
    score,
    shares,
    upper_bound,
    weights,
)
from minifcn.metrics import ConfusionMatrix

every_way = pytest.mark.parametrize("name", WAYS)
WITHOUT_VOID = [name for name, way in WAYS.items() if not way.void_votes]
VOTING = [name for name, way in WAYS.items() if way.void_votes]


def matrix_of(name, label, factor, classes=5):
    matrix = ConfusionMatrix(classes + 1, 256)
    score(np.asarray(label, np.uint8), {(name, factor): matrix})
    return matrix.matrix


def iu(name, label, factor):
    return ConfusionMatrix.of(matrix_of(name, label, factor), 256).mean_iu("present-in-gt")


def blobs(rng, height=45, width=58, void=True):
    """Some rectangles over each other, the first of them void's."""
    label = np.zeros((height, width), np.uint8)
    for value in ([255] if void else []) + [1, 2, 4, 255 if void else 3, 2]:
        top, left = rng.integers(0, height - 5), rng.integers(0, width - 5)
        label[top : top + rng.integers(3, 20), left : left + rng.integers(3, 25)] = value
    return label


# ---- closed forms ----------------------------------------------------------------------------------------------------


@every_way
def test_factor_1_loses_nothing(name, rng):
    label = blobs(rng)
    counts = matrix_of(name, label, 1)
    assert iu(name, label, 1) == 1 and counts.sum() == (label != 255).sum() == np.trace(counts)


@every_way
@pytest.mark.parametrize("factor", [2, 3, 8, 64])
def test_one_class_is_never_lost(name, factor):
    assert iu(name, np.full((37, 50), 3), factor) == 1


@every_way
def test_nothing_is_counted_where_there_is_only_void(name):
    assert not matrix_of(name, np.full((9, 9), 255), 4).any()


@every_way
def test_a_single_pixel_vanishes(name):
    """From factor 4 on it is outvoted, and in no cell's middle; all of its pixels go to the background."""
    label = np.zeros((16, 16))
    label[6, 7] = 1
    for factor in (4, 8, 16):
        assert matrix_of(name, label, factor)[:2, :2].tolist() == [[255, 0], [1, 0]]
        assert iu(name, label, factor) == pytest.approx((255 / 256 + 0) / 2)


def test_a_single_pixel_in_a_cells_middle_takes_the_whole_cell():
    label = np.zeros((16, 16))
    label[5, 5] = 1  # of the cell from (4, 4) to (7, 7), as `middles` has it
    assert matrix_of("sampled, blocks", label, 4)[:2, :2].tolist() == [[240, 15], [0, 1]]
    assert matrix_of("majority, blocks", label, 4)[:2, :2].tolist() == [[255, 0], [1, 0]]


@pytest.mark.parametrize("name", ["sampled, blocks", "majority, blocks"])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_squares_as_large_as_the_cells_are_kept(name, factor):
    tiles = np.arange(12).reshape(3, 4) % 5
    assert iu(name, tiles.repeat(factor, axis=0).repeat(factor, axis=1), factor) == 1


def test_a_border_off_the_cells_costs_what_lies_between():
    """Class 1 from column 11 on: cells of 8 put the border at 8 (the cell 8 .. 15 has more of it), 3 columns off."""
    label = np.zeros((16, 32))
    label[:, 11:] = 1
    assert matrix_of("majority, blocks", label, 8)[:2, :2].tolist() == [[8 * 16, 3 * 16], [0, 21 * 16]]
    assert iu("majority, blocks", label, 8) == pytest.approx((8 / 11 + 21 / 24) / 2)


def test_shares_put_a_straight_border_nearer_to_where_it_is():
    """Bilinear shares find it to a pixel where labels of cells are three off."""
    label = np.zeros((16, 64))
    label[:, 27:] = 1
    assert iu("shares, bilinear", label, 8) > 0.95 > iu("majority, blocks", label, 8)


def lonely_pixel() -> np.ndarray:
    """A cell of void but for one pixel of class 1, beside a cell of class 2."""
    label = np.full((8, 16), 255)
    label[:, 8:] = 2
    label[7, 0] = 1
    return label


@pytest.mark.parametrize("name", WITHOUT_VOID)
def test_void_has_no_vote_and_is_not_scored(name):
    """A cell of void with a single labelled pixel is that pixel's; the answers on void count nowhere."""
    counts = matrix_of(name, lonely_pixel(), 8)
    assert counts[1, 1] == 1 and counts[2, 2] == 64 and counts.sum() == 65


@pytest.mark.parametrize("name", VOTING)
def test_where_void_votes_to_be_answered_void_is_to_be_missed(name):
    counts = matrix_of(name, lonely_pixel(), 8)
    assert counts[1].tolist() == [0, 0, 0, 0, 0, 1] and counts.sum() == 65 and not counts[-1].any()
    assert iu(name, lonely_pixel(), 8) <= 0.5


@pytest.mark.parametrize("name", VOTING)
def test_hiding_edges_under_void_only_helps_where_void_has_no_vote(name):
    label = np.zeros((64, 64))
    label[18:46, 18:46] = 255
    label[21:43, 21:43] = 1
    assert iu(name.removesuffix(", void votes"), label, 4) == 1 > iu(name, label, 4)


def test_classes_that_do_not_occur_are_not_averaged(tmp_path):
    table = upper_bound(make_tree(tmp_path / "VOC2012"), factors=(2,))  # one class of 21, and a pixel of void
    assert table.classes == 1 and all(line[1] == 100 for line in table.rows[1:] if line[0] in WITHOUT_VOID)


# ---- the pieces, against loops ---------------------------------------------------------------------------------------


def test_votes_are_counted_pixel_by_pixel(rng):
    label = blobs(rng, void=False)
    masks = label == np.arange(5)[:, None, None]
    for factor in (1, 3, 8, 100):
        votes = cell_votes(masks, factor)
        slow = np.zeros_like(votes)
        for y, x in np.ndindex(label.shape):
            slow[label[y, x], y // factor, x // factor] += 1
        assert np.array_equal(votes, slow)


def test_sampled_majority_and_shares_cell_by_cell(rng):
    label = blobs(rng)
    masks, factor = label == np.arange(5)[:, None, None], 7
    votes = cell_votes(masks, factor)
    picked, most, parts = (way(masks, votes, factor) for way in (sampled, majority, shares))
    assert picked.shape == most.shape == parts.shape == (5, 7, 9)
    empty = 0
    for i, j in np.ndindex(votes.shape[1:]):
        cell = label[factor * i : factor * (i + 1), factor * j : factor * (j + 1)]
        counts = [int((cell == value).sum()) for value in range(5)]
        empty += not any(counts)
        assert most[:, i, j].sum() == parts[:, i, j].sum().round(6) == picked[:, i, j].sum() == bool(sum(counts))
        if sum(counts):
            assert most[counts.index(max(counts)), i, j] == 1
            np.testing.assert_allclose(parts[:, i, j], np.array(counts) / sum(counts), rtol=1e-6)
            middle = cell[(cell.shape[0] - 1) // 2, (cell.shape[1] - 1) // 2]
            assert picked[counts.index(max(counts)) if middle == 255 else middle, i, j] == 1


def test_the_middle_of_a_cell_by_hand():
    assert middles(10, 4).tolist() == [1, 5, 8]  # 0..3, 4..7, 8..9
    assert middles(5, 3).tolist() == [1, 3] and middles(2, 128).tolist() == [0]


def test_blocks_and_bilinear_pixel_by_pixel(rng):
    scores, factor, size = rng.random((3, 3, 4)).astype(np.float32), 5, (13, 18)
    coarse, fine = blocks(scores, size, factor), bilinear(scores, size, factor)

    def line(place, cells):  # the two cells beside a pixel, and how near each is
        at = min(max((place - (factor - 1) / 2) / factor, 0), cells - 1)
        low = min(int(at), cells - 2)
        return (low, 1 - (at - low)), (low + 1, at - low)

    for y, x in np.ndindex(size):
        assert coarse[y, x] == scores[:, y // factor, x // factor].argmax()
        value = sum(
            p * q * scores[:, i, j].astype(float) for (i, p), (j, q) in itertools.product(line(y, 3), line(x, 4))
        )
        assert fine[y, x] == value.argmax()
    assert len(np.unique(fine)) == 3


def test_weights_are_shares_of_at_most_two_cells():
    table = weights(50, 7, 8)
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-6)
    assert ((table > 0).sum(axis=1) <= 2).all() and (table[:4, 0] == 1).all() and (table[-2:, -1] < 1).all()
    assert np.array_equal(weights(6, 6, 1), np.eye(6))


def test_highest_is_argmax_with_the_first_of_equals(rng):
    scores = rng.integers(0, 3, (4, 30, 30))
    assert np.array_equal(highest(scores), scores.argmax(axis=0))


# ---- the table -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path, rng):
    folder = make_tree(tmp_path / "VOC2012", ids=("a", "b", "c"))
    for name in ("a", "b", "c"):
        write_image(folder / "JPEGImages" / f"{name}.jpg", np.zeros((45, 58, 3), np.uint8))
        write_mask(folder / "SegmentationClass" / f"{name}.png", blobs(rng))
    return folder


def test_the_table_has_the_paper_first_and_how_far_each_way_is_from_it(tree):
    table = upper_bound(tree)
    assert (
        table.header == ("factor", "128", "64", "32", "16", "8", "4", GAP) and table.images == 3 and not table.skipped
    )
    assert table.rows[0] == ("the paper", *PAPER, "-")
    assert [line[0] for line in table.rows[1:]] == list(WAYS)
    for line in table.rows[1:]:
        *values, gap = line[1:]
        assert len(values) == len(FACTORS) and all(0 <= value <= 100 for value in values)
        assert gap == pytest.approx(np.mean([abs(a - b) for a, b in zip(values, PAPER, strict=True)]), abs=0.051)
        assert values[-1] > values[0]
    assert "3 images" in str(table) and len(str(table).splitlines()) == len(WAYS) + 3


def test_one_matrix_for_all_images_and_not_a_mean_of_means(tree):
    from minifcn.data.voc import VOCSegmentation

    dataset, name = VOCSegmentation(tree, None), "majority, blocks"
    added = sum(matrix_of(name, dataset[i].label, 8, classes=21) for i in range(3))
    shown = next(line for line in upper_bound(tree, factors=(8,)).rows if line[0] == name)
    assert shown[1] == round(100 * ConfusionMatrix.of(added, 256).mean_iu("present-in-gt"), 1)


def test_other_factors_and_a_split(tree):
    (tree / "ImageSets/Segmentation/one.txt").write_text("b\n")
    table = upper_bound(tree, split="one", factors=(4, 5))
    assert table.images == 1 and table.header == ("factor", "4", "5", GAP)
    assert table.rows[0] == ("the paper", 98.5, "-", "-")
    assert all(line[-1] == pytest.approx(abs(line[1] - 98.5), abs=0.051) for line in table.rows[1:])
    assert all(line[-1] == "-" for line in upper_bound(tree, factors=(5,)).rows)


@pytest.mark.parametrize("factors", [(0,), (4, -1), (2.5,), (True,)])
def test_a_factor_is_a_whole_number(factors, tree):
    with pytest.raises(UsageError, match=r"factors are \(.*\); expected whole numbers of at least 1"):
        upper_bound(tree, factors=factors)


def test_without_real_masks_it_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv("MINIFCN_DATA", raising=False)
    table = upper_bound()
    assert table.rows == (("the paper", *PAPER, "-"),) and table.images == 0
    assert table.skipped == "Skipped: MINIFCN_DATA is not set, and the bound is one of real masks."
    assert str(table).endswith(table.skipped)
    monkeypatch.setenv("MINIFCN_DATA", str(tmp_path))
    assert "MINIFCN_DATA holds no voc2012_mini" in upper_bound().skipped


def test_on_real_masks_it_is_near_the_papers(data_root):
    """A finer grid keeps more, a mean of cells more than a sample; void that votes costs. 36 masks only, for time."""
    if not (data_root / "voc2012_mini").is_dir():
        pytest.skip("voc2012_mini is not in the folder that MINIFCN_DATA names")
    table = upper_bound(data_root / "voc2012_mini", split="val", factors=(64, 8))
    lines = {line[0]: line[1:] for line in table.rows[1:]}
    assert table.images == 36
    for values in lines.values():
        assert values[0] < values[1] and values[-1] < 8
    assert lines["shares, bilinear"][0] > lines["majority, bilinear"][0] > lines["majority, blocks"][0]
    for name in VOTING:
        assert all(a > b for a, b in zip(lines[name.removesuffix(", void votes")][:2], lines[name][:2], strict=True))
