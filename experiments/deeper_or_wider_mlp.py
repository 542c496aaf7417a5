"""Deep and thin or shallow and wide? Fully-connected nets on MNIST, of equally many parameters.

The notes, section 1.7. In a fully-connected net every weight is one multiply-add, so that equal
parameters are equal compute too, to the biases. Five hidden layers of 128, two of 173 or one of 211
(168,000 weights each; the tests count); ReLU from He's weights, each depth with its own learning
rate. A small training set, so that the error is not the few digits nobody can read.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
LECUN = "784-1000-10 4.5 %, 784-300-100-10 3.05 %, 784-500-150-10 2.95 % (MNIST)"

EXPERIMENT = Experiment(
    claim="Deep and thin beats shallow and wide at equal parameters",
    source="Lecture notes, section 1.7",
    base=Run(
        model=Model(name="mlp", activation="relu", initializer="he_normal", widths=(128,) * 5),
        data=Data(name="mnist", train_examples=20_000),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=64, epochs=20.0),
    ),
    arms={
        "five": {},
        "two": {"model.widths": (173, 173)},
        "one": {"model.widths": (211,)},
    },
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0,),
    predictions=(
        Prediction(
            ERROR, "two", than="one", published=LECUN, source="LeCun 1998, Figure 9"
        ),
        Prediction(ERROR, "five", than="one"),
    ),
    caveat=(
        "5,000 digits leave little to compose; the published nets saw 60,000 and differ in "
        "their numbers of weights, too."
    ),
    presets={
        "quick": {
            "base.data.train_examples": 5000,
            "base.data.validation_examples": 2000,
            "base.train.epochs": 15.0,
            "base.train.eval_train_examples": 1000,
            "base.train.eval_every": 390,
            "seeds": range(8),
        },
        "paper": {
            "base.data.train_examples": 55_000,
            "base.train.epochs": 50.0,
            "seeds": range(10),
        },
    },
)  # fmt: skip
