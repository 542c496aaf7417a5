"""PyTorch twins of the models, from the papers' tables; module names are torchvision's, or those of
the library whose weights a net stands for. Dropout keeps everything: it stands for its place alone.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """He's weights, biases that are not 0, and normalisations with statistics of their own."""
    generator = torch.Generator().manual_seed(seed)

    def normal(t: Tensor, std: float) -> None:
        t.normal_(0, std, generator=generator)

    with torch.no_grad():
        for name, t in net.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith("running_var"):
                t.uniform_(0.5, 1.5, generator=generator)
            elif t.ndim > 1:
                normal(t, math.sqrt(2 / t[0].numel()))
            elif name.endswith("weight"):  # a normalisation's, or LeCun's coefficients
                t.uniform_(0.3, 1.2, generator=generator)
            else:
                normal(t, 0.1)
    return net.eval()


class Flat(nn.Module):
    """`features`, flattened, `classifier`."""

    def __init__(self, features: Sequence[nn.Module], classifier: Sequence[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


def _lrn(alpha: float = 5 * 1e-4, k: float = 2.0) -> nn.Module:
    """Krizhevsky's alpha times n: PyTorch divides by it."""
    return nn.LocalResponseNorm(5, alpha=alpha, beta=0.75, k=k)


def _hidden(sizes: Sequence[int], classes: int, dropout_first: bool) -> list[nn.Module]:
    out: list[nn.Module] = []
    for i, o in zip(sizes, sizes[1:], strict=False):
        triple = [nn.Linear(i, o), nn.ReLU(), nn.Dropout(0)]
        out += [triple[2], *triple[:2]] if dropout_first else triple
    return [*out, nn.Linear(sizes[-1], classes)]


def alexnet_owt(head: tuple[int, int], classes: int, side: int) -> Flat:
    pool = lambda: nn.MaxPool2d(3, 2)  # noqa: E731
    features = [
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), pool()),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), pool()),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), pool()),
    ]
    return Flat(features, _hidden((256 * side * side, *head), classes, dropout_first=True))


def alexnet(head: tuple[int, int], classes: int, side: int, groups: int = 2) -> Flat:
    pool = lambda: nn.MaxPool2d(3, 2)  # noqa: E731
    features = [
        *(nn.Conv2d(3, 96, 11, 4), nn.ReLU(), _lrn(), pool()),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=groups), nn.ReLU(), _lrn(), pool()),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=groups), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=groups), nn.ReLU(), pool()),
    ]
    return Flat(features, _hidden((256 * side * side, *head), classes, dropout_first=False))


def zfnet(head: tuple[int, int], classes: int, side: int) -> Flat:
    pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)  # noqa: E731
    features = [
        *(nn.Conv2d(3, 96, 7, 2, 1), nn.ReLU(), pool(), _lrn()),
        *(nn.Conv2d(96, 256, 5, 2), nn.ReLU(), pool(), _lrn()),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), pool()),
    ]
    return Flat(features, _hidden((256 * side * side, *head), classes, dropout_first=False))


# Maps of the five stages; a negative number is a 1x1 convolution.
VGG = {
    11: ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
    13: ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2),
    "16C": ((64,) * 2, (128,) * 2, (256, 256, -256), (512, 512, -512), (512, 512, -512)),
    16: ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}


