"""What papers and model collections have published, as data: the one place for such figures.

`RESULTS` are classification errors in percent; `model` is the name of that architecture here, None
where it is none of ours. The first result of a model is the one that stands beside our own numbers.
Protocols differ, and with them the figures: VGG-16 has 8.7 % top-5 where GoogLeNet has 10.07 % with
one crop each, but 9.33 % against 9.15 % with ten.
"""

from typing import NamedTuple


class Result(NamedTuple):
    model: str | None
    net: str  # as its source calls it
    data: str
    top1: float | None  # error, percent
    top5: float | None
    protocol: str
    source: str


KRIZHEVSKY = "Krizhevsky et al. 2012"
VGG = "Simonyan & Zisserman 2015"
GOOGLENET = "Szegedy et al. 2015"
HE = "He et al. 2016"
LECUN = "LeCun, Cortes, Burges, MNIST page; LeCun et al. 1998, Figure 9"
HINTON = "Hinton & Salakhutdinov 2006"
CAFFE = "BVLC Caffe, model's readme"
TORCHVISION = "torchvision 0.29"
MMPRETRAIN = "MMPretrain, config's readme"
CANZIANI = "Canziani et al. 2016, arXiv:1605.07678"
V1, V2 = "IMAGENET1K_V1 weights", "IMAGENET1K_V2 weights"

VALIDATION, TEST = "ILSVRC-2012 validation", "ILSVRC test"
ILSVRC_2010 = "ILSVRC-2010 test"
ONE, TEN, MANY = "one net, central crop", "one net, 10 crops", "one net, several scales"
DENSE = "one net, one scale, dense"
WIDER = "one net, wider in conv3 to conv5"
MNIST, CIFAR10 = "MNIST test", "CIFAR-10 test"


def _alexnet() -> list[Result]:
    table, stars = f"{KRIZHEVSKY}, Table 2", "pre-trained on ImageNet 2011"
    return [
        Result("alexnet", "1 CNN", VALIDATION, 40.7, 18.2, TEN, table),
        Result(None, "5 CNNs", VALIDATION, 38.1, 16.4, "5 nets", table),
        Result(None, "5 CNNs", TEST, None, 16.4, "5 nets", table),
        Result(
            None, "1 CNN*", VALIDATION, 39.0, 16.6, f"one net of six convolutions, {stars}", table
        ),
        Result(None, "7 CNNs*", VALIDATION, 36.7, 15.4, f"7 nets, 2 of them {stars}", table),
        Result(None, "7 CNNs*", TEST, None, 15.3, f"7 nets, 2 of them {stars}", table),
        Result(None, "SIFT + FVs", TEST, None, 26.2, "second in 2012", table),
        Result("alexnet", "CNN", ILSVRC_2010, 37.5, 17.0, TEN, f"{KRIZHEVSKY}, Table 1"),
        Result(None, "SIFT + FVs", ILSVRC_2010, 45.7, 25.7, "", f"{KRIZHEVSKY}, Table 1"),
        Result(None, "sparse coding", ILSVRC_2010, 47.1, 28.2, "", f"{KRIZHEVSKY}, Table 1"),
        Result("alexnet", "bvlc_alexnet", VALIDATION, 42.9, 19.8, ONE, CAFFE),
        Result("caffenet", "CaffeNet", VALIDATION, 42.6, 19.6, ONE, CAFFE),
        # 512, 1024 and 512 maps in its last three convolutions, not Figure 3's 384, 384 and 256
        Result("zfnet", "ZF, wider form", VALIDATION, 37.5, 16.0, WIDER, f"{VGG}, Table 7"),
        Result(None, "ZF, 6 nets", VALIDATION, 36.0, 14.7, "6 nets", f"{VGG}, Table 7"),
        Result(None, "ZF, 6 nets", TEST, None, 14.8, "6 nets", f"{VGG}, Table 7"),
        Result(None, "Clarifai", TEST, None, 12.5, "one net", f"{VGG}, Table 7"),
        Result(None, "Clarifai", TEST, None, 11.7, "several nets", f"{VGG}, Table 7"),
        Result(None, "Clarifai", TEST, None, 11.2, "several nets, outside data", f"{VGG}, Table 7"),
    ]


_VGG = {
    "A": "vgg11",
    "A-LRN": "vgg11_lrn",
    "B": "vgg13",
    "C": "vgg16_c",
    "D": "vgg16",
    "E": "vgg19",
}


