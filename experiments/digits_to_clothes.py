"""Does LeNet-5 learn clothes from fewer pictures when it has learnt digits? MNIST to Fashion-MNIST,
10 of each class.

The notes, section 1.8: pictures of another kind. `finetune` starts from all layers but the last of
the net trained on the digits, `frozen` too, and its convolutions stay as they are. Each seed draws
its own pictures, the same for all arms.
"""

from jaxcnn.config import Data, Model, Optim, Run, Start, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
SOURCE = {"start.data": "mnist"}

EXPERIMENT = Experiment(
    claim="Weights learnt on digits help on clothes",
    source="Lecture notes, section 1.8",
    base=Run(
        model=Model(name="lenet5", activation="relu", pool="max", initializer="he_normal"),
        data=Data(name="fashion_mnist", per_class=10, validation_examples=1000),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=50, steps=1000, eval_every=200, eval_train_examples=100),
        start=Start(steps=3000, lr=0.03),
    ),
    arms={
        "scratch": {},
        "finetune": SOURCE,
        "frozen": {**SOURCE, "start.freeze": ("C1", "C3")},
    },
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0,),
    seeds=tuple(range(10)),
    resplit=True,
    predictions=(
        Prediction(ERROR, "finetune", than="scratch"),
        Prediction(ERROR, "frozen", than="scratch"),
        Prediction(ERROR, "finetune", than="frozen"),
    ),
    presets={
        "quick": {
            "base.train.steps": 300,
            "base.train.eval_every": 150,
            "base.start.steps": 1000,
            "seeds": range(6),
        },
        "paper": {"base.train.steps": 3000, "base.start.steps": 20_000, "seeds": range(20)},
    },
)
