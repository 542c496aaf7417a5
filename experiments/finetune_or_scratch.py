"""From how many pictures on does a net need no other's weights? Fashion-MNIST, from its classes 0
to 4 to its classes 5 to 9, 10 to 300 of each.

The notes, section 1.8. `finetune` starts from all layers but the last of LeNet-5 trained on the
first five classes, `frozen` too, and its convolutions stay as they are. All arms take equally many
steps; each seed draws its own pictures, the smaller sets parts of the larger ones.
"""

from collections.abc import Sequence

from jaxcnn.config import Data, Model, Optim, Run, Start, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
SIZES = (10, 30, 100, 300)
SOURCE = {"start.data": "fashion_mnist"}
STARTS = {"scratch": {}, "finetune": SOURCE, "frozen": {**SOURCE, "start.freeze": ("C1", "C3")}}


def arms(sizes: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{name}_{n}" for n in sizes for name in STARTS)


EXPERIMENT = Experiment(
    claim="Fine-tuning beats training from scratch, the more so the fewer the pictures",
    source="Lecture notes, section 1.8",
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
        f"{name}_{n}": {**start, "data.per_class": n}
        for n in SIZES
        for name, start in STARTS.items()
    },
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0,),
    seeds=tuple(range(8)),
    resplit=True,
    predictions=(
        Prediction(ERROR, "finetune_10", than="scratch_10"),
        Prediction(ERROR, "frozen_10", than="scratch_10"),
        Prediction(ERROR, "frozen_10", than="finetune_10"),
        Prediction(ERROR, "finetune_300", than="scratch_300"),
        Prediction(ERROR, "finetune_300", than="frozen_300"),
    ),
    caveat=("The source has seen five classes of small grey pictures, not ImageNet."),
    presets={
        "quick": {
            "base.train.steps": 300,
            "base.train.eval_every": 150,
            "base.start.steps": 1000,
            "arms": arms((10,)),
            "seeds": range(6),
        },
        "paper": {"base.train.steps": 3000, "base.start.steps": 20_000, "seeds": range(20)},
    },
)
