"""Does local response normalisation help? A small AlexNet on CIFAR-10.

The notes, section 1.4, after Krizhevsky 2012, section 3.3: LRN takes 1.4 and 1.2 points off the
top-1 and top-5 errors, and a four-layer CNN on CIFAR-10 has 13 % without and 11 % with it; VGG
(section 4.1) found no gain. Each arm has its own learning rate: k = 2 divides every activation by
at least 2^0.75, and what that does to the step size is not what is asked.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
PAPER = "13 % without, 11 % with it (CIFAR-10, a four-layer CNN); VGG: 29.6 and 29.7 % (ImageNet)"

EXPERIMENT = Experiment(
    claim="Local response normalisation lowers the test error",
    source="Lecture notes, section 1.4",
    base=Run(
        model=Model(name="alexnet_cifar", dropout=0.0),
        data=Data(name="cifar10"),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=128, epochs=15.0),
    ),
    arms={"lrn": {"model.lrn": "krizhevsky2012"}, "none": {"model.lrn": None}},
    tune={"optim.lr": (0.01, 0.03, 0.1, 0.3)},
    tune_seeds=(0, 1),
    predictions=(
        Prediction(
            ERROR, "lrn", than="none", published=PAPER,
            source="Krizhevsky 2012, section 3.3; Simonyan & Zisserman 2015, Table 3",
        ),
    ),
    presets={
        "quick": {
            "base.model.widths": (16, 32, 32, 32, 32),
            "base.model.head": (64,),
            "base.data.resize": 16,
            "base.data.train_examples": 6000,
            "base.data.validation_examples": 2000,
            "base.train.batch_size": 32,
            "base.train.steps": 1000,
            "base.train.eval_every": 250,
            "base.train.eval_train_examples": 1000,
            "seeds": range(8),
        },
        "paper": {
            "base.model.dropout": 0.5,
            "base.train.epochs": 90.0,
            "base.optim.weight_decay": 5e-4,
            "seeds": range(10),
        },
    },
)  # fmt: skip
