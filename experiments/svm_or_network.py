"""Is a network no better than an SVM on small samples? MNIST, 100 to 55,000 training pictures.

The notes, section 1.2: what kept networks down before 2006. Each seed draws its own training and
validation pictures, the same for all arms, so that an interval speaks of samples of that size and
not of one of them. The nets take equally many steps at every size and choose a learning rate; the
SVM (C = 10, one against one) chooses its kernel's width from as many values. All choices are made
on validation pictures of which a small sample would have fewer.
"""

from jaxcnn.config import Data, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
SIZES = (100, 300, 1000, 5000, 10_000, 55_000)
MODELS = {"svm": "svm_rbf", "mlp": "mlp", "lenet5": "lenet5"}
TABLE = "SVM 1.4 % against LeNet-5 0.95 %, 60,000 training pictures"
SOURCE = "LeCun 1998, Fig. 9"


def arms(*sizes: int) -> tuple[str, ...]:
    return tuple(f"{name}_{n}" for n in sizes for name in MODELS)


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
            "model.name": model,
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
        Prediction(ERROR, "lenet5_5000", than="svm_5000"),
        Prediction(ERROR, "lenet5_55000", than="svm_55000", published=TABLE, source=SOURCE),
    ),
    presets={
        "quick": {
            "base.train.steps": 300,
            "base.train.eval_every": 300,
            "base.data.validation_examples": 1000,
            "arms": arms(100, 300, 1000, 5000),
        },
        "paper": {
            "base.train.steps": 20_000,
            "base.train.eval_every": 5000,
            "tune_seeds": (0, 1, 2),
        },
    },
)