def vgg(depth: int | str, bn: bool, head: tuple[int, int], classes: int, side: int) -> Flat:
    features: list[nn.Module] = []
    c = 3
    for stage in VGG[depth]:
        for maps in stage:
            k = 3 if maps > 0 else 1
            features.append(nn.Conv2d(c, abs(maps), k, padding=k // 2))
            c = abs(maps)
            features += [nn.BatchNorm2d(c)] if bn else []
            features.append(nn.ReLU())
        features.append(nn.MaxPool2d(2))
    return Flat(features, _hidden((c * side * side, *head), classes, dropout_first=False))


class Basic(nn.Module):
    """A convolution, normalised where `bn` says so, and ReLU: GoogLeNet's unit."""

    def __init__(self, i: int, o: int, k: int, bn: bool, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(i, o, k, stride, k // 2, bias=not bn)
        self.bn = nn.BatchNorm2d(o, eps=1e-3) if bn else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    def __init__(self, i: int, row: tuple[int, ...], bn: bool) -> None:
        super().__init__()
        one, r3, three, r5, five, proj = row
        wide = 3 if bn else 5  # torchvision's slip
        self.branch1 = Basic(i, one, 1, bn)
        self.branch2 = nn.Sequential(Basic(i, r3, 1, bn), Basic(r3, three, 3, bn))
        self.branch3 = nn.Sequential(Basic(i, r5, 1, bn), Basic(r5, five, wide, bn))
        pool = nn.MaxPool2d(3, 1, 1, ceil_mode=True)
        self.branch4 = nn.Sequential(pool, Basic(i, proj, 1, bn))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [b(x) for b in (self.branch1, self.branch2, self.branch3, self.branch4)], 1
        )


class Aux(nn.Module):
    def __init__(self, i: int, classes: int, bn: bool) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4) if bn else nn.AvgPool2d(5, 3)
        self.conv = Basic(i, 128, 1, bn)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.pool(x))
        return self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))


class GoogLeNet(nn.Module):
    """With `bn` torchvision's, else the paper's. In training the side heads' outputs come too."""

    def __init__(self, bn: bool, classes: int, transform_input: bool = False) -> None:
        super().__init__()
        self.paper, self.transform_input = not bn, transform_input
        self.conv1 = Basic(3, 64, 7, bn, 2)
        self.conv2 = Basic(64, 64, 1, bn)
        self.conv3 = Basic(64, 192, 3, bn)
        self.inception3a = Inception(192, (64, 96, 128, 16, 32, 32), bn)
        self.inception3b = Inception(256, (128, 128, 192, 32, 96, 64), bn)
        self.inception4a = Inception(480, (192, 96, 208, 16, 48, 64), bn)
        self.inception4b = Inception(512, (160, 112, 224, 24, 64, 64), bn)
        self.inception4c = Inception(512, (128, 128, 256, 24, 64, 64), bn)
        self.inception4d = Inception(512, (112, 144, 288, 32, 64, 64), bn)
        self.inception4e = Inception(528, (256, 160, 320, 32, 128, 128), bn)
        self.inception5a = Inception(832, (256, 160, 320, 32, 128, 128), bn)
        self.inception5b = Inception(832, (384, 192, 384, 48, 128, 128), bn)
        self.aux1, self.aux2 = Aux(512, classes, bn), Aux(528, classes, bn)
        self.fc = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        def pool(x: Tensor, window: int = 3) -> Tensor:
            return F.max_pool2d(x, window, 2, ceil_mode=True)

        def lrn(x: Tensor) -> Tensor:  # Caffe's graph
            return F.local_response_norm(x, 5, 1e-4, 0.75, 1.0) if self.paper else x

        if self.transform_input:
            mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
            pixels = x * std[:, None, None] + mean[:, None, None]
            x = (pixels - 0.5) / 0.5
        x = lrn(pool(self.conv1(x)))
        x = pool(lrn(self.conv3(self.conv2(x))))
        x = pool(self.inception3b(self.inception3a(x)))
        x = self.inception4a(x)
        side1 = self.aux1(x) if self.training else None
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        side2 = self.aux2(x) if self.training else None
        x = pool(self.inception4e(x), 3 if self.paper else 2)
        x = self.inception5b(self.inception5a(x))
        logits = self.fc(x.mean((2, 3)))
        if side1 is None or side2 is None:
            return logits
        return logits, side1, side2