def _vgg() -> list[Result]:
    table3 = {  # Q = S, or the middle of S's range
        ("A", "256"): (29.6, 10.4),
        ("A-LRN", "256"): (29.7, 10.5),
        ("B", "256"): (28.7, 9.9),
        **{("C", "256"): (28.1, 9.4), ("C", "384"): (28.1, 9.3), ("C", "256 to 512"): (27.3, 8.8)},
        **{("D", "256"): (27.0, 8.8), ("D", "384"): (26.8, 8.7), ("D", "256 to 512"): (25.6, 8.1)},
        **{("E", "256"): (27.3, 9.0), ("E", "384"): (26.9, 8.7), ("E", "256 to 512"): (25.5, 8.0)},
    }
    table4 = {
        ("B", "256"): (28.2, 9.6),
        **{("C", "256"): (27.7, 9.2), ("C", "384"): (27.8, 9.2), ("C", "256 to 512"): (26.3, 8.2)},
        **{("D", "256"): (26.6, 8.6), ("D", "384"): (26.5, 8.6), ("D", "256 to 512"): (24.8, 7.5)},
        **{("E", "256"): (26.9, 8.7), ("E", "384"): (26.7, 8.6), ("E", "256 to 512"): (24.8, 7.5)},
    }
    table5 = {
        **{("D", "dense"): (24.8, 7.5), ("D", "crops"): (24.6, 7.5), ("D", "both"): (24.4, 7.2)},
        **{("E", "dense"): (24.8, 7.5), ("E", "crops"): (24.6, 7.4), ("E", "both"): (24.4, 7.1)},
    }
    rows = []
    for number, base, table in ((3, DENSE, table3), (4, MANY, table4), (5, MANY, table5)):
        for (net, detail), errors in table.items():
            how = f"{base}, trained at {detail} pixels" if number < 5 else f"{base}, {detail}"
            source = f"{VGG}, Table {number}"
            rows.append(Result(_VGG[net], net, VALIDATION, *errors, how, source))
    table6, table7 = f"{VGG}, Table 6", f"{VGG}, Table 7"
    return [
        *rows,
        Result(None, "7 nets", VALIDATION, 24.7, 7.5, "7 nets, ILSVRC-2014's entry", table6),
        Result(None, "7 nets", TEST, None, 7.3, "7 nets, ILSVRC-2014's entry", table6),
        Result(None, "D and E", VALIDATION, 23.7, 6.8, "2 nets, dense and crops", table6),
        Result(None, "D and E", TEST, None, 6.8, "2 nets, dense and crops", table6),
        Result(None, "VGG (1 net)", TEST, None, 7.0, "one net, dense and crops", table7),
    ]


def _googlenet() -> list[Result]:
    table, rows = f"{GOOGLENET}, Table 3", []
    for nets, crops, error in (
        *((1, 1, 10.07), (1, 10, 9.15), (1, 144, 7.89)),
        *((7, 1, 8.09), (7, 10, 7.62), (7, 144, 6.67)),
    ):
        how = f"{'one net' if nets == 1 else f'{nets} nets'}, {crops} crop{'s' * (crops > 1)}"
        model = "googlenet" if nets == 1 else None
        rows.append(Result(model, "GoogLeNet", VALIDATION, None, error, how, table))
    return [*rows, Result("googlenet", "bvlc_googlenet", VALIDATION, 31.3, 11.1, ONE, CAFFE)]


