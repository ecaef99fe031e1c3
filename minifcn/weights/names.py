"""Rules that translate other libraries' layer names into ours.

Our names say where a layer stands, `trunk.block2.fire2.expand.expand1x1.w`; `layer_of` leaves what it is,
`fire2.expand1x1`. A rule makes another library's name of that: Caffe's are nearly ours, for they come from the papers;
torchvision numbers the layers of a `Sequential`, so its names are sums. torchvision's GoogLeNet normalises after every
convolution, by constants once it is trained, and `folded` multiplies them into the weights.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from minifcn.errors import FormatError

Rule = Callable[[str, Sequence[str]], str]  # (one of our layers, all layers of its net in order) -> its name there
PARTS = {"w": "weight", "b": "bias", "scale": "scale", "mean": "running_mean", "var": "running_var"}
PLACES = re.compile(r"trunk|top|head|expand|body|block\d+")


def layer_of(name: str) -> tuple[str, str]:
    """Return (layer, part) of one of our parameters, without the places it stands in.

    >>> layer_of("trunk.block2.fire2.expand.expand1x1.w")
    ('fire2.expand1x1', 'weight')
    """
    *words, part = name.split(".")
    return ".".join(word for word in words if not PLACES.fullmatch(word)), PARTS.get(part, part)


def renamed(names: Sequence[str], rule: Rule) -> dict[str, str]:
    """Return for each of our parameters what it is called where `rule` comes from, in the same order."""
    split = [(name, *layer_of(name)) for name in names]
    layers = list(dict.fromkeys(layer for _, layer, _ in split))
    return {name: f"{rule(layer, layers)}.{part}" for name, layer, part in split}


def ours(layer: str, layers: Sequence[str]) -> str:
    """Return our own short name, `fire2.squeeze1x1`: what we give to PyTorch."""
    return layer


def caffe(layer: str, layers: Sequence[str]) -> str:
    """Return the paper's name, with slashes in it: VGG, CaffeNet, SqueezeNet, LeNet and the released FCNs."""
    return layer.replace(".", "/")


def caffe_googlenet(layer: str, layers: Sequence[str]) -> str:
    """Return `inception_3a/3x3_reduce` for `inception_3a.conv3x3.reduce`; the first names hold the kernels."""
    special = {"conv1": "conv1/7x7_s2", "reduce": "conv2/3x3_reduce", "conv2": "conv2/3x3", "fc": "loss3/classifier"}
    layer = re.sub(r"\.conv(\dx\d)(\.conv)?", r"/\1", special.get(layer, layer))
    return layer.replace(".reduce", "_reduce").replace(".pool.proj", "/pool_proj")


def caffe_early_fusion(layer: str, layers: Sequence[str]) -> str:
    """Return the layer's name in Caffe: the first layer for colour and depth has its own, which no transplant finds."""
    return "conv1_1_bgrd" if layer == "conv1_1" else layer


def caffe_late_fusion(layer: str, layers: Sequence[str]) -> str:
    """Return the layer's name in Caffe, of two nets side by side: `color.conv1_1` is `conv1_1color`."""
    net, _, rest = layer.partition(".")
    return rest + net


def torchvision_vgg(layer: str, layers: Sequence[str]) -> str:
    """Return the layer's number: after each convolution comes its ReLU, after each block its pool, all numbered."""
    if found := re.fullmatch(r"conv(\d)_\d", layer):
        return f"features.{2 * layers.index(layer) + int(found[1]) - 1}"
    return {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}[layer]


def torchvision_alexnet(layer: str, layers: Sequence[str]) -> str:
    """Return the number as for VGG, with pools after the first two convolutions, and dropout before fc6 and fc7."""
    if layer.startswith("conv"):
        return f"features.{2 * layers.index(layer) + min(layers.index(layer), 2)}"
    return {"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"}[layer]


def torchvision_squeezenet(pools: tuple[int, int]) -> Rule:
    """Return the rule of the version with pools after these two fire modules: each pool moves the numbers on by one."""

    def rule(layer: str, layers: Sequence[str]) -> str:
        if not layer.startswith("fire"):
            return {"conv1": "features.0", "conv10": "classifier.1"}[layer]
        module, window = layer.split(".")
        number = int(module.removeprefix("fire"))
        place = number + 1 + sum(number > pool for pool in pools)
        return f"features.{place}.{'squeeze' if window == 'squeeze1x1' else window}"

    return rule


