"""Is a network no better than an SVM on small samples? MNIST, 100 to 55,000 training pictures.

The notes, section 1.2: what kept networks down before 2006. Each seed draws its own training and
validation pictures, the same for all arms, so that an interval speaks of samples of that size and
not of one of them. The nets take equally many steps at every size and choose a learning rate; the
SVM (C = 10, one against one) chooses its kernel's width from as many values. All choices are made
on validation pictures of which a small sample would have fewer. LeNet-5 stands here twice, with
sigmoid units and, as `relu`, with ReLU and max pooling.
"""

from collections.abc import Sequence

from jaxcnn.config import Data, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
SIZES = (100, 300, 1000, 5000, 10_000, 55_000)
RELU = {"model.activation": "relu", "model.pool": "max", "model.initializer": "he_normal"}
MODELS = {
    "svm": {"model.name": "svm_rbf"},
    "mlp": {"model.name": "mlp"},
    "lenet5": {"model.name": "lenet5"},
    "relu": {"model.name": "lenet5", **RELU},
}
TABLE = "SVM 1.4 % against LeNet-5 0.95 %, 60,000 training pictures"
SOURCE = "LeCun 1998, Fig. 9"


def arms(names: Sequence[str], sizes: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{name}_{n}" for n in sizes for name in names)


EXPERIMENT = Experiment(
    claim="On small samples a network is no better than an SVM",
    source="Lecture notes, section 1.2",
    base=Run(
        data=Data(name="mnist", validation_examples=2000),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=50, steps=5000, eval_every=1000),
    ),
    arms={
        f"{name}_{n}": {
            **model,
            "data.train_examples": n,
            "train.eval_train_examples": min(n, 1000),
        }
        for n in SIZES
        for name, model in MODELS.items()
    },
    tune={
        "optim.lr": (0.003, 0.01, 0.03, 0.1),
        "model.gamma": (0.0006, 0.0012, 0.0025, 0.005),  # 1 / (pixels x variance) is 0.0013
    },
    tune_seeds=(0,),
    resplit=True,
    predictions=(
        Prediction(ERROR, "svm_100", than="mlp_100"),
        Prediction(ERROR, "svm_100", than="lenet5_100"),
        Prediction(ERROR, "svm_1000", than="mlp_1000"),
        Prediction(ERROR, "svm_1000", than="lenet5_1000"),
        Prediction(ERROR, "svm_100", than="relu_100"),
        Prediction(ERROR, "svm_1000", than="relu_1000"),
        Prediction(ERROR, "relu_5000", than="svm_5000"),
        Prediction(ERROR, "relu_55000", than="svm_55000", published=TABLE, source=SOURCE),
        Prediction(ERROR, "lenet5_5000", than="svm_5000"),
        Prediction(ERROR, "lenet5_55000", than="svm_55000", published=TABLE, source=SOURCE),
    ),
    caveat=(
        "LeNet-5's sigmoid units stand still for the 300 steps of the quick preset, at "
        "chance; the preset `relu` compares the net that learns."
    ),
    presets={
        "quick": {
            "base.train.steps": 300,
            "base.train.eval_every": 300,
            "base.data.validation_examples": 1000,
            "arms": arms(("svm", "mlp", "lenet5"), (100, 300, 1000, 5000)),
        },
        # LeNet-5's sigmoid units stand still for the whole of quick's budget
        "relu": {
            "base.train.steps": 1000,
            "base.train.eval_every": 500,
            "base.data.validation_examples": 1000,
            "arms": arms(("svm", "mlp", "relu"), (100, 1000, 5000)),
        },
        "paper": {
            "base.train.steps": 20_000,
            "base.train.eval_every": 5000,
            "tune_seeds": (0, 1, 2),
        },
    },
)