def _resnet() -> list[Result]:
    tables = [f"{HE}, Table {i}" for i in range(7)]
    rows = [
        Result("resnet18", "ResNet-18", VALIDATION, 27.88, None, f"{TEN}, shortcuts A", tables[2]),
        Result("plain18", "plain-18", VALIDATION, 27.94, None, TEN, tables[2]),
        Result("resnet34", "ResNet-34 B", VALIDATION, 24.52, 7.46, TEN, tables[3]),
        Result("plain34", "plain-34", VALIDATION, 28.54, 10.02, TEN, tables[3]),
        Result(None, "ResNet-34 A", VALIDATION, 25.03, 7.76, TEN, tables[3]),
        Result(None, "ResNet-34 C", VALIDATION, 24.19, 7.40, TEN, tables[3]),
        Result("vgg16", "VGG-16", VALIDATION, 28.07, 9.33, TEN, tables[3]),
        Result("resnet50", "ResNet-50", VALIDATION, 22.85, 6.71, TEN, tables[3]),
        Result("resnet101", "ResNet-101", VALIDATION, 21.75, 6.05, TEN, tables[3]),
        Result("resnet152", "ResNet-152", VALIDATION, 21.43, 5.71, TEN, tables[3]),
        Result("resnet34", "ResNet-34 B", VALIDATION, 21.84, 5.71, MANY, tables[4]),
        Result(None, "ResNet-34 C", VALIDATION, 21.53, 5.60, MANY, tables[4]),
        Result("resnet50", "ResNet-50", VALIDATION, 20.74, 5.25, MANY, tables[4]),
        Result("resnet101", "ResNet-101", VALIDATION, 19.87, 4.60, MANY, tables[4]),
        Result("resnet152", "ResNet-152", VALIDATION, 19.38, 4.49, MANY, tables[4]),
        Result(None, "ResNet ensemble", TEST, None, 3.57, "6 nets", tables[5]),
        Result("resnet110", "ResNet-110", CIFAR10, 6.43, None, "best of 5 runs", tables[6]),
        Result("resnet110", "ResNet-110", CIFAR10, 6.61, None, "mean of 5 runs, +-0.16", tables[6]),
        Result(None, "ResNet-1202", CIFAR10, 7.93, None, "one run", tables[6]),
    ]
    for depth, error in ((20, 8.75), (32, 7.51), (44, 7.17), (56, 6.97)):
        net = (f"resnet{depth}", f"ResNet-{depth}")
        rows.append(Result(*net, CIFAR10, error, None, "one run", tables[6]))
    return rows


def _torchvision() -> list[Result]:
    accuracies = {  # acc@1, acc@5 of `_V1` and, where there are any, of `_V2`
        "alexnet_owt": ((56.522, 79.066),),
        "vgg11": ((69.020, 88.628),),
        "vgg13": ((69.928, 89.246),),
        "vgg16": ((71.592, 90.382),),
        "vgg19": ((72.376, 90.876),),
        "vgg11_bn": ((70.370, 89.810),),
        "vgg13_bn": ((71.586, 90.374),),
        "vgg16_bn": ((73.360, 91.516),),
        "vgg19_bn": ((74.218, 91.842),),
        "googlenet_bn": ((69.778, 89.530),),
        "resnet18": ((69.758, 89.078),),
        "resnet34": ((73.314, 91.420),),
        "resnet50_v1.5": ((76.130, 92.862), (80.858, 95.434)),
        "resnet101_v1.5": ((77.374, 93.546), (81.886, 95.780)),
        "resnet152_v1.5": ((78.312, 94.046), (82.284, 96.002)),
    }
    net = {"alexnet_owt": "alexnet", "googlenet_bn": "googlenet"}
    return [
        _from_accuracy(
            model, net.get(model, model.split("_v")[0]), pair, TORCHVISION + f", {weights}"
        )
        for model, pairs in accuracies.items()
        for pair, weights in zip(pairs, (V1, V2), strict=False)
    ]


def _mmpretrain() -> list[Result]:
    accuracies = {
        **{"vgg11": (68.75, 88.87), "vgg13": (70.02, 89.46), "vgg16": (71.62, 90.49)},
        **{"vgg19": (72.41, 90.80), "vgg11_bn": (70.67, 90.16), "vgg13_bn": (72.12, 90.66)},
        **{"vgg16_bn": (73.74, 91.66), "vgg19_bn": (74.68, 92.27), "resnet18": (69.90, 89.43)},
        **{"resnet34": (73.62, 91.59), "resnet50_v1.5": (76.55, 93.06)},
        **{"resnet101_v1.5": (77.97, 94.06), "resnet152_v1.5": (78.48, 94.13)},
    }
    return [
        _from_accuracy(model, model.split("_v")[0], pair, MMPRETRAIN)
        for model, pair in accuracies.items()
    ]


def _from_accuracy(model: str, net: str, pair: tuple[float, float], source: str) -> Result:
    top1, top5 = (round(100 - accuracy, 3) for accuracy in pair)
    return Result(model, net, VALIDATION, top1, top5, ONE, source)


