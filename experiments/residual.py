"""Do residual networks escape the degradation of deep plain ones? CIFAR-10, 20 and 56 layers.

The notes, section 1.7.3, after He 2016, section 4.2 and Figure 6: deeper plain nets have the higher
training error, which no overfitting explains; residual nets do not. Option A's shortcuts have no
parameters, so that plain and residual nets of a depth have equally many.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

TRAIN = Measure("final", "train")
ERROR = Measure("final", "test")
PLAIN = "plain-56 above plain-20 in training and test error (CIFAR-10, 64,000 steps; a figure)"
DEEPER = "8.75 % with 20 layers, 6.97 % with 56 (CIFAR-10, 64,000 steps)"
TABLE = "He et al. 2016, Table 6"

EXPERIMENT = Experiment(
    claim="Residual connections make deep networks trainable",
    source="Lecture notes, section 1.7.3",
    base=Run(
        model=Model(name="resnet20"),
        data=Data(name="cifar10", shift=4, flip=True),
        optim=Optim(name="sgd", momentum=0.9, weight_decay=1e-4, schedule="step"),
        train=Train(batch_size=128, steps=4000, eval_every=1000),
    ),
    arms={name: {"model.name": name} for name in ("plain20", "resnet20", "plain56", "resnet56")},
    tune={"optim.lr": (0.01, 0.03, 0.1, 0.3)},
    tune_seeds=(0,),
    predictions=(
        Prediction(
            TRAIN, "plain56", than="plain20", direction="greater",
            published=PLAIN, source="He et al. 2016, Figure 6",
        ),
        Prediction(TRAIN, "resnet56", than="plain56"),
        Prediction(ERROR, "resnet56", than="plain56"),
        Prediction(ERROR, "resnet56", than="resnet20", published=DEEPER, source=TABLE),
    ),
    caveat=(
        "56 layers after 250 steps have hardly begun; the published gain of theirs over 20 is "
        "after 64,000 steps of full-size pictures."
    ),
    presets={
        "quick": {
            "base.model.widths": (8, 16, 32),
            "base.data.resize": 16,
            "base.data.shift": 0,
            "base.data.train_examples": 10_000,
            "base.data.validation_examples": 1000,
            "base.model.scan": True,
            "base.optim.schedule": "cosine",
            "base.train.batch_size": 32,
            "base.train.steps": 250,
            "base.train.eval_every": 125,
            "base.train.eval_train_examples": 500,
            "seeds": range(5),
        },
        "paper": {
            "base.train.steps": 64_000,
            "base.train.eval_every": 4000,
            "tune_seeds": (0, 1),
        },
    },
)  # fmt: skip
