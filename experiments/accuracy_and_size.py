"""How much accuracy does each form of compression cost, and how small does it make LeNet-5? MNIST.

The notes, section 1.9: network compression lowers the complexity and hardly the accuracy. Pruned
are nine of ten weights: the smallest of each layer or of the net, gradually or at once (Zhu &
Gupta 2017). `int8` computes with 8-bit integers, in the last quarter of the training or, `_after`,
not before its end (Jacob et al. 2018). `low_rank` starts from the dense net, its two hidden
fully-connected layers by singular value decomposition products of two of rank 16 (Denton et al.
2014); `low_rank_scratch` is the same net without that start. `small` has half of the maps and a
quarter of the other units, and `small_taught` also the dense net's classes for targets (Hinton et
al. 2015). All take equally many steps. deep_compression has pruning and shared values together.
"""

from jaxcnn.config import Compress, Data, Model, Optim, Run, Start, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
SIZE = Measure("size", "test")
HINTON = "146 errors became 74, the teacher's 67, of 10,000 (two layers of 800 units)"
JACOB = "ResNet-50 on ImageNet: 74.9 % of pictures right, 76.4 % in float32"
PRUNED = {"compress.sparsity": 0.9}
DENSE = {"start.data": "mnist"}
SMALL = {"model.widths": (3, 8), "model.head": (30, 21)}

EXPERIMENT = Experiment(
    claim="Each form of compression makes a net several times smaller at hardly any accuracy",
    source="Lecture notes, section 1.9",
    base=Run(
        model=Model(name="lenet5", activation="relu", pool="max", initializer="he_normal"),
        data=Data(name="mnist", validation_examples=5000, shift=1),
        optim=Optim(name="adam", lr=0.002, schedule="cosine"),
        train=Train(batch_size=128, epochs=15.0, eval_train_examples=2000),
        compress=Compress(scope="net", prune_from=0.1, prune_until=0.5, share_from=0.8),
        start=Start(epochs=15.0, lr=0.002, layers=("*",)),
    ),
    arms={
        "dense": {},
        "pruned": PRUNED,
        "pruned_by_layer": {**PRUNED, "compress.scope": "layer"},
        "pruned_at_once": {**PRUNED, "compress.prune_from": 0.5},
        "shared": {"compress.bits": 4},
        "int8": {"compress.int8": True},
        "int8_after": {"compress.int8": True, "compress.int8_from": 1.0},
        "low_rank": {**DENSE, "compress.rank": 16},
        "low_rank_scratch": {"compress.rank": 16},
        "small": SMALL,
        "small_taught": {**SMALL, **DENSE, "start.layers": (), "compress.distill": 0.9},
    },
    tune={"optim.lr": (0.001, 0.002, 0.004, 0.008)},
    tune_seeds=(0, 1),
    seeds=tuple(range(10)),
    predictions=(
        Prediction(ERROR, "pruned", than="pruned_by_layer"),
        Prediction(ERROR, "pruned", than="pruned_at_once"),
        Prediction(ERROR, "shared", than="dense", direction="same", margin=0.001),
        # Not 4: biases and the scales are float32.
        Prediction(SIZE, "int8_after", than="dense", factor=3.75),
        Prediction(ERROR, "int8_after", than="dense", direction="same", margin=0.001),
        Prediction(
            *(ERROR, "int8", "dense", "same"),
            margin=0.001,
            published=JACOB,
            source="Jacob 2018, Table 4.1",
        ),
        Prediction(ERROR, "low_rank", than="dense", direction="same", margin=0.001),
        Prediction(ERROR, "low_rank", than="low_rank_scratch"),
        Prediction(
            *(ERROR, "small_taught", "small"), published=HINTON, source="Hinton 2015, section 3"
        ),
    ),
    caveat=(
        "What starts from the dense net has seen twice as many steps in all, which counts for most"
        " of its accuracy in the quick preset, of 200 steps."
    ),
    presets={
        "quick": {
            "base.data.train_examples": 10_000,
            "base.data.validation_examples": 2000,
            "base.train.steps": 200,
            "base.train.eval_every": 100,
            "base.train.eval_train_examples": 1000,
            "base.start.steps": 200,
            "arms": ("dense", "int8_after", "low_rank", "small", "small_taught"),
            "tune.optim.lr": (0.002,),
            "seeds": range(4),
        },
        "paper": {"base.train.epochs": 60.0, "base.start.epochs": 60.0, "seeds": range(20)},
    },
)
