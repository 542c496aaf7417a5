"""Does a net trained in bfloat16 end where the same net in float32 does? LeNet-5 on MNIST.

Convolutions and products are computed in bfloat16, whose 8 bits of precision hold two to three
digits; parameters, statistics and losses stay in float32. All else is equal: the learning rate is
not tuned, for a tuned one could hide what precision costs.

The margin is 0.2 points, about what one seed differs from another: test errors of this net have a
standard deviation over seeds of 0.15 to 0.3 points at such budgets (README: 0.27 after 10 epochs).
So the same means: moving to bfloat16 changes no more than drawing another seed. Pairs share initial
weights and batches; the 90 % interval of ten reaches 0.6 standard deviations of their differences
to either side.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

EXPERIMENT = Experiment(
    claim="Training in bfloat16 costs no accuracy",
    source="Micikevicius et al. 2018; Kalamkar et al. 2019",
    base=Run(
        model=Model(name="lenet5", activation="relu", pool="max"),
        data=Data(name="mnist", validation_examples=2000),
        optim=Optim(name="sgd", lr=0.05, momentum=0.9, schedule="cosine"),
        train=Train(batch_size=128, epochs=10.0, eval_every=50, eval_train_examples=2000),
    ),
    arms={
        "float32": {"train.precision": "float32"},
        "bfloat16": {"train.precision": "bfloat16"},
    },
    predictions=(
        Prediction(
            Measure("final", "test"),
            "bfloat16",
            than="float32",
            direction="same",
            margin=0.002,
            published="the results of float32 in as many steps, with equal hyper-parameters",
            source="Kalamkar et al. 2019",
        ),
    ),
    seeds=tuple(range(10)),
    caveat=(
        "At the quick preset's 300 steps seeds differ by more than the margin; the default is "
        "sized for it."
    ),
    presets={
        "quick": {
            "base.train.steps": 300,
            "base.train.eval_train_examples": 1000,
            "base.data.validation_examples": 1000,
            "seeds": range(5),
        },
        "paper": {"base.train.epochs": 30.0, "seeds": range(20)},
    },
)
