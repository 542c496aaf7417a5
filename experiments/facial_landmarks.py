"""Does a deep net find the points of a face, and are they better found on maps than by numbers? 68
points, of strangers and of people it has seen.

The notes, section 1.9. YouTube Faces with points (2D, grey, 128x128; here at 64x64, and 56x56 of
those, in training any, else the middle; the paper preset has 112x112 of 128x128). The error of a
face is the mean distance of its 68 points from where they are, over that of its eyes' outer corners
(the "loss" here); a face fails where that is above 0.1 (the "error"). `vgg` and `lenet5` say all
coordinates on 136 fully-connected outputs; `heatmaps`, the convolutions of `vgg`, has a map for
each point and takes its centre of mass. Validation is of other people than training, and so is
test; but for the arms that end in `_given`, which have the split that comes with the data: all of
its people are on both sides, and none is kept for validation. Nothing is tuned here: learning rates
of 0.002 to 0.012 (heatmaps) and 0.001 to 0.005, and heads of none and of 256 hidden units (vgg),
were compared on the validation people at seed 7, 600 steps and 32 pixels; VGG-11 has less than half
of VGG-16's multiplications.

Data: `facial_keypoints.npz` in the data folder: train_images and test_images uint8 [N, S, S], S 64
or 128 (which the paper preset needs), train_points and test_points float32 [N, 68, 2], train_groups
[N], a number for each person, none of whom is in test; and `facial_keypoints_given.npz`, the same
of the given split.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

NME = Measure("final", "test", "loss")
NUMBERS = {"model.head": (), "model.dropout": 0.0, "optim.lr": 0.004}
MAPS = {"model.heatmaps": 3, "optim.lr": 0.006}
LENET5 = {"model.name": "lenet5", "model.widths": "paper", "model.batch_norm": "paper"}
LENET5 |= {"model.activation": "relu", "model.pool": "max", "optim.lr": 0.002}
GIVEN = {"data.name": "facial_keypoints_given", "data.validation_examples": 0}
PLAIN = {"data.crop": None, "data.flip": False, "data.rotate": 0.0, "data.zoom": 1.0}

EXPERIMENT = Experiment(
    claim="A deep net finds facial landmarks",
    source="Lecture notes, section 1.9",
    base=Run(
        model=Model(name="vgg11_cifar", widths=(32, 64, 128, 128)),
        data=Data(
            name="facial_keypoints",
            validation_examples=400,
            resize=64,
            crop=56,
            flip=True,
            rotate=15.0,
            zoom=1.15,
        ),
        optim=Optim(name="adam", schedule="cosine", warmup=0.05),
        train=Train(
            batch_size=32,
            steps=3500,
            eval_every=500,
            objective="landmarks",
            eval_train_examples=500,
        ),
    ),
    arms={
        "heatmaps": MAPS,
        "vgg": NUMBERS,
        "heatmaps_given": {**MAPS, **GIVEN},
        "vgg_given": {**NUMBERS, **GIVEN},
        "plain_data": {**NUMBERS, **PLAIN},
        "heatmaps_plain_data": {**MAPS, **PLAIN},
        "lenet5": LENET5,
    },
    seeds=(0, 1, 2),
    predictions=(
        Prediction(NME, "heatmaps", than="lenet5"),
        Prediction(NME, "heatmaps", than="vgg"),
        Prediction(NME, "vgg", than="lenet5"),
        Prediction(NME, "vgg", than="plain_data"),
        Prediction(NME, "heatmaps", than="heatmaps_plain_data"),
        Prediction(NME, "heatmaps_given", than="heatmaps"),
        Prediction(NME, "vgg_given", than="vgg"),
    ),
    presets={
        "quick": {  # too short for much augmentation
            "base.model.widths": (16, 32, 64, 64),
            "base.data.resize": 32,
            "base.data.crop": 28,
            "base.data.rotate": 0.0,
            "base.data.zoom": 1.0,
            "base.train.steps": 200,
            "base.train.eval_every": 100,
            "arms": ("heatmaps", "vgg"),
        },
        "default": {"arms": ("heatmaps", "heatmaps_given", "lenet5")},
        "paper": {
            "base.model.name": "vgg16_cifar",
            "base.data.resize": 128,
            "base.data.crop": 112,
            "base.data.rotate": 20.0,
            "base.data.zoom": 1.2,
            "base.train.steps": 8000,
            "base.train.eval_every": 1000,
            "seeds": range(8),
        },
    },
)
