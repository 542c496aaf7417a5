"""Do GoogLeNet's auxiliary classifiers help? A small GoogLeNet on CIFAR-10, without normalisation.

The notes, section 1.7.2, after Szegedy 2015, section 5: classifiers on the outputs of 4a and 4d,
their losses weighted by 0.3, "combat the vanishing gradient problem while providing
regularization". The paper's net has no batch normalisation, and so has this one. Szegedy et al.
2016 (arXiv:1512.00567, section 4) found no faster start and a gain only near the end.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

STEPS = Measure("steps_to", "train", target=0.6)
ERROR = Measure("final", "test")
PAPER = "around 0.5 points, and one head achieves the same (ImageNet)"

EXPERIMENT = Experiment(
    claim="Auxiliary classifiers speed up training and lower the test error",
    source="Lecture notes, section 1.7.2",
    base=Run(
        model=Model(name="googlenet_cifar", dropout=0.0, batch_norm=False),
        data=Data(name="cifar10", shift=4, flip=True),
        optim=Optim(name="sgd", momentum=0.9, weight_decay=1e-4, schedule="cosine"),
        train=Train(batch_size=128, epochs=15.0, eval_every=200),
    ),
    arms={"side_heads": {"model.side_heads": True}, "none": {"model.side_heads": False}},
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0, 1),
    predictions=(
        Prediction(
            ERROR, "side_heads", than="none", published=PAPER,
            source="Szegedy et al. 2015, section 5",
        ),
        Prediction(STEPS, "side_heads", than="none"),
    ),
    caveat=(
        "300 steps without normalisation are the beginning of a training, in which neither "
        "net gets to 60 % training error; the paper's gain is at the end of one, on ImageNet."
    ),
    presets={
        "quick": {
            "base.model.width_multiplier": 0.25,
            "base.data.resize": 16,
            "base.data.shift": 0,
            "base.data.train_examples": 10_000,
            "base.data.validation_examples": 1000,
            "base.train.batch_size": 32,
            "base.train.steps": 300,
            "base.train.eval_every": 60,
            "base.train.eval_train_examples": 500,
            "seeds": range(6),
        },
        "paper": {"base.train.epochs": 150.0, "seeds": range(10)},
    },
)  # fmt: skip
