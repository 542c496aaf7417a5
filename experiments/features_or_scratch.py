"""Do a trained net's features and a support vector machine beat a net trained from scratch, where
pictures are few? Fashion-MNIST, from its classes 0 to 4 to its classes 5 to 9, 10 of each.

The notes, sections 1.6 and 1.8; Donahue et al. 2014, Razavian et al. 2014. The source is LeNet-5
with ReLU and max pooling, trained on the first five classes at the same seed; the machines are
linear ones, on standardised numbers: what C3 hands on (400), what C5 does (120), the pixels (784).
Each seed draws its own pictures, the same for all arms. A learning rate or a penalty is chosen from
four on 1000 validation pictures, of which a real small sample would have fewer.
"""

from jaxcnn.config import Data, Model, Optim, Run, Start, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
SOURCE = {"start.data": "fashion_mnist"}
SVM = {"model.name": "svm_linear"}
FEATURES = {**SVM, **SOURCE, "start.model": "lenet5"}
PIXELS = {**SVM, "model.activation": "paper", "model.pool": "paper", "model.initializer": "paper"}

EXPERIMENT = Experiment(
    claim="On small sets a trained net's features with an SVM beat training from scratch",
    source="Lecture notes, sections 1.6 and 1.8",
    base=Run(
        model=Model(name="lenet5", activation="relu", pool="max", initializer="he_normal"),
        data=Data(
            name="fashion_mnist", classes=(5, 6, 7, 8, 9), per_class=10, validation_examples=1000
        ),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=50, steps=1000, eval_every=200, eval_train_examples=50),
        start=Start(classes=(0, 1, 2, 3, 4), steps=3000, lr=0.03),
    ),
    arms={
        "svm_conv": {**FEATURES, "start.features": "C3"},
        "svm_fc": {**FEATURES, "start.features": "C5"},
        "svm_pixels": PIXELS,
        "scratch": {},
        "finetune": SOURCE,
    },
    tune={
        "optim.lr": (0.003, 0.01, 0.03, 0.1),
        "model.penalty": (0.0001, 0.001, 0.01, 0.1),
    },
    tune_seeds=(0,),
    seeds=tuple(range(10)),
    resplit=True,
    predictions=(
        Prediction(ERROR, "svm_conv", than="scratch"),
        Prediction(ERROR, "svm_conv", than="svm_pixels"),
        Prediction(ERROR, "svm_conv", than="svm_fc"),
        Prediction(ERROR, "finetune", than="scratch"),
        Prediction(ERROR, "svm_conv", than="finetune"),
    ),
    caveat=(
        "The published features are of nets trained on ImageNet; this source has seen five "
        "classes of small grey pictures."
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
