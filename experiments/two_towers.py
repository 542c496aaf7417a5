"""Are AlexNet's two towers better than one tower half as wide? A small AlexNet on CIFAR-10.

Krizhevsky 2012, section 3.2: two towers, one a GPU, have 1.7 and 1.2 points less top-1 and top-5
error than "a net with half as many kernels in each convolutional layer" but the last. `one_tower`
has all connections between the same kernels. The same nets in every preset: no arm's widths may
depend on it.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
PAPER = "1.7 and 1.2 points less top-1 and top-5 error (ImageNet, AlexNet)"

EXPERIMENT = Experiment(
    claim="Two towers beat one tower of half the width",
    source="Lecture notes, section 1.4",
    base=Run(
        model=Model(
            name="alexnet_cifar", widths=(16, 32, 48, 32, 32), head=(64,), lrn=None, dropout=0.0
        ),
        data=Data(name="cifar10", flip=True, shift=2),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=128, epochs=20.0),
    ),
    arms={
        "two_towers": {"model.groups": 2},
        "half_width": {"model.widths": (8, 16, 24, 16, 32)},
        "one_tower": {},
    },
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0, 1),
    predictions=(
        Prediction(
            ERROR, "two_towers", than="half_width", published=PAPER,
            source="Krizhevsky 2012, section 3.2",
        ),
        Prediction(ERROR, "one_tower", than="two_towers"),
    ),
    caveat=(
        "The prediction about one tower is ours, not the paper's; it has more weights, and "
        "1,000 steps do not tell them apart."
    ),
    presets={
        "quick": {
            "base.data.resize": 16,
            "base.data.shift": 1,
            "base.data.train_examples": 20_000,
            "base.data.validation_examples": 2000,
            "base.train.batch_size": 32,
            "base.train.steps": 1000,
            "base.train.eval_every": 500,
            "base.train.eval_train_examples": 1000,
            "seeds": range(8),
        },
        "paper": {"base.train.epochs": 90.0, "base.optim.weight_decay": 5e-4, "seeds": range(10)},
    },
)  # fmt: skip
