"""Every net by name: what commands, recipes, training options and files of weights choose from.

`NETS["voc-fcn8s"](init="zero")` builds a net; at width 1 any of them runs in a moment. Those of the paper have the
names of the reference's folders and take the options of `fcn` and of their trunk. `TRUNKS["vgg16"]` builds the trunk of
a classifier alone. Numbers of classes: PASCAL VOC 21, NYUDv2 40, SIFT Flow 33 and 3, PASCAL-Context 60. FCN, sections 4
and 5.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from minifcn.errors import UsageError
from minifcn.models import paper
from minifcn.models.alexnet import AlexNet, AlexNet2014
from minifcn.models.classifier import classifier
from minifcn.models.dilated import FCN_dilated
from minifcn.models.efficientnet import EfficientNetLite0
from minifcn.models.googlenet import GoogLeNet
from minifcn.models.lenet import LeNet
from minifcn.models.paper import paper_vgg
from minifcn.models.resnet import BLOCKS as RESNETS
from minifcn.models.resnet import FCN_ResNet
from minifcn.models.squeezenet import SqueezeNet
from minifcn.models.trunk import Trunk
from minifcn.models.vgg import BLOCKS, VGG
from minifcn.nn import Module

Anything = TypeVar("Anything")


@dataclass(frozen=True)
class Net:
    """One net: `make` builds it with the options it is given, and so does a call.

    `published` is the source of its weights in `weights.published.SOURCES`, "" if there are none. A classifier has a
    `trunk`, from which an FCN can be made: `strides` lists those that `minifcn train` builds, coarse to fine, and
    `skip_scale` is what at-once training multiplies their skips by. A net with strides and no trunk is trained whole.
    """

    make: Callable[..., Module]
    published: str = ""
    trunk: Callable[..., Trunk] | None = None
    strides: tuple[int, ...] = ()
    skip_scale: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, **options: Any) -> Any:
        return self.make(**options)


def _classifier(
    trunk: type[Trunk],
    published: str = "",
    strides: tuple[int, ...] = (),
    skip_scale: Mapping[str, float] | None = None,
    *,
    classes: int = 1000,
    **options: Any,
) -> Net:
    make = partial(classifier, trunk, classes=classes, **options)
    return Net(make, published, partial(trunk, **options), strides, skip_scale or {})


LADDER = (32, 16, 8)  # the paper's
FINER = (*LADDER, 4, 2)
NETS: dict[str, Net] = {
    **{f"vgg{n}": _classifier(VGG, "oxford" if n in (16, 19) else "", FINER, paper.AT_ONCE, layers=n) for n in BLOCKS},
    "alexnet": _classifier(AlexNet, strides=(32,)),
    "googlenet": _classifier(GoogLeNet, "googlenet", (32,)),
    "lenet": _classifier(LeNet, "lenet", classes=10),
    # SqueezeNet's early maps hold numbers in the hundreds
    "squeezenet1.0": _classifier(SqueezeNet, "", (16, 8, 4), {"pool4": 0.01, "pool1": 0.01}),
    "squeezenet1.1": _classifier(SqueezeNet, "", (16, 8, 4), {"pool3": 0.01, "pool1": 0.01}, version="1.1"),
    "squeezenet": _classifier(SqueezeNet),
    "efficientnet-lite0": _classifier(EfficientNetLite0, "efficientnet-lite0", LADDER),
    # as files of weights call them
    "caffenet": _classifier(AlexNet, "caffe"),
    "squeezenet1_0": _classifier(SqueezeNet, "squeezenet"),
    "squeezenet1_1": _classifier(SqueezeNet, "squeezenet", version="1.1"),
    **{f"vgg{n}-torchvision": _classifier(VGG, "torchvision-vgg", layers=n) for n in BLOCKS},
    "alexnet-torchvision": _classifier(AlexNet2014, "torchvision-alexnet"),
    "squeezenet1_0-torchvision": _classifier(SqueezeNet, "torchvision-squeezenet1.0", version="1.0 torchvision"),
    "squeezenet1_1-torchvision": _classifier(SqueezeNet, "torchvision-squeezenet1.1", version="1.1"),
    "googlenet-torchvision": _classifier(GoogLeNet, "torchvision-googlenet", version="torchvision"),
    # the paper's; CVPR 2015 learned the upsampling between the skips, what was released does not
    **{f"fcn{s}s": Net(partial(paper_vgg, s)) for s in LADDER},
    **{f"voc-fcn{s}s": Net(partial(paper_vgg, s), "caffe") for s in LADDER},
    **{f"voc-fcn{s}s-cvpr15": Net(partial(paper_vgg, s, upsampling="learned")) for s in LADDER[1:]},
    "voc-fcn8s-atonce": Net(partial(paper_vgg, 8, skip_scale=paper.AT_ONCE), "caffe"),
    "voc-fcn-alexnet": Net(paper.FCN_AlexNet, "caffe"),
    "nyud-fcn32s-color": Net(partial(paper_vgg, 32, classes=40), "nyud"),
    "nyud-fcn32s-hha": Net(partial(paper_vgg, 32, classes=40), "nyud-hha"),  # the same net; HHA has three channels, too
    "nyud-fcn32s-color-d": Net(partial(paper_vgg, 32, classes=40, in_channels=4), "early-fusion"),
    "nyud-fcn32s-color-hha": Net(paper.nyud_color_hha, "late-fusion"),
    **{f"siftflow-fcn{s}s": Net(partial(paper_vgg, s, classes={"sem": 33, "geo": 3}), "siftflow") for s in LADDER},
    **{f"pascalcontext-fcn{s}s": Net(partial(paper_vgg, s, classes=60), "caffe") for s in LADDER},
    "fcn-googlenet": Net(paper.FCN_GoogLeNet),
    **{f"fcn-pool{number}": Net(partial(paper.FCN_pool, number)) for number in (3, 4, 5)},
    "fcn32s-fixed": Net(paper.FCN32s_fixed),
    # torchvision's, with and without the auxiliary head, as its files have them
    **{
        f"fcn_resnet{n}{end}": Net(partial(FCN_ResNet, layers=n, aux=aux), "torchvision-segmentation", strides=(8,))
        for end, aux in (("", True), ("-main", False))
        for n in RESNETS
    },
    # and others to compare with
    "fcn-squeezenet": Net(paper.FCN_SqueezeNet),
    "parsenet": Net(paper.ParseNet),
    "fcn-dilated": Net(FCN_dilated),
}
TRUNKS = {name: net.trunk for name, net in NETS.items() if net.trunk}


def trunk_name(trunk: str, layers: int) -> str:
    """Return the name in `TRUNKS` of a run's trunk: "vgg" with 11 `layers` is "vgg11", any other name stays."""
    return f"vgg{layers}" if trunk == "vgg" else trunk


def named(known: Mapping[str, Anything], name: str, found: str) -> Anything:
    """Return `known[name]`; `UsageError` with `found`, all known names and the nearest if there is none."""
    if name not in known:
        raise UsageError(f"{found}; expected one of {', '.join(known)}{near(name, known)}")
    return known[name]


def near(name: str, known: Iterable[str]) -> str:
    """Return the end of a message, "; did you mean 'vgg16'?", or "" if no known name is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
