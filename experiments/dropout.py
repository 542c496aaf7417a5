"""Does dropout slow training and close the generalisation gap? A small AlexNet on CIFAR-10.

The notes, section 1.5.3, after Krizhevsky 2012, section 4.2: without dropout "our network exhibits
substantial overfitting", and dropout "roughly doubles the number of iterations required to
converge". At several sizes of the training set, because what dropout cures must be there: on many
pictures, or in a training too short to overfit, it can only cost. All arms take equally
many steps. Dropout stands in the head, as in the paper; no other regulariser is there.
Batch normalisation, which the paper's net does not have, is there so that every seed trains.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

SIZES = (1000, 3000, 10_000)
STEPS = Measure("steps_to", "train", target=0.4)
GAP = Measure("gap", "test")
ERROR = Measure("final", "test")
DOUBLES = "roughly doubles the number of iterations to converge (ImageNet, AlexNet)"
SECTION = "Krizhevsky 2012, section 4.2"

EXPERIMENT = Experiment(
    claim="Dropout slows convergence and reduces overfitting",
    source="Lecture notes, section 1.5.3",
    base=Run(
        model=Model(name="alexnet_cifar", lrn=None, batch_norm=True),
        data=Data(name="cifar10"),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=128, steps=3000, eval_every=100, eval_train_examples=1000),
    ),
    arms={
        f"{word}_{size}": {"model.dropout": rate, "data.train_examples": size}
        for size in SIZES
        for word, rate in (("off", 0.0), ("on", 0.5))
    },
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0, 1),
    predictions=(
        Prediction(
            STEPS, "on_1000", than="off_1000", direction="greater",
            published=DOUBLES, source=SECTION,
        ),
        *(Prediction(GAP, f"on_{size}", than=f"off_{size}") for size in SIZES),
        *(Prediction(ERROR, f"on_{size}", than=f"off_{size}") for size in SIZES),
    ),
    caveat=(
        "After 1,000 steps nets with dropout still underfit, the more so the more pictures "
        "there are to learn; the price of its gain is the longer training that the paper "
        "states, and it trained 90 epochs."
    ),
    presets={
        "quick": {
            "base.model.widths": (12, 24, 24, 24, 24),
            "base.model.head": (128,),
            "base.data.resize": 16,
            "base.data.validation_examples": 2000,
            "base.train.batch_size": 32,
            "base.train.steps": 1000,
            "base.train.eval_every": 50,
            "base.train.eval_train_examples": 500,
            "seeds": range(6),
        },
        "paper": {"base.train.steps": 20_000, "base.train.eval_every": 200, "seeds": range(10)},
    },
)  # fmt: skip
