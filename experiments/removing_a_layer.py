"""Does AlexNet need every one of its convolutions? A small AlexNet on CIFAR-10.

Krizhevsky 2012, section 7: "removing any of the middle layers results in a loss of about 2 % for
the top-1 performance of the network. So the depth really is important". A layer goes with its
activation; a pooling behind it stays, so that all maps keep their sizes.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
PAPER = "about 2 points of top-1 error for any of the middle layers (ImageNet, AlexNet)"
SECTION = "Krizhevsky 2012, section 7"
LAYERS = ("conv3", "conv4", "conv5")

EXPERIMENT = Experiment(
    claim="Removing any middle layer of AlexNet costs accuracy",
    source="Lecture notes, section 1.4",
    base=Run(
        model=Model(name="alexnet_cifar", lrn=None, dropout=0.0),
        data=Data(name="cifar10", flip=True, shift=2),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=128, epochs=15.0),
    ),
    arms={"whole": {}, **{f"no_{layer}": {"model.without": (layer,)} for layer in LAYERS}},
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0,),
    predictions=tuple(
        Prediction(ERROR, "whole", than=f"no_{layer}", published=said, source=where)
        for layer, said, where in zip(LAYERS, (PAPER, "", ""), (SECTION, "", ""), strict=True)
    ),
    caveat=(
        "The paper's net has 60 million parameters and ImageNet to fill them; at 16 pixels "
        "and 1,000 steps, depth costs training time and has little to add."
    ),
    presets={
        "quick": {
            "base.model.widths": (16, 32, 48, 48, 48),
            "base.model.head": (64,),
            "base.data.resize": 16,
            "base.data.shift": 1,
            "base.data.train_examples": 20_000,
            "base.data.validation_examples": 2000,
            "base.train.batch_size": 32,
            "base.train.steps": 1000,
            "base.train.eval_every": 500,
            "base.train.eval_train_examples": 1000,
            "seeds": range(5),
        },
        "paper": {
            "base.model.dropout": 0.5,
            "base.train.epochs": 90.0,
            "base.optim.weight_decay": 5e-4,
            "seeds": range(10),
        },
    },
)
