"""Do stacked 3x3 convolutions beat one larger one of equal field? VGG on CIFAR-10.

The notes, section 1.7.1, after Simonyan & Zisserman 2015, sections 2.3 and 4.1: VGG's B with each
pair of 3x3 replaced by one 5x5 has a top-1 error 7 points higher. Three 3x3 see 7x7 by the same
rule (the notes give two of them 7x7; two see 5x5). Widths stay, as in the paper, so that the single
layers have 25/18 and 49/27 of the weights.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
PAPER = "7 points of top-1 error (ImageNet, B against B with 5x5)"

EXPERIMENT = Experiment(
    claim="Stacked 3x3 convolutions beat one larger convolution of equal receptive field",
    source="Lecture notes, section 1.7.1",
    base=Run(
        model=Model(name="vgg13_cifar", initializer="he_normal", dropout=0.0),
        data=Data(name="cifar10", shift=4, flip=True),
        optim=Optim(name="sgd", momentum=0.9, weight_decay=5e-4, schedule="cosine"),
        train=Train(batch_size=128, epochs=15.0),
    ),
    arms={
        "stacked_5x5": {"model.name": "vgg13_cifar"},
        "single_5x5": {"model.name": "vgg13_5x5_cifar"},
        "stacked_7x7": {"model.name": "vgg16_cifar"},
        "single_7x7": {"model.name": "vgg16_7x7_cifar"},
    },
    tune={"optim.lr": (0.01, 0.03, 0.1, 0.3)},
    tune_seeds=(0, 1),
    predictions=(
        Prediction(
            ERROR, "stacked_5x5", than="single_5x5", published=PAPER,
            source="Simonyan & Zisserman 2015, section 4.1",
        ),
        Prediction(ERROR, "stacked_7x7", than="single_7x7"),
    ),
    caveat=(
        "Nets of 8 to 32 maps at 16 pixels, where one 5x5 or 7x7 sees most of the map and has "
        "the more weights; the published figure is of VGG's B on ImageNet."
    ),
    presets={
        "quick": {
            "base.model.widths": (8, 16, 32),
            "base.model.head": (64,),
            "base.data.resize": 16,
            "base.data.shift": 1,
            "base.data.train_examples": 10_000,
            "base.data.validation_examples": 2000,
            "base.train.batch_size": 32,
            "base.train.steps": 900,
            "base.train.eval_every": 300,
            "base.train.eval_train_examples": 1000,
            "seeds": range(6),
        },
        "paper": {"base.train.epochs": 150.0, "seeds": range(10)},
    },
)  # fmt: skip
