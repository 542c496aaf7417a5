"""Does max pooling do better than average pooling? LeNet-5 with ReLU on Fashion-MNIST.

The notes, section 1.5.2. AlexNet, VGG and ResNet pool by maxima, but none of their papers compares:
the claim has no published figure of its own. Each kind has its own learning rate, because a mean
passes on a gradient a quarter as large to each of its four cells and so wants a larger one; with a
rate that is too hot for maxima the verdict turns round. A small training set, where the difference
is largest.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

STEPS = Measure("steps_to", "train", target=0.2)
ERROR = Measure("final", "test")
NONE = "none: the architectures' papers use maxima without a comparison"

EXPERIMENT = Experiment(
    claim="Max pooling beats average pooling",
    source="Lecture notes, section 1.5.2",
    base=Run(
        model=Model(name="lenet5", activation="relu", initializer="he_normal"),
        data=Data(name="fashion_mnist", validation_examples=5000),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=64, epochs=15.0, eval_every=100, eval_train_examples=5000),
    ),
    arms={"max": {"model.pool": "max"}, "average": {"model.pool": "avg"}},
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0,),
    predictions=(
        Prediction(STEPS, "max", than="average", published=NONE),
        Prediction(ERROR, "max", than="average"),
    ),
    caveat=(
        "Each kind of pooling has a learning rate of its own; a rate that suits one of them "
        "alone makes the other look worse."
    ),
    presets={
        "quick": {
            "base.data.train_examples": 6000,
            "base.data.validation_examples": 2000,
            "base.train.epochs": 8.0,
            "base.train.eval_every": 50,
            "base.train.eval_train_examples": 1000,
            "seeds": range(7),
        },
        "paper": {"base.train.epochs": 30.0, "tune_seeds": (0, 1), "seeds": range(10)},
    },
)