def torchvision_googlenet(layer: str, layers: Sequence[str]) -> str:
    """Return the name with numbers for branches, and for the convolutions in one; here after `folded`."""
    layer = {"reduce": "conv2", "conv2": "conv3"}.get(layer, layer).replace("inception_", "inception")
    for window, branch in {"conv1x1": 1, "conv3x3": 2, "conv5x5": 3, "pool": 4}.items():
        layer = layer.replace(f".{window}", f".branch{branch}")
    return layer.replace(".reduce", ".0").replace(".conv", ".1").replace(".proj", ".1")


def torchvision_segmentation(layer: str, layers: Sequence[str]) -> str:
    """Return our name, which is torchvision's here: the trunk is the backbone, the heads stand beside it."""
    return layer if "classifier" in layer else f"backbone.{layer}"


def one_head(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays without torchvision's auxiliary head where it has other classes than the first head.

    It is there for training alone, and often only the first is given the classes of new data.
    """
    sizes = {name: arrays[name].size for name in ("classifier.4.bias", "aux_classifier.4.bias") if name in arrays}
    kept = len(set(sizes.values())) < 2
    return {name: array for name, array in arrays.items() if kept or not name.startswith("aux_classifier.")}


NORMALISED = {"_conv_stem": "_bn0", "_conv_head": "_bn1", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1",
              "_project_conv": "_bn2"}  # fmt: skip


def efficientnet(layer: str, layers: Sequence[str]) -> str:
    """Return `_blocks.3._expand_conv` for `mb3.widen` (EfficientNet in PyTorch), after `paired` and `folded`."""
    if not layer.startswith("mb"):
        return {"stem": "_conv_stem", "features": "_conv_head", "fc": "_fc"}[layer]
    block, conv = layer.removeprefix("mb").split(".")
    return f"_blocks.{block}._{'expand' if conv == 'widen' else conv}_conv"


def paired(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return EfficientNet's arrays with convolutions and normalisations, numbered apart, as `folded` wants them."""
    named = dict(arrays)
    for name in arrays:
        layer = name.removesuffix(".weight")
        prefix, _, last = layer.rpartition(".")
        prefix = f"{prefix}." if prefix else ""
        norm = f"{prefix}{NORMALISED.get(last, '')}"
        if name.endswith(".weight") and last in NORMALISED and f"{norm}.running_mean" in arrays:
            named[f"{layer}.conv.weight"] = named.pop(name)
            for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                if f"{norm}.{part}" in named:
                    named[f"{layer}.bn.{part}"] = named.pop(f"{norm}.{part}")
    return named


def unnumbered(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays, `conv1.0` and `conv1.1` of a `.caffemodel` renamed to `conv1.weight` and `conv1.bias`."""
    if not all(re.search(r"\.[01]$", name) for name in arrays):
        return dict(arrays)
    return {name[:-1] + ("weight", "bias")[int(name[-1])]: array for name, array in arrays.items()}


EPS = 1e-3  # torchvision's GoogLeNet


def folded(arrays: Mapping[str, np.ndarray], *, eps: float = EPS) -> dict[str, np.ndarray]:
    """Return the arrays with batch normalisation, a factor and a summand, multiplied into the convolutions before it.

    y = (w*x - mean) g / sqrt(var + eps) + beta is a convolution with w g / sqrt(var + eps) and the bias
    beta - mean g / sqrt(var + eps). `a.conv.weight` and `a.bn.*` become `a.weight` and `a.bias`; all other arrays stay.
    Raises `FormatError` naming the layer whose normalisation is incomplete or of another size.
    """
    result = {}
    for name, array in arrays.items():
        layer, conv, _ = name.rpartition(".conv.weight")
        if not conv or f"{layer}.bn.weight" not in arrays:
            if ".bn." not in name:
                result[name] = array
            continue
        wanted = [f"{layer}.bn.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        unfit = [each for each in wanted if each not in arrays or arrays[each].shape != array.shape[:1]]
        if unfit:
            found = f"shape {arrays[unfit[0]].shape}" if unfit[0] in arrays else "nothing"
            raise FormatError(f"{unfit[0]}: found {found}; expected one number for each of {len(array)} channels")
        gain, beta, mean, var = (arrays[each].astype(np.float64) for each in wanted)
        if (var < 0).any():
            raise FormatError(f"{wanted[3]}: found {var.min()}; expected variances of at least 0")
        factor = gain / np.sqrt(var + eps)
        shaped = factor.reshape(-1, *[1] * (array.ndim - 1))
        result[f"{layer}.weight"] = (array * shaped).astype(np.float32)
        result[f"{layer}.bias"] = (beta - mean * factor).astype(np.float32)
    return result
