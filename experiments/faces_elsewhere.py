"""Does a face net that was trained on other people need but few pictures of new ones? From faces on
YouTube to ORL's: 1 or 3 pictures of each of 40 people.

The notes, section 1.9: a net of one set of faces, tuned again to another one (theirs is of Asian
faces). The source is trained on 347 people of video frames, by the margin loss as in faces.py, at
the same seed; `retuned` starts from all its layers but the last, `frozen` trains a last layer
alone. Each seed draws its own pictures; five others of each person are to be named.

Data, beside `orl_faces.npz` (see faces.py): `youtube_faces.npz`, of the same form and size
(train_images uint8 [N, 112, 92], train_labels by person, and test_...). Ours are the 4,232 frames
of the YouTube Faces keypoint set, cut out by the box of their points (docs/faces.md has how).
"""

from typing import Any

from jaxcnn.config import Data, Optim, Run, Start, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
SIZES = (1, 3)
NET: dict[str, Any] = {"model.name": "resnet18", "model.widths": (16, 32, 64, 128)}
NET |= {"data.shift": 8, "data.flip": True}
NET |= {"train.objective": "margin", "train.margin": 0.2, "train.radius": 16.0}
SOURCE = {"start.data": "youtube_faces"}
ARMS: dict[str, dict[str, Any]] = {
    "scratch": NET,
    "retuned": {**NET, **SOURCE, "start.rate": 0.3},
    "frozen": {**NET, **SOURCE, "start.freeze": ("conv*",)},
    "eigenfaces": {"model.name": "knn", "model.neighbors": 1, "model.components": 30},
}

EXPERIMENT = Experiment(
    claim="A face net trained on other people needs few pictures of new ones",
    source="Lecture notes, section 1.9",
    base=Run(
        data=Data(name="orl_faces", validation_examples=0, test_per_class=5, per_class=1),
        optim=Optim(name="adam", lr=0.002, schedule="cosine", warmup=0.1),
        train=Train(batch_size=40, steps=300, eval_every=150, eval_train_examples=40),
        start=Start(steps=2000),
    ),
    arms={
        f"{name}_{n}": {**changes, "data.per_class": n}
        for n in SIZES
        for name, changes in ARMS.items()
    },
    seeds=tuple(range(8)),
    resplit=True,
    predictions=(
        Prediction(ERROR, "retuned_1", than="scratch_1"),
        Prediction(ERROR, "retuned_1", than="frozen_1"),
        Prediction(ERROR, "retuned_1", than="eigenfaces_1"),
        Prediction(ERROR, "retuned_3", than="scratch_3"),
        Prediction(ERROR, "retuned_1", than="scratch_3"),
    ),
    caveat=(
        "The source has seen 347 people in one film each; nets in use have seen ten thousand "
        "people and more."
    ),
    presets={
        "quick": {
            "base.train.steps": 60,
            "base.train.eval_every": 60,
            "base.start.steps": 150,
            "arms": ("scratch_1", "retuned_1", "eigenfaces_1"),
            "seeds": range(2),
        },
        "paper": {"base.train.steps": 1000, "base.start.steps": 10_000, "seeds": range(20)},
    },
)
