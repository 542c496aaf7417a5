"""Does a net recognise faces better than eigenfaces and SVMs do? 40 people, 5 pictures of each.

The notes, section 1.9. ORL's faces (Samaria & Harter 1994): ten grey pictures of 112x92 pixels of
each of 40 people. Five of each train, the other five are to be named: the share that is named
rightly is the rank-1 identification rate, one minus the test error. Each seed draws its own five.
`net` is trained by ArcFace's margin loss, `softmax` is the same by cross-entropy; `lbp` is the
texture of Ahonen et al. 2006, by the nearest picture or an SVM. No picture is
left over to choose a setting on, so nothing is tuned: the nets' recipe was set on other draws
(seeds 100 to 102) than those of the seeds here, the SVM's C and kernel width and the number of
components are the usual ones.

Data: `orl_faces.npz` in the data folder (train_images uint8 [400, 112, 92], train_labels), or
`--set data.name=DIR` of a folder DIR/train/PERSON/*.pgm.
"""

from jaxcnn.config import Data, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
NET = {
    "model.name": "resnet18",
    "model.widths": (16, 32, 64, 128),
    "data.shift": 8,
    "data.flip": True,
}
MARGIN = {"train.objective": "margin", "train.margin": 0.2, "train.radius": 16.0}

EXPERIMENT = Experiment(
    claim="A convolutional net recognises faces better than eigenfaces with an SVM",
    source="Lecture notes, section 1.9",
    base=Run(
        data=Data(name="orl_faces", validation_examples=0, test_per_class=5),
        optim=Optim(name="adam", lr=0.002, schedule="cosine", warmup=0.1),
        train=Train(batch_size=40, epochs=150.0, eval_every=250, eval_train_examples=200),
    ),
    arms={
        "net": {**NET, **MARGIN},
        "softmax": NET,
        "eigenfaces_svm": {"model.name": "svm_rbf", "model.components": 100},
        "eigenfaces": {"model.name": "knn", "model.neighbors": 1, "model.components": 100},
        "lbp_svm": {"model.name": "lbp_svm"},
        "lbp": {"model.name": "lbp"},
        "pixels_svm": {"model.name": "svm_rbf"},
        "pixels_knn": {"model.name": "knn", "model.neighbors": 1},
    },
    seeds=tuple(range(10)),
    resplit=True,
    predictions=(
        Prediction(ERROR, "net", than="eigenfaces_svm"),
        Prediction(ERROR, "net", than="softmax"),
        Prediction(ERROR, "net", than="eigenfaces"),
        Prediction(ERROR, "net", than="pixels_svm"),
        Prediction(ERROR, "net", than="pixels_knn"),
        Prediction(ERROR, "net", than="lbp_svm"),
        Prediction(ERROR, "net", than="lbp"),
    ),
    presets={
        "quick": {
            "base.train.epochs": 40.0,
            "arms": ("net", "eigenfaces_svm", "eigenfaces", "lbp_svm", "lbp")
            + ("pixels_svm", "pixels_knn"),
            "seeds": range(7),
        },
        "paper": {"base.train.epochs": 400.0},
    },
)
