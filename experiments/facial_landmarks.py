"""Does a deep net find the points of a face, and does augmentation help it? 68 points of strangers.

The notes, section 1.9. YouTube Faces with points (2D, 128x128 grey; here at 64x64). The error of a
face is the mean distance of its 68 points from where they are, over that of its eyes' outer corners
(the "loss" here); a face fails where that is above 0.1 (the "error"). Validation is of other people
than training; whether test is, the data file says: splits are to be made by person, for pictures of
one are much alike.

Data: `facial_keypoints.npz` in the data folder: train_images and test_images uint8 [N, 128, 128],
train_points and test_points float32 [N, 68, 2], train_groups [N], a number for each person.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

NME = Measure("final", "test", "loss")
AUGMENTED = {"data.shift": 6, "data.flip": True}

EXPERIMENT = Experiment(
    claim="A deep net finds facial landmarks",
    source="Lecture notes, section 1.9",
    base=Run(
        model=Model(name="vgg16_cifar", widths=(16, 32, 64, 64), head=(256,)),
        data=Data(name="facial_keypoints", validation_examples=400, resize=64),
        optim=Optim(name="adam", schedule="cosine", warmup=0.05),
        train=Train(batch_size=64, epochs=60.0, objective="landmarks", eval_train_examples=500),
    ),
    arms={
        "vgg": AUGMENTED,
        "plain_data": {},
        "lenet5": {
            **AUGMENTED,
            "model.name": "lenet5",
            "model.widths": "paper",
            "model.head": "paper",
            "model.activation": "relu",
            "model.pool": "max",
        },
    },
    tune={"optim.lr": (0.0005, 0.001, 0.002, 0.004)},
    tune_seeds=(0,),
    tune_by=Measure("final", "validation", "loss"),
    predictions=(
        Prediction(NME, "vgg", than="lenet5"),
        Prediction(NME, "vgg", than="plain_data"),
    ),
    presets={
        "quick": {
            "base.data.train_examples": 1000,
            "base.train.epochs": 12.0,
            "base.train.eval_every": 60,
            "arms": ("vgg", "lenet5"),
            "tune_seeds": (0,),
            "seeds": range(3),
        },
        "paper": {"base.train.epochs": 200.0},
    },
)