class Block(nn.Module):
    def __init__(
        self,
        i: int,
        width: int,
        stride: int,
        *,
        bottleneck: bool,
        stride_at: str,
        shortcut: str | None,
        zeros_at: str,
        bias: bool,
        eps: float,
        projection: str,
    ) -> None:
        super().__init__()
        o = 4 * width if bottleneck else width
        at_1x1 = stride_at == "1x1"
        if bottleneck:
            convs = [
                (i, width, 1, stride if at_1x1 else 1),
                (width, width, 3, 1 if at_1x1 else stride),
            ]
            convs.append((width, o, 1, 1))
        else:
            convs = [(i, o, 3, stride), (o, o, 3, 1)]
        self.depth = len(convs)
        for n, (a, b, k, s) in enumerate(convs, start=1):
            setattr(self, f"conv{n}", nn.Conv2d(a, b, k, s, k // 2, bias=bias))
            setattr(self, f"bn{n}", nn.BatchNorm2d(b, eps))
        self.stride, self.more, self.shortcut_kind, self.zeros_at = (
            stride,
            o - i,
            shortcut,
            zeros_at,
        )
        self.projection = None
        if shortcut == "B" and (stride > 1 or i != o):
            self.projection = projection
            conv = nn.Conv2d(i, o, 1, stride, bias=bias)
            setattr(self, projection, nn.Sequential(conv, nn.BatchNorm2d(o, eps)))

    def around(self, x: Tensor) -> Tensor | float:
        if self.shortcut_kind is None:
            return 0.0
        if self.projection is not None:
            return getattr(self, self.projection)(x)
        before = self.more // 2 if self.zeros_at == "both" else 0
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, before, self.more - before))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for n in range(1, self.depth + 1):
            y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
            y = F.relu(y) if n < self.depth else y
        return F.relu(y + self.around(x))


