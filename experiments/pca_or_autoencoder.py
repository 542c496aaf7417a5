"""Does a deep autoencoder with a code of 30 numbers beat 30 principal components? MNIST.

Hinton & Salakhutdinov 2006: 784-1000-500-250-30, squared error of a picture with pixels in 0..1.
They pre-train by RBMs; here each layer is first an autoencoder of its own (Bengio et al. 2007), for
half of the steps, or training starts from Glorot's weights. Principal components need no steps and
no choice, get the same pictures, and so are the same for every seed. Quick is the same net for 300
steps, in which no autoencoder is done: it says only how far those lead.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

LOSS = Measure("final", "test", "loss")
HINTON = "3.00 against 13.87 (logistic components: 8.01), 60,000 training pictures"
SOURCE = "Hinton & Salakhutdinov 2006, Fig. 2 and its text"

EXPERIMENT = Experiment(
    claim="Deep autoencoders reduce dimensionality better than principal components",
    source="Lecture notes, section 1.2",
    base=Run(
        model=Model(name="autoencoder"),
        data=Data(name="mnist", validation_examples=2000, normalize="unit"),
        optim=Optim(name="adam", schedule="cosine"),
        train=Train(
            batch_size=128, epochs=20.0, eval_train_examples=2000, objective="reconstruction"
        ),
    ),
    arms={
        "pca": {"model.name": "pca", "model.components": 30},
        "greedy": {"train.greedy": 0.5},
        "scaled": {},
    },
    tune={"optim.lr": (0.0003, 0.001, 0.003, 0.01)},
    tune_seeds=(0,),
    tune_by=Measure("final", "validation", "loss"),
    predictions=(
        Prediction(LOSS, "greedy", than="pca", published=HINTON, source=SOURCE),
        Prediction(LOSS, "scaled", than="pca"),
        Prediction(LOSS, "greedy", than="scaled"),
    ),
    caveat=(
        "The published autoencoder was pre-trained; from random weights, Glorot's too, the "
        "quick preset's 2,500 steps do not suffice."
    ),
    presets={
        "quick": {
            "base.train.batch_size": 64,
            "base.train.steps": 2500,
            "base.train.eval_every": 500,
            "base.train.eval_train_examples": 1000,
            "base.data.train_examples": 20_000,
            "base.data.validation_examples": 1000,
            "seeds": range(3),
        },
        "paper": {"base.train.epochs": 200.0, "tune_seeds": (0, 1)},
    },
)
