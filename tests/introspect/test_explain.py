"""What each map adds sums to the score, exactly; the gradient is that of differences; the fields are the net's."""

import numpy as np
import pytest
from some_slow import slow_but

from minifcn.errors import UsageError
from minifcn.introspect.explain import contributions, explain, total
from minifcn.models.fcn import FCN8s, fcn
from minifcn.models.upsampling import nonlinear
from minifcn.models.vgg import VGG
from minifcn.models.zoo import NETS
from minifcn.nn import Module, evaluating
from minifcn.tensor import Tensor

SMALL = {"classes": 5, "width": 1, "layers": 11}


def at_random(net: Module, rng: np.random.Generator) -> Module:
    for parameter in net.parameters():
        parameter.data = rng.standard_normal(parameter.shape) * 0.3 + 0.05
    return net


NETWORKS = {
    "same padding": lambda: FCN8s(**SMALL),
    **{
        f"{fusion}, {upsampling}": lambda fusion=fusion, upsampling=upsampling: fcn(
            VGG, 8, fusion=fusion, upsampling=upsampling, skip_scale={"pool4": 0.5}, **SMALL
        )
        for fusion in ("sum", "max", "concat")
        for upsampling in ("fixed", "all learned")
    },
    **{
        name: lambda name=name: NETS[name](width=1)
        for name in ("fcn-squeezenet", "siftflow-fcn8s", "parsenet", "fcn-googlenet")
    },
}


QUICK = ("same padding", "max, all learned", "concat, fixed")


@pytest.mark.parametrize("name", slow_but(QUICK, NETWORKS, "explains three places of a whole net"))
def test_what_each_map_adds_sums_to_the_score(name: str, rng: np.random.Generator) -> None:
    net, image = at_random(NETWORKS[name](), rng), rng.standard_normal((3, 50, 70))
    with evaluating(net):
        scores = net(image[None])
        scores = next(iter(scores.values())) if isinstance(scores, dict) else scores
        features = net.trunk(Tensor(image[None]), keep=net.skips)
        parts = contributions(net, features, image[None], net.heads[0])
    largest = abs(scores.data).max()
    assert list(parts) == [net.trunk.last, *net.skips]
    assert abs(total(parts) - scores.data).max() <= 1e-13 * largest
    for at in ((0, 0), (69, 49), (33, 20)):
        found = explain(net, image, at)
        assert np.allclose(found.scores, scores.data[0, :, at[1], at[0]], rtol=1e-12, atol=1e-12 * largest)
        assert abs(sum(found.parts.values()) - found.scores).max() <= 1e-13 * largest
        assert found.order[0] == found.scores.argmax() and sorted(found.order) == list(range(len(found.scores)))
        assert not any(parameter.frozen for parameter in net.parameters())


def test_a_part_is_what_the_map_adds_and_nothing_else(rng: np.random.Generator) -> None:
    """Without a skip's score layer, its part is gone and the others stay."""
    net, image = at_random(FCN8s(**SMALL), rng), rng.standard_normal((3, 40, 40))
    before = explain(net, image, (11, 30))
    net.score_pool4.w.data, net.score_pool4.b.data = net.score_pool4.w.data * 0, net.score_pool4.b.data * 0
    after = explain(net, image, (11, 30))
    assert abs(before.parts["pool4"]).min() > 0 and not after.parts["pool4"].any()
    assert all(np.array_equal(after.parts[name], before.parts[name]) for name in ("fc7", "pool3"))


def test_the_gradient_is_that_of_differences_and_of_the_crop_alone(rng: np.random.Generator) -> None:
    net = at_random(NETS["fcn-squeezenet"](width=1), rng)
    image, (x, y) = rng.standard_normal((3, 230, 500)), (400, 60)
    found = explain(net, image, (x, y))
    height, width = found.gradient.shape[:2]
    top, left = found.corner
    assert left > 0 and left % 16 == 0 and width < 220 and (top, height) == (0, 153)
    first, second = found.order[:2]
    for row, col, channel in ((60, 400, 0), (50, 390, 2), (80, 420, 1)):
        gaps = []
        for step in (1e-5, -1e-5):
            moved = image.copy()
            moved[channel, row, col] += step
            with evaluating(net):
                score = net(moved[None]).data[0, :, y, x]
            gaps.append(score[first] - score[second])
        slope = (gaps[0] - gaps[1]) / 2e-5
        assert found.gradient[row - top, col - left, channel] == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_the_fields_are_those_of_the_layers_nearest_cells(rng: np.random.Generator) -> None:
    net = at_random(FCN8s(**SMALL), rng)
    found = explain(net, rng.standard_normal((3, 64, 96)), (90, 5))
    fields = {field.name: field for field in found.fields}
    assert fields["trunk.block1.conv1_1"].grid.field == 3 and fields["trunk.block1.conv1_1"].cell == (5, 90)
    assert fields["trunk.block5.pool"].grid.stride == 32 and fields["trunk.block5.pool"].cell == (0, 2)
    names = list(fields)
    assert names.index("score_fr") < names.index("score_pool4") < names.index("upscore8")


def test_what_cannot_be_explained_says_why(rng: np.random.Generator) -> None:
    with pytest.raises(UsageError, match="explain: found VGG; expected an FCN"):
        explain(FCN8s(**SMALL).trunk, np.zeros((3, 32, 32), np.float32), (0, 0))
    net = nonlinear(FCN8s(**SMALL, padding=100))
    with pytest.raises(UsageError, match="expected an upsampling that is linear"):
        explain(net, np.zeros((3, 32, 32), np.float32), (0, 0))
    assert not any(parameter.frozen for parameter in net.parameters())
