"""Do the classifiers of LeCun 1998 stand in the order of his table? MNIST.

LeCun, Bottou, Bengio, Haffner 1998, Figure 9 and section III.C: ten classifiers on the same 60,000
pictures. Ours are fitted to 55,000 (quick: 10,000), the rest chooses each arm's one number from
four. Nets have cross-entropy, not squared error to one-hot or RBF codes, but for LeNet-5, which is
the original; momentum SGD takes the place of the diagonal Levenberg-Marquardt method. Each seed has
its own split of the training pictures.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
SOURCE = "LeCun 1998, Fig. 9"
# arm -> (what it changes, published test error in percent), the worst first
PAD = {"data.pad": 2}
ROWS = {
    "linear": ({"model.name": "linear"}, 12.0),
    "knn": ({"model.name": "knn"}, 5.0),
    "mlp300": ({"model.widths": (300,)}, 4.7),
    "pca_quadratic": ({"model.name": "pca_quadratic"}, 3.3),
    "mlp300_100": ({"model.widths": (300, 100)}, 3.05),
    "lenet1": ({"model.name": "lenet1"}, 1.7),
    "svm_rbf": ({"model.name": "svm_rbf"}, 1.4),
    "lenet4": ({"model.name": "lenet4", **PAD}, 1.1),
    "lenet5": ({"model.name": "lenet5_1998", **PAD}, 0.95),
}


def less(arm: str, than: str) -> Prediction:
    published = f"{ROWS[arm][1]:g} against {ROWS[than][1]:g} % test error"
    return Prediction(ERROR, arm, than=than, published=published, source=SOURCE)


EXPERIMENT = Experiment(
    claim="On MNIST, LeNet-5 beats LeNet-1, it the fully-connected nets, and they the linear one",
    source="LeCun 1998, section III.C",
    base=Run(
        model=Model(name="mlp"),
        data=Data(name="mnist", validation_examples=5000, normalize="lecun1998"),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=64, epochs=10.0, eval_train_examples=2000),
    ),
    arms={arm: changes for arm, (changes, _) in ROWS.items()},
    tune={
        "optim.lr": (0.003, 0.01, 0.03, 0.1),
        "model.ridge": (0.003, 0.03, 0.3, 3.0),
        "model.neighbors": (1, 3, 5, 9),
        "model.gamma": (0.0006, 0.0012, 0.0025, 0.005),
    },
    tune_seeds=(0,),
    resplit=True,
    predictions=(
        less("knn", "linear"),
        less("mlp300", "linear"),
        less("pca_quadratic", "knn"),
        less("mlp300_100", "mlp300"),
        less("lenet1", "mlp300_100"),
        less("svm_rbf", "mlp300_100"),
        less("lenet5", "lenet1"),
        less("lenet5", "svm_rbf"),
    ),
    caveat=(
        "The quick preset's 300 steps are 2 passes over 10,000 digits, the paper's nets made "
        "20 over 60,000; the larger the net, the more of it is missing."
    ),
    presets={
        "quick": {
            "base.train.steps": 300,
            "base.train.eval_every": 150,
            "base.train.eval_train_examples": 500,
            "base.data.train_examples": 10_000,
            "base.data.validation_examples": 1000,
            "seeds": range(5),
        },
        "paper": {"base.train.epochs": 20.0, "tune_seeds": (0, 1, 2)},
    },
)
