"""Deep and thin or shallow and wide? Residual nets on CIFAR-10, of equal parameters and compute.

The notes, section 1.7: deeper networks have the better features. 20 layers against 8 so much wider
that parameters and multiply-adds are both equal to 6 % (the tests count them). The same nets in
every preset. `deeper_or_wider_mlp` asks the same of fully-connected nets.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
WRN = "against it: a 16-layer wide net beats thin ones of a thousand layers (CIFAR)"
SOURCE = "Zagoruyko & Komodakis 2016, arXiv:1605.07146, abstract"

EXPERIMENT = Experiment(
    claim="Deep and thin beats shallow and wide at equal parameters and compute",
    source="Lecture notes, section 1.7",
    base=Run(
        model=Model(name="resnet20", widths=(8, 16, 32)),
        data=Data(name="cifar10", shift=4, flip=True),
        optim=Optim(name="sgd", momentum=0.9, weight_decay=1e-4, schedule="cosine"),
        train=Train(batch_size=128, epochs=15.0),
    ),
    arms={
        "deep": {},
        "wide": {"model.blocks": (1, 1, 1), "model.widths": (15, 30, 60)},
    },
    tune={"optim.lr": (0.03, 0.1, 0.3, 1.0)},
    tune_seeds=(0, 1),
    predictions=(Prediction(ERROR, "deep", than="wide", published=WRN, source=SOURCE),),
    caveat=(
        "600 steps are the beginning of a training, and deeper nets begin more slowly; the "
        "published comparison, after 200 epochs, is against the claim, too."
    ),
    presets={
        "quick": {
            "base.data.resize": 16,
            "base.data.shift": 1,
            "base.data.train_examples": 10_000,
            "base.data.validation_examples": 2000,
            "base.train.batch_size": 32,
            "base.train.steps": 600,
            "base.train.eval_every": 300,
            "base.train.eval_train_examples": 1000,
            "seeds": range(6),
        },
        "paper": {"base.train.epochs": 180.0, "tune_seeds": (0, 1)},
    },
)
