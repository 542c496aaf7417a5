"""Which augmentation lowers the test error? A small AlexNet on CIFAR-10.

The notes, section 1.5.4: flips, crops, noise, colour. Krizhevsky 2012, section 4.1: without random
crops and flips the network "suffers from substantial overfitting", and shifts of the colours along
their principal components, each by N(0, 0.1) times its eigenvalue, take more than 1 point off the
top-1 error. Crops are shifts by up to a sixteenth of the side; Gaussian noise has a tenth of the
pixels' deviation; the colours' eigenvalues are those of pixels in 0..1 (the paper does not say its
scale). Few pictures, so that there is something to regularise; no dropout. Batch
normalisation, which the paper's net does not have, is there so that every seed trains.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
GAP = Measure("gap", "test")
COLOR = "more than 1 point of top-1 error (ImageNet, AlexNet, on top of crops and flips)"
CROP = "without crops and flips, substantial overfitting (ImageNet, AlexNet); no figure"
SECTION = "Krizhevsky 2012, section 4.1"
SMALL = {
    "base.model.widths": (12, 24, 24, 24, 24),
    "base.model.head": (128,),
    "base.data.resize": 16,
    "base.data.validation_examples": 2000,
    "base.train.batch_size": 32,
    "base.train.eval_train_examples": 1000,
}

EXPERIMENT = Experiment(
    claim="Augmentation reduces overfitting: flips, crops, noise, colours",
    source="Lecture notes, section 1.5.4",
    base=Run(
        model=Model(name="alexnet_cifar", lrn=None, dropout=0.0, batch_norm=True),
        data=Data(name="cifar10", train_examples=10_000),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=128, steps=2000, eval_every=500),
    ),
    arms={
        "none": {},
        "flip": {"data.flip": True},
        "flip_crop": {"data.flip": True, "data.shift": 2},
        "noise": {"data.noise": 0.1},
        "color": {"data.color": 0.1},
        "all": {"data.flip": True, "data.shift": 2, "data.noise": 0.1, "data.color": 0.1},
    },
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0, 1),
    predictions=(
        Prediction(ERROR, "flip", than="none"),
        Prediction(ERROR, "flip_crop", than="none", published=CROP, source=SECTION),
        Prediction(ERROR, "noise", than="none"),
        Prediction(ERROR, "color", than="none", published=COLOR, source=SECTION),
        Prediction(ERROR, "all", than="none"),
        Prediction(GAP, "all", than="none"),
    ),
    caveat=(
        "The quick preset judges after 11 epochs, before the net without augmentation has "
        "overfitted; its small pictures of 16 pixels lose much to a shift by 2. The paper "
        "trained 90 epochs on 1.2 million pictures."
    ),
    presets={
        "quick": {
            **SMALL,
            "base.data.train_examples": 3000,
            "base.train.steps": 1000,
            "base.train.eval_every": 250,
            "seeds": range(6),
        },
        # 96 epochs of 1,000 pictures in place of 11 of 3,000: a regulariser that is judged before
        # there is anything to regularise looks harmful
        "converged": {
            **SMALL,
            "base.data.train_examples": 1000,
            "base.train.steps": 3000,
            "tune_seeds": (0,),
            "seeds": range(5),
        },
        "paper": {
            "base.data.train_examples": 45_000,
            "base.train.steps": 30_000,
            "base.train.eval_every": 1000,
            "base.optim.weight_decay": 5e-4,
            "seeds": range(10),
        },
    },
)
