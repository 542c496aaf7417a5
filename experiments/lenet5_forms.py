"""Does the form of LeNet-5 that the notes teach do as well as LeCun's of 1998? MNIST, no
distortions.

LeCun et al. 1998, section III.B and Figure 9: 0.95 % test errors after 20 passes, without
distortions. The original here is its architecture, inputs, initial weights and RBF output; its
stochastic diagonal Levenberg-Marquardt steps, one example at a time, are replaced by Adam on
batches and a cosine schedule, and its loss (equation 9) by the cross-entropy of the same distances.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
FIGURE_9 = "0.95 % test error of the original, 20 passes, no distortions"

EXPERIMENT = Experiment(
    claim="The notes' LeNet-5 (ReLU, max pooling, 61,706 parameters) beats the original of 1998",
    source="Lecture notes, section 1.3",
    base=Run(
        model=Model(name="lenet5"),
        data=Data(name="mnist", validation_examples=2000),
        optim=Optim(name="adam", schedule="cosine"),
        train=Train(batch_size=128, epochs=10.0, eval_train_examples=2000),
    ),
    arms={
        "notes": {"model.activation": "relu", "model.pool": "max"},
        "original": {"model.name": "lenet5_1998", "data.pad": 2, "data.normalize": "lecun1998"},
    },
    tune={"optim.lr": (0.0003, 0.001, 0.003, 0.01)},
    tune_seeds=(0,),
    predictions=(
        Prediction(
            ERROR,
            "notes",
            than="original",
            published=FIGURE_9,
            source="LeCun 1998, Fig. 9",
        ),
    ),
    presets={
        "quick": {
            "base.train.epochs": 1.0,
            "base.data.train_examples": 20_000,
            "base.train.eval_every": 52,
            "base.train.eval_train_examples": 1000,
            "seeds": range(3),
        },
        "paper": {"base.train.epochs": 20.0, "base.train.batch_size": 32, "tune_seeds": (0, 1)},
    },
)
