"""Which parts of ResNet's training recipe matter? One at a time, on CIFAR-10.

The notes, section 1.7.3: batch normalisation, Xavier initialisation, SGD with momentum 0.9, weight
decay 1e-5, no dropout. He 2016, sections 3.4 and 4.2, has He's initialisation, a weight decay of
1e-4 and a learning rate that falls by 10 twice: `recipe`. Every other arm changes one of its parts;
`normal` is AlexNet's N(0, 0.01), `dropout` drops half of the features before the last layer.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

STEPS = Measure("steps_to", "train", target=0.5)
ERROR = Measure("final", "test")
IOFFE = "14 times fewer steps to the same accuracy with it (ImageNet, Inception)"
SECTION = "Ioffe & Szegedy 2015, section 4.2.2"

EXPERIMENT = Experiment(
    claim="Each part of ResNet's recipe lowers the error; dropout on top does not",
    source="Lecture notes, section 1.7.3",
    base=Run(
        model=Model(name="resnet20"),
        data=Data(name="cifar10", shift=4, flip=True),
        optim=Optim(name="sgd", momentum=0.9, weight_decay=1e-4, schedule="step"),
        train=Train(batch_size=128, steps=4000, eval_every=500),
    ),
    arms={
        "recipe": {},
        "no_batch_norm": {"model.batch_norm": False},
        "glorot": {"model.initializer": "glorot_normal"},
        "normal": {"model.initializer": "normal_0.01"},
        "no_momentum": {"optim.momentum": 0.0},
        "no_decay": {"optim.weight_decay": 0.0},
        "decay_1e-5": {"optim.weight_decay": 1e-5},
        "constant": {"optim.schedule": "constant"},
        "dropout": {"model.dropout": 0.5},
    },
    tune={"optim.lr": (0.03, 0.1, 0.3, 1.0)},
    tune_seeds=(0,),
    predictions=(
        Prediction(STEPS, "recipe", than="no_batch_norm", published=IOFFE, source=SECTION),
        Prediction(ERROR, "recipe", than="no_batch_norm"),
        Prediction(ERROR, "recipe", than="glorot"),
        Prediction(ERROR, "recipe", than="normal"),
        Prediction(ERROR, "recipe", than="no_momentum"),
        Prediction(ERROR, "recipe", than="no_decay"),
        Prediction(ERROR, "recipe", than="decay_1e-5"),
        Prediction(ERROR, "recipe", than="constant"),
        Prediction(ERROR, "recipe", than="dropout"),
    ),
    caveat=(
        "400 steps of 8 layers: what a schedule, momentum and weight decay gain over 64,000 "
        "steps cannot show yet, and no arm of the pair gets to 50 % training error."
    ),
    presets={
        "quick": {
            "base.model.blocks": (1, 1, 1),
            "base.model.widths": (8, 16, 32),
            "base.data.resize": 16,
            "base.data.shift": 1,
            "base.data.train_examples": 10_000,
            "base.data.validation_examples": 2000,
            "base.train.batch_size": 32,
            "base.train.steps": 400,
            "base.train.eval_every": 50,
            "base.train.eval_train_examples": 500,
            "seeds": range(5),
        },
        "paper": {
            "base.train.steps": 64_000,
            "base.train.eval_every": 4000,
            "tune_seeds": (0, 1),
        },
    },
)
