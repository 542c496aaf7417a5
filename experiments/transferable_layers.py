"""Are a net's early layers general and its late ones specific? Fashion-MNIST, from its classes 0 to
4 to its classes 5 to 9, 100 of each.

Yosinski, Clune, Bengio, Lipson 2014: of a net trained on one half of the classes the first k layers
are taken over, and stay (`frozen_k`) or train on (`tuned_k`), and the layers above are trained anew
on the other half. Theirs is AlexNet on halves of ImageNet, with all of its pictures, so that there
is little to be gained, and something to be lost; here the second half is small.
"""

from jaxcnn.config import Data, Model, Optim, Run, Start, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
LAYERS = ("C1", "C3", "C5", "F6")
FIRST = {k: LAYERS[:k] for k in range(1, len(LAYERS) + 1)}
SOURCE = {"start.data": "fashion_mnist"}
FIGURE_2 = "Yosinski 2014, section 4.1, Figure 2"

EXPERIMENT = Experiment(
    claim="The first layers of a net are general, the last ones specific to their task",
    source="Lecture notes, section 1.8",
    base=Run(
        model=Model(name="lenet5", activation="relu", pool="max", initializer="he_normal"),
        data=Data(
            name="fashion_mnist", classes=(5, 6, 7, 8, 9), per_class=100, validation_examples=1000
        ),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=50, steps=1000, eval_every=200, eval_train_examples=50),
        start=Start(classes=(0, 1, 2, 3, 4), steps=3000, lr=0.03),
    ),
    arms={
        "scratch": {},
        **{
            f"frozen_{k}": {**SOURCE, "start.layers": first, "start.freeze": first}
            for k, first in FIRST.items()
        },
        **{f"tuned_{k}": {**SOURCE, "start.layers": first} for k, first in FIRST.items()},
    },
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0,),
    seeds=tuple(range(8)),
    resplit=True,
    predictions=(
        Prediction(
            ERROR,
            "frozen_1",
            than="scratch",
            direction="same",
            margin=0.01,
            published="next to nothing is lost with the first two layers",
            source=FIGURE_2,
        ),
        Prediction(ERROR, "frozen_2", than="frozen_3"),
        Prediction(
            ERROR,
            "frozen_1",
            than="frozen_4",
            published="the later the layer, the larger the drop",
            source=FIGURE_2,
        ),
        Prediction(
            ERROR,
            "tuned_4",
            than="scratch",
            published="fine-tuned nets generalise better than those trained on the target alone",
            source=FIGURE_2,
        ),
        Prediction(ERROR, "tuned_4", than="frozen_4"),
    ),
    caveat=(
        "Published are nets of ImageNet's halves, with 645,000 pictures each; here the second "
        "half has 500."
    ),
    presets={
        "quick": {
            "base.train.steps": 300,
            "base.train.eval_every": 150,
            "base.start.steps": 1000,
            "arms": ("scratch", "frozen_1", "frozen_4", "tuned_4"),
            "seeds": range(6),
        },
        "paper": {"base.train.steps": 3000, "base.start.steps": 20_000, "seeds": range(20)},
    },
)
