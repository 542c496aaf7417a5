"""Does max pooling beat average pooling? A small AlexNet on CIFAR-10.

`max_vs_average` asks the same of LeNet-5 on clothes, which fill their pictures; here things lie
anywhere in them. Batch normalisation, which the paper's net does not have, is there so that every
seed trains. Windows overlap, as the net has them.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

STEPS = Measure("steps_to", "train", target=0.5)
ERROR = Measure("final", "test")
NONE = "none: the architectures' papers use maxima without a comparison"

EXPERIMENT = Experiment(
    claim="Max pooling beats average pooling",
    source="Lecture notes, section 1.5.2",
    base=Run(
        model=Model(name="alexnet_cifar", lrn=None, dropout=0.0, batch_norm=True),
        data=Data(name="cifar10"),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(batch_size=128, epochs=15.0, eval_every=100),
    ),
    arms={"max": {"model.pool": "max"}, "average": {"model.pool": "avg"}},
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0, 1),
    predictions=(
        Prediction(STEPS, "max", than="average", published=NONE),
        Prediction(ERROR, "max", than="average"),
    ),
    presets={
        "quick": {
            "base.model.widths": (12, 24, 24, 24, 24),
            "base.model.head": (64,),
            "base.data.resize": 16,
            "base.data.train_examples": 6000,
            "base.data.validation_examples": 2000,
            "base.train.batch_size": 32,
            "base.train.steps": 1500,
            "base.train.eval_every": 75,
            "base.train.eval_train_examples": 500,
            "seeds": range(8),
        },
        "paper": {"base.train.epochs": 90.0, "base.optim.weight_decay": 5e-4, "seeds": range(10)},
    },
)
