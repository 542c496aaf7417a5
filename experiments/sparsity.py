"""Do max pooling, ReLU and dropout alike leave a part of the units out of each update? LeNet-5 on
MNIST.

The notes, sections 1.5.1 to 1.5.3: the three are one idea, for in each only some values change.
Measured is the share of units whose gradient, for one example, is not 0, and how much an update
differs from batch to batch (jaxcnn/probes.py). Each arm adds one of the three to a net in which
every unit takes part: tanh, average pooling, no dropout. Arms have their own learning rates.

No paper has this comparison. That updates under dropout differ more from batch to batch is stated
by Srivastava et al. 2014; that those of the others do follows if the notes' one idea holds.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

SHARE = Measure("probe", "train", probe="active_share")
VARIANCE = Measure("probe", "train", probe="update_variance")
NOISE = "dropout adds much noise to the gradients, against plain SGD (in words)"

EXPERIMENT = Experiment(
    claim="Max pooling, ReLU and dropout all let only a part of the units take part in an update",
    source="Lecture notes, sections 1.5.1 to 1.5.3",
    base=Run(
        model=Model(name="lenet5", activation="tanh", pool="avg"),
        data=Data(name="mnist", validation_examples=2000),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(
            batch_size=128,
            epochs=5.0,
            eval_every=100,
            eval_train_examples=2000,
            probes=("active_share", "update_variance"),
        ),
    ),
    arms={
        "all_units": {},
        "max_pooling": {"model.pool": "max"},
        "relu": {"model.activation": "relu"},
        "dropout": {"model.dropout": 0.5},
    },
    tune={"optim.lr": (0.01, 0.03, 0.1, 0.3)},
    tune_seeds=(0, 1),
    tune_by=Measure("mean", "validation"),
    predictions=(
        Prediction(SHARE, "max_pooling", than="all_units"),
        Prediction(SHARE, "relu", than="all_units"),
        Prediction(SHARE, "dropout", than="all_units"),
        Prediction(VARIANCE, "max_pooling", than="all_units", direction="greater"),
        Prediction(VARIANCE, "relu", than="all_units", direction="greater"),
        Prediction(
            VARIANCE,
            "dropout",
            than="all_units",
            direction="greater",
            published=NOISE,
            source="Srivastava 2014, appendix A.2",
        ),
    ),
    caveat=(
        "No paper compares the three; the variance of an update is measured once, at the end "
        "of 120 steps, and differs much by the seed."
    ),
    presets={
        "quick": {
            "base.train.steps": 120,
            "base.train.eval_every": 60,
            "base.train.eval_train_examples": 1000,
            "base.data.validation_examples": 1000,
        },
        "paper": {
            "base.train.epochs": 30.0,
            "tune.optim.lr": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
            "seeds": range(10),
        },
    },
)
