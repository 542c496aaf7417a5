"""Is an output for each class better than one output for the class's number? LeNet-5 on MNIST.

The notes, section 1.2: digits are names, and a net that outputs a number must put 3 between 2 and
4. `scalar` has one output and the squared error to the number (less its mean, over its deviation);
the class is that of the nearest number. `one_hot` has the same error on ten outputs, so that the
two differ in the code alone; `softmax` has the cross-entropy that nets have now. Each arm has its
own learning rate: the three losses differ in scale.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
QUICK = {
    "base.train.steps": 300,
    "base.train.eval_every": 100,
    "base.train.eval_train_examples": 1000,
    "base.data.validation_examples": 1000,
}

EXPERIMENT = Experiment(
    claim="A one-hot output is better than one scalar output",
    source="Lecture notes, section 1.2",
    base=Run(
        model=Model(name="lenet5", activation="relu", pool="max", initializer="lecun_normal"),
        data=Data(name="mnist", validation_examples=2000),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=64, epochs=5.0, eval_train_examples=2000),
    ),
    arms={
        "one_hot": {"train.objective": "one_hot"},
        "scalar": {"train.objective": "scalar"},
        "softmax": {},
    },
    tune={"optim.lr": (0.001, 0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0,),
    predictions=(
        Prediction(ERROR, "one_hot", than="scalar"),
        Prediction(ERROR, "softmax", than="scalar"),
    ),
    caveat=(
        "At a rate that one seed chose, a scalar output diverges or stands still with others, "
        "so that pairs differ by up to 80 points."
    ),
    presets={
        "quick": QUICK,
        # by one seed, the rate chosen for a scalar output is one at which other seeds diverge
        "by_three_seeds": {**QUICK, "tune_seeds": (0, 1, 2), "seeds": range(9)},
        "paper": {"base.train.epochs": 20.0, "tune_seeds": (0, 1, 2), "seeds": range(10)},
    },
)
