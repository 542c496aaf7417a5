"""Does layer-wise training of autoencoders solve the initialisation of deep nets? MNIST.

Bengio et al. 2007, section 4, after Hinton, Osindero, Teh 2006: a deep net of sigmoid units started
from small random weights does not train; the same net trained layer by layer first, each layer as
an autoencoder on the codes of the one below, does. `scaled` and `relu` ask whether the cure was
needed: the same net from Glorot's weights, and ReLU from He's. All arms take equally many steps;
`greedy` spends half of them on the layers. Plain SGD, as then: Adam trains the random start too.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
HINTON = "784-500-500-2000-10: 1.2 % pre-trained, 1.6 % from random weights"
SOURCE = "Hinton & Salakhutdinov 2006"

EXPERIMENT = Experiment(
    claim="Greedy layer-wise autoencoder training solves the initialisation of deep networks",
    source="Lecture notes, section 1.2",
    base=Run(
        model=Model(name="autoencoder", widths=(256, 128, 64, 32), code_activation="sigmoid"),
        data=Data(name="mnist", validation_examples=2000, normalize="unit"),
        optim=Optim(name="sgd", momentum=0.9, schedule="constant"),
        train=Train(batch_size=128, epochs=20.0, eval_train_examples=2000),
    ),
    arms={
        "greedy": {"model.initializer": "normal_0.05", "train.greedy": 0.5},
        "random": {"model.initializer": "normal_0.05"},
        "scaled": {"model.initializer": "glorot_uniform"},
        "relu": {
            "model.activation": "relu",
            "model.code_activation": "relu",
            "model.initializer": "he_normal",
        },
    },
    tune={"optim.lr": (0.03, 0.1, 0.3, 1.0)},
    tune_seeds=(0,),
    predictions=(
        Prediction(ERROR, "greedy", than="random", published=HINTON, source=SOURCE),
        Prediction(ERROR, "greedy", than="scaled"),
        Prediction(ERROR, "greedy", than="relu"),
    ),
    caveat=(
        "ReLU and He's weights came after the claim, which is from 2006; it speaks of sigmoid "
        "nets from small weights."
    ),
    presets={
        "quick": {
            "base.train.epochs": 20.0,
            "base.data.train_examples": 10_000,
            "base.train.eval_train_examples": 1000,
            "seeds": range(5),
        },
        "paper": {"base.train.epochs": 100.0, "seeds": range(10)},
    },
)
