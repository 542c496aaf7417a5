"""Do inception blocks beat plain 3x3 convolutions of equal compute? A small GoogLeNet on CIFAR-10.

The notes, section 1.7.2, after Szegedy 2015, section 4: windows of several sizes side by side,
behind 1x1 convolutions that keep them cheap. `plain` has one 3x3 convolution in place of each
block, with as many multiply-adds in all (the tests count them). The paper has no such comparison.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
NONE = "none at equal compute; 6.67 % top-5 with 12 times fewer parameters than AlexNet's 16.4 %"

EXPERIMENT = Experiment(
    claim="Inception blocks beat plain convolutions at equal compute",
    source="Lecture notes, section 1.7.2",
    base=Run(
        model=Model(name="googlenet_cifar", dropout=0.0),
        data=Data(name="cifar10", shift=4, flip=True),
        optim=Optim(name="sgd", momentum=0.9, weight_decay=1e-4, schedule="cosine"),
        train=Train(batch_size=128, epochs=15.0),
    ),
    arms={
        "inception": {"model.name": "googlenet_cifar"},
        "plain": {"model.name": "googlenet_cifar_plain"},
    },
    tune={"optim.lr": (0.03, 0.1, 0.3, 1.0)},
    tune_seeds=(0, 1),
    predictions=(
        Prediction(
            ERROR, "inception", than="plain", published=NONE, source="Szegedy et al. 2015"
        ),
    ),
    caveat=(
        "The published net saves parameters and compute at a given error and was never "
        "compared at equal compute; 400 steps are the beginning of a training."
    ),
    presets={
        "quick": {
            "base.model.width_multiplier": 0.25,
            "base.data.resize": 16,
            "base.data.shift": 1,
            "base.data.train_examples": 10_000,
            "base.data.validation_examples": 1000,
            "base.train.batch_size": 32,
            "base.train.steps": 400,
            "base.train.eval_every": 200,
            "base.train.eval_train_examples": 1000,
            "seeds": range(6),
        },
        "paper": {"base.train.epochs": 150.0, "seeds": range(10)},
    },
)  # fmt: skip
