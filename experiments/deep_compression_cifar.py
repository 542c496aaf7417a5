"""How much smaller can nets for CIFAR-10 be made, one with large dense layers and one without?

The notes, section 1.9, and Han et al. 2016: AlexNet became 35 times smaller and VGG-16 49 times, at
no loss. Both have nearly all of their parameters in fully-connected layers; ResNets, which came
later, have none that are large, and are not in that paper. Each net is pruned to a tenth of its
weights, those that are left of a kernel share 32 values, and all is counted in a file as in
deep_compression.
"""

from jaxcnn.config import Compress, Data, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
SIZE = Measure("size", "test")
HAN = "AlexNet 35x (240 to 6.9 MB), VGG-16 49x (552 to 11.3 MB), neither with a loss, on ImageNet"
SOURCE = "Han 2016, Table 1"
ALEXNET = {
    "model.name": "alexnet_cifar",
    "model.widths": (16, 48, 96, 64, 64),
    "model.head": (128, 128),
}
RESNET = {"model.name": "resnet20", "model.widths": (12, 24, 48)}
DEEP = {"compress.sparsity": 0.9, "compress.bits": 5}

EXPERIMENT = Experiment(
    claim="AlexNet is made 35 times smaller without loss; a ResNet is not",
    source="Lecture notes, section 1.9",
    base=Run(
        data=Data(name="cifar10", shift=4, flip=True),
        optim=Optim(name="sgd", momentum=0.9, weight_decay=1e-4, schedule="cosine"),
        train=Train(batch_size=128, epochs=40.0),
        compress=Compress(scope="net", prune_from=0.2, prune_until=0.5, share_from=0.6),
    ),
    arms={
        "alexnet": ALEXNET,
        "alexnet_deep": {**ALEXNET, **DEEP},
        "resnet": RESNET,
        "resnet_deep": {**RESNET, **DEEP},
    },
    tune={"optim.lr": (0.01, 0.03, 0.1, 0.3)},
    tune_seeds=(0,),
    predictions=(
        Prediction(SIZE, "alexnet_deep", than="alexnet", factor=30.0, published=HAN, source=SOURCE),
        Prediction(
            *(ERROR, "alexnet_deep", "alexnet", "same"),
            margin=0.005,
            published=HAN,
            source=SOURCE,
        ),
        Prediction(ERROR, "resnet_deep", than="resnet", direction="greater"),
    ),
    caveat=(
        "300 steps at 16 pixels are the beginning of a training, and half of them are with a tenth "
        "of the weights; the published nets were trained to the end before they were pruned."
    ),
    presets={
        "quick": {
            "base.data.resize": 16,
            "base.data.shift": 1,
            "base.data.train_examples": 10_000,
            "base.data.validation_examples": 1000,
            "base.train.batch_size": 32,
            "base.train.steps": 300,
            "base.train.eval_every": 150,
            "base.train.eval_train_examples": 500,
            "arms": ("alexnet", "alexnet_deep"),
            "seeds": range(4),
        },
        "paper": {"base.train.epochs": 180.0, "tune_seeds": (0, 1)},
    },
)
