"""Does more data make a better network? LeNet-5 with ReLU on 500 to 32,000 digits.

The notes, section 1.6: large data sets are one of the reasons that deep networks came to work. Each
training set is part of the next larger one, and all arms take equally many steps.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

SIZES = (500, 2000, 8000, 32_000)
ERROR = Measure("final", "test")
SUN = "performance rises with the logarithm of the number of pictures (10 to 300 million)"
SOURCE = "Sun et al. 2017, arXiv:1707.02968, Figure 4"

EXPERIMENT = Experiment(
    claim="More training data lowers the test error",
    source="Lecture notes, section 1.6",
    base=Run(
        model=Model(name="lenet5", activation="relu", pool="max", initializer="he_normal"),
        data=Data(name="mnist", validation_examples=5000),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=64, steps=5000, eval_every=500, eval_train_examples=500),
    ),
    arms={f"n_{size}": {"data.train_examples": size} for size in SIZES},
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0,),
    predictions=tuple(
        Prediction(ERROR, f"n_{more}", than=f"n_{less}", published=said, source=where)
        for less, more, said, where in zip(
            SIZES[:-1], SIZES[1:], (SUN, "", ""), (SOURCE, "", ""), strict=True
        )
    ),
    caveat=(
        "600 steps of 64 see 38,400 pictures, each of 32,000 once: there the number of steps "
        "is what lacks, and the published curve is of trainings to the end."
    ),
    presets={
        "quick": {
            "base.data.validation_examples": 2000,
            "base.train.steps": 600,
            "base.train.eval_every": 200,
        },
        "paper": {"base.train.steps": 20_000, "base.train.eval_every": 2000, "seeds": range(10)},
    },
)