class ResNet(nn.Module):
    """`keras`: biases, epsilon 1e-3, and zeros around the map before the first pooling."""

    def __init__(
        self,
        blocks: tuple[int, ...],
        widths: tuple[int, ...],
        classes: int,
        *,
        bottleneck: bool = False,
        stride_at: str = "3x3",
        shortcut: str | None = "B",
        zeros_at: str = "end",
        cifar: bool = False,
        keras: bool = False,
    ) -> None:
        super().__init__()
        self.cifar, self.keras = cifar, keras
        eps = 1e-3 if keras else 1e-5
        k, s = (3, 1) if cifar else (7, 2)
        self.conv1 = nn.Conv2d(3, widths[0], k, s, k // 2, bias=keras)
        self.bn1 = nn.BatchNorm2d(widths[0], eps)
        i = widths[0]
        self.stages = len(blocks)
        for n, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            stage = []
            for b in range(count):
                block = Block(
                    i,
                    width,
                    2 if n > 1 and b == 0 else 1,
                    bottleneck=bottleneck,
                    stride_at=stride_at,
                    shortcut=shortcut,
                    zeros_at=zeros_at,
                    bias=keras,
                    eps=eps,
                    projection="shortcut" if cifar else "downsample",
                )
                stage.append(block)
                i = 4 * width if bottleneck else width
            setattr(self, f"layer{n}", nn.Sequential(*stage))
        setattr(self, "linear" if cifar else "fc", nn.Linear(i, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        if self.keras:
            x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)
        elif not self.cifar:
            x = F.max_pool2d(x, 3, 2, 1)
        for n in range(1, self.stages + 1):
            x = getattr(self, f"layer{n}")(x)
        return getattr(self, "linear" if self.cifar else "fc")(x.mean((2, 3)))


def keras_names(state: dict[str, Tensor], old: bool) -> dict[str, Tensor]:
    """A `keras` ResNet's state as Keras has it: its names, and kernels [h, w, I, O]."""
    out = {}
    for name, t in state.items():
        *module, leaf = name.split(".")
        if leaf == "num_batches_tracked":
            continue
        bn = module[-1].startswith("bn") or module[-2:] == ["downsample", "1"]
        leaf = {"running_mean": "moving_mean", "running_var": "moving_variance"}.get(leaf, leaf)
        leaf = {"weight": "gamma" if bn else "kernel", "bias": "beta" if bn else "bias"}.get(
            leaf, leaf
        )
        if leaf == "kernel":
            t = t.permute(2, 3, 1, 0) if t.ndim == 4 else t.T
        if len(module) == 1:
            new = {"conv1": "conv1_conv", "bn1": "conv1_bn", "fc": "predictions"}[module[0]]
            old_name = {"conv1": "conv1", "bn1": "bn_conv1", "fc": "fc1000"}[module[0]]
        else:
            stage, block = int(module[0][-1]) + 1, int(module[1]) + 1
            k = 0 if module[2] == "downsample" else int(module[2][-1])
            new = f"conv{stage}_block{block}_{k}_{'bn' if bn else 'conv'}"
            branch = ("1", "2a", "2b", "2c")[k]
            old_name = f"{'bn' if bn else 'res'}{stage}{'abcdef'[block - 1]}_branch{branch}"
        out[f"{old_name if old else new}/{leaf}"] = t.contiguous()
    return out


class LeNet(nn.Module):
    """The notes' form, and with `codes` that of 1998."""

    def __init__(
        self,
        maps: tuple[tuple[int, ...], ...] | None = None,
        codes: Tensor | None = None,
        act: Callable[[Tensor], Tensor] = torch.sigmoid,
    ) -> None:
        super().__init__()
        self.maps, self.codes, self.act = maps, codes, act
        self.C1 = nn.Conv2d(1, 6, 5, padding=2 if maps is None else 0)
        self.C3 = nn.Conv2d(6, 16, 5)
        if maps is not None:
            self.C3.weight = nn.Parameter(torch.empty(sum(map(len, maps)), 5, 5))
            self.S2, self.S4 = Subsample(6), Subsample(16)
        self.C5, self.F6 = nn.Linear(400, 120), nn.Linear(120, 84)
        if codes is None:
            self.output = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        def pool(x: Tensor, name: str) -> Tensor:
            x = F.avg_pool2d(x, 2)
            return x if self.maps is None else self.act(getattr(self, name)(x))

        x = pool(self.act(self.C1(x)), "S2")
        kernel = self.C3.weight
        if self.maps is not None:
            kernel, at = torch.zeros(16, 6, 5, 5), 0
            for o, inputs in enumerate(self.maps):
                for i in inputs:
                    kernel[o, i] = self.C3.weight[at]
                    at += 1
        x = pool(self.act(F.conv2d(x, kernel, self.C3.bias)), "S4")
        x = self.act(self.F6(self.act(self.C5(torch.flatten(x, 1)))))
        if self.codes is None:
            return self.output(x)
        return -((x[:, None] - self.codes[None]) ** 2).sum(-1)


class Subsample(nn.Module):
    """LeCun's sum of four times a coefficient plus a bias, here of their mean."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(maps)), nn.Parameter(torch.empty(maps))

    def forward(self, x: Tensor) -> Tensor:
        return 4 * x * self.weight[:, None, None] + self.bias[:, None, None]


class MLP(nn.Module):
    def __init__(self, sizes: tuple[int, ...], act: Callable[[Tensor], Tensor], bn: bool) -> None:
        super().__init__()
        self.act, self.depth = act, len(sizes) - 2
        for i, (a, b) in enumerate(zip(sizes, sizes[1:-1], strict=False), start=1):
            setattr(self, f"fc{i}", nn.Linear(a, b))
            setattr(self, f"fc{i}_bn", nn.BatchNorm1d(b) if bn else nn.Identity())
        self.output = nn.Linear(sizes[-2], sizes[-1])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(x, 1)
        for i in range(1, self.depth + 1):
            x = self.act(getattr(self, f"fc{i}_bn")(getattr(self, f"fc{i}")(x)))
        return self.output(x)


def scaled_tanh(x: Tensor) -> Tensor:
    return 1.7159 * torch.tanh(2 / 3 * x)
