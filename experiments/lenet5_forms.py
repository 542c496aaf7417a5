"""Does the LeNet-5 that the notes teach do as well as LeCun's of 1998? MNIST.

LeCun et al. 1998, section III and Figure 9: 0.95 % test errors after 20 passes, 0.8 % with training
pictures distorted. The original here is its architecture, inputs and RBF output by a modern
equivalent of its recipe: Adam on batches with a cosine schedule in place of stochastic diagonal
Levenberg-Marquardt, the cross-entropy of the distances in place of equation 9, initial weights of
variance 1 / fan-in (the paper's, three times smaller at C5, need its second derivatives to move),
and shifts by up to a pixel for its planar affine distortions.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
FIGURE_9 = "the original: 0.95 % test error, 0.8 % with distortions, after 20 passes"

EXPERIMENT = Experiment(
    claim="The notes' LeNet-5 (ReLU, max pooling, 61,706 parameters) beats the original of 1998",
    source="Lecture notes, section 1.3",
    base=Run(
        model=Model(name="lenet5", initializer="lecun_normal"),
        data=Data(name="mnist", validation_examples=2000, shift=1),
        optim=Optim(name="adam", schedule="cosine"),
        train=Train(batch_size=32, epochs=10.0, eval_train_examples=2000),
    ),
    arms={
        "notes": {"model.activation": "relu", "model.pool": "max"},
        "original": {"model.name": "lenet5_1998", "data.pad": 2, "data.normalize": "lecun1998"},
    },
    tune={"optim.lr": (0.0003, 0.001, 0.003, 0.01)},
    tune_seeds=(0,),
    predictions=(
        Prediction(
            ERROR, "notes", than="original", published=FIGURE_9, source="LeCun 1998, Fig. 9"
        ),
    ),
    presets={
        "quick": {
            "base.train.epochs": 1.0,
            "base.data.train_examples": 20_000,
            "base.train.eval_every": 125,
            "base.train.eval_train_examples": 1000,
            "seeds": range(7),
        },
        "paper": {"base.train.epochs": 20.0, "tune_seeds": (0, 1)},
    },
)
