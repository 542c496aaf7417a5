"""Does a margin loss make better embeddings of people whom the net has not seen than softmax does?
20 people to learn from, 20 others to tell apart.

The notes, section 1.9; Deng et al. 2019, ArcFace, arXiv:1801.07698. ORL's faces (see faces.py);
each seed draws its own 20 people, all ten pictures of whom are tested on, and none trained on. The
test error is that of rank-1 identification, one picture of each enrolled; the equal error rate is
of all pairs. `launch.py faces RUN` prints a run's table, with eigenfaces and pixels beside it, and
draws the curves. No setting was chosen: the recipe is that of faces.py.
"""

from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
EER = Measure("final", "test", "eer")
MARGIN = {"train.objective": "margin", "train.radius": 16.0}

EXPERIMENT = Experiment(
    claim="A margin loss makes better embeddings of unseen people than softmax does",
    source="Lecture notes, section 1.9",
    base=Run(
        model=Model(name="resnet18", widths=(16, 32, 64, 128)),
        data=Data(name="orl_faces", validation_examples=0, unseen=20, shift=8, flip=True),
        optim=Optim(name="adam", lr=0.002, schedule="cosine", warmup=0.1),
        train=Train(batch_size=40, epochs=150.0, eval_every=250, eval_train_examples=200),
    ),
    arms={
        "softmax": {},
        "margin": {**MARGIN, "train.margin": 0.2},
        "no_margin": {**MARGIN, "train.margin": 0.0},
    },
    seeds=tuple(range(10)),
    resplit=True,
    predictions=(
        Prediction(
            EER,
            "margin",
            than="softmax",
            published="LFW, error of verification: 0.47 % by ArcFace, 0.92 % by softmax",
            source="Deng 2019, Table 2",
        ),
        Prediction(ERROR, "margin", than="softmax"),
        Prediction(EER, "margin", than="no_margin"),
    ),
    caveat=(
        "Published nets were trained on half a million pictures of 10,575 people; these on 200 "
        "pictures of 20."
    ),
    presets={
        "quick": {
            "base.train.epochs": 20.0,
            "base.train.eval_every": 100,
            "arms": ("softmax", "margin"),
            "seeds": range(4),
        },
        "paper": {"base.train.epochs": 400.0, "seeds": range(20)},
    },
)