def _mnist() -> list[Result]:
    rows = {
        "linear": (("", 12.0), ("deskewed", 8.4)),
        "pairwise linear": (("deskewed", 7.6),),
        "k nearest neighbours": (("", 5.0), ("deskewed", 2.4)),
        "nearest neighbours by tangent distance": (("16x16 pixels", 1.1),),
        "40 principal components, quadratic": (("", 3.3),),
        "1000 RBF, linear": (("", 3.6),),
        "SVM, Gaussian kernel": (("", 1.4),),
        "SVM, polynomial of degree 4": (("deskewed", 1.1),),
        "reduced-set SVM, degree 5": (("deskewed", 1.0),),
        "virtual SVM, degree 9": (("distortions", 0.8),),
        "300 hidden units": (("", 4.7), ("distortions", 3.6), ("deskewed", 1.6)),
        "1000 hidden units": (("", 4.5),),
        "300 and 100 hidden units": (("", 3.05), ("distortions", 2.5)),
        "500 and 150 hidden units": (("", 2.95),),
        "LeNet-1": (("16x16 pixels", 1.7),),
        "LeNet-4": (("two maps behind each of the first four", 1.1),),
        "LeNet-4, nearest neighbours at its end": (("", 1.1),),
        "LeNet-5": (("", 0.95), ("distortions", 0.8), ("huge distortions", 0.85)),
        "boosted LeNet-4": (("distortions", 0.7),),
    }
    models = {"LeNet-1": "lenet1", "LeNet-4": "lenet4", "LeNet-5": "lenet5_1998"}
    models["300 and 100 hidden units"] = "mlp"
    page, hinton = LECUN.split(";")[0], "784-500-500-2000-10"
    return [
        *(
            Result(models.get(net), net, MNIST, error, None, how or "as it is", LECUN)
            for net, results in rows.items()
            for how, error in results
        ),
        Result(None, "500 and 300, softmax", MNIST, 1.53, None, "Hinton 2005", page),
        Result(None, "trainable features, SVM", MNIST, 0.83, None, "Lauer et al. 2007", page),
        Result(None, hinton, MNIST, 1.2, None, "pre-trained layer by layer", HINTON),
        Result(None, hinton, MNIST, 1.6, None, "random initial weights", HINTON),
    ]


RESULTS: tuple[Result, ...] = (
    *(*_mnist(), *_alexnet(), *_vgg(), *_googlenet(), *_resnet()),
    *(*_torchvision(), *_mmpretrain()),
)

# Hinton & Salakhutdinov 2006, Figure 2 and text: squared error an image.
SQUARED_ERRORS: dict[str, dict[str, float]] = {
    "MNIST": {"autoencoder, 30": 3.00, "logistic PCA, 30": 8.01, "PCA, 30": 13.87},
    "curves": {
        **{"autoencoder, 6": 1.44, "logistic PCA, 6": 7.64},
        **{"logistic PCA, 18": 2.45, "PCA, 18": 5.90},
    },
    "Olivetti faces": {"autoencoder, 30": 126.0, "PCA, 30": 135.0},
}
# Krizhevsky et al. 2012, sections 3.2 to 3.4: top-1 and top-5 points gained.
ABLATIONS: dict[str, tuple[float, float]] = {
    "two towers against one net half as wide": (1.7, 1.2),
    "local response normalisation": (1.4, 1.2),
    "overlapping pooling": (0.4, 0.3),
}
# Canziani et al. 2016, Figure 1: top-1 accuracy, one central crop, read off the bars to +-0.7.
CANZIANI_TOP1: dict[str, float] = {
    **{"AlexNet": 54.5, "BN-AlexNet": 57, "BN-NIN": 62.5, "ENet": 68, "GoogLeNet": 68.5},
    **{"ResNet-18": 69.5, "VGG-16": 70.5, "VGG-19": 70.7, "ResNet-34": 73, "ResNet-50": 75.7},
    **{"ResNet-101": 77.3, "ResNet-152": 78, "Inception-v3": 78.5, "Inception-v4": 80},
}
# Szegedy et al. 2015, Table 1: its column of parameters, summed (thousands).
GOOGLENET_TABLE1 = 6797.7


def first(model: str) -> Result | None:
    """The result that stands beside our numbers for `model`."""
    return next((r for r in RESULTS if r.model == model), None)


def find(net: str, data: str = VALIDATION, protocol: str = "", source: str = "") -> Result:
    """The first result of a net under its source's name; `protocol` and `source` are beginnings."""
    return next(
        r
        for r in RESULTS
        if (r.net, r.data) == (net, data)
        and r.protocol.startswith(protocol)
        and r.source.startswith(source)
    )
