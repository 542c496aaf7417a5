"""Do gradients vanish through many sigmoid or tanh layers, and not through ReLU? An MLP of eight
hidden layers on MNIST.

The notes, section 1.5.1. Measured is the RMS gradient of the first layer's weights over that of the
last layer's, before training and after it, on one batch (jaxcnn/probes.py). Weights start as usual
for each: Glorot's, which were made for units like tanh, and He's for ReLU, without which the
variance of its signals halves from layer to layer. Glorot's were made to keep tanh's gradients
equal in all layers, so that arm is the claim's hardest test. The rate of each arm is chosen on
validation data from one grid.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

BEFORE = Measure("probe", "train", probe="gradient_norm", layer="ratio", at="first")
AFTER = Measure("probe", "train", probe="gradient_norm", layer="ratio")
GLOROT = "deep sigmoid nets saturate in their top hidden layer and stop to learn (in words)"
SOURCE = "Glorot & Bengio 2010, section 3.1"

EXPERIMENT = Experiment(
    claim="Gradients vanish in deep sigmoid and tanh networks, not in ReLU networks",
    source="Lecture notes, section 1.5.1",
    base=Run(
        model=Model(name="mlp", widths=(100,) * 8, initializer="glorot_uniform"),
        data=Data(name="mnist", validation_examples=2000),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine"),
        train=Train(
            batch_size=128,
            epochs=5.0,
            eval_every=100,
            eval_train_examples=2000,
            probes=("gradient_norm",),
        ),
    ),
    arms={
        "relu": {"model.activation": "relu", "model.initializer": "he_uniform"},
        "tanh": {"model.activation": "tanh"},
        "sigmoid": {"model.activation": "sigmoid"},
    },
    tune={"optim.lr": (0.003, 0.01, 0.03, 0.1)},
    tune_seeds=(0, 1),
    tune_by=Measure("mean", "validation"),
    predictions=(
        Prediction(BEFORE, "sigmoid", than="relu", published=GLOROT, source=SOURCE),
        Prediction(BEFORE, "tanh", than="relu"),
        Prediction(AFTER, "sigmoid", than="relu"),
        Prediction(AFTER, "tanh", than="relu"),
    ),
    caveat=(
        "Glorot's weights were made to keep the gradients of tanh layers equal in size, so "
        "that this arm is the claim's hardest test."
    ),
    presets={
        "quick": {
            "base.train.steps": 300,
            "base.train.eval_every": 50,
            "base.train.eval_train_examples": 1000,
            "base.data.validation_examples": 1000,
        },
        "paper": {
            "base.train.epochs": 30.0,
            "tune.optim.lr": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
            "seeds": range(10),
        },
    },
)
