"""The notes' comparison table at CIFAR-10's size: one net of each paper, one protocol.

The notes, section 1.7: each winner of ILSVRC had a lower error than the one before. Here each has a
net of a few million multiply-adds, of its own design (AlexNet's dropout and LRN, VGG's stacks of
3x3, inceptions, residual blocks with batch normalisation), trained by the same optimiser on the
same augmented pictures for equally many steps. The records hold error, parameters and seconds.
"""

from jaxcnn.config import Data, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
TOP5 = "top-5 on ImageNet: AlexNet 15.3 %, VGG 7.3 %, GoogLeNet 6.67 %, ResNet 3.57 % (ensembles)"
SOURCE = "the papers' abstracts and tables; see `table published`"

EXPERIMENT = Experiment(
    claim="AlexNet, VGG, GoogLeNet, ResNet: each has less error than the one before",
    source="Lecture notes, section 1.7",
    base=Run(
        data=Data(name="cifar10", shift=4, flip=True),
        optim=Optim(name="sgd", momentum=0.9, weight_decay=1e-4, schedule="cosine"),
        train=Train(batch_size=128, epochs=20.0),
    ),
    arms={
        "alexnet": {
            "model.name": "alexnet_cifar",
            "model.widths": (16, 48, 96, 64, 64),
            "model.head": (128, 128),
        },
        "vgg": {
            "model.name": "vgg16_cifar",
            "model.widths": (16, 32, 64),
            "model.head": (128,),
            "model.batch_norm": False,
            "model.initializer": "he_normal",
        },
        "googlenet": {"model.name": "googlenet_cifar", "model.width_multiplier": 0.5},
        "resnet": {"model.name": "resnet20", "model.widths": (12, 24, 48)},
    },
    tune={"optim.lr": (0.01, 0.03, 0.1, 0.3)},
    tune_seeds=(0,),
    predictions=(
        Prediction(ERROR, "vgg", than="alexnet", published=TOP5, source=SOURCE),
        Prediction(ERROR, "googlenet", than="vgg"),
        Prediction(ERROR, "resnet", than="googlenet"),
    ),
    caveat=(
        "300 steps at 16 pixels are the beginning of a training, and in it batch "
        "normalisation, which only two of these nets have, counts most; the papers' nets were "
        "trained to the end, at 224 pixels."
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
            "seeds": range(5),
        },
        "paper": {"base.train.epochs": 180.0, "tune_seeds": (0, 1)},
    },
)
