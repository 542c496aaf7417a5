"""Can a net be made much smaller at hardly any cost? LeNet-5 on MNIST, pruned and quantised.

The notes, section 1.9: network compression lowers the complexity and hardly the accuracy. Han et
al. 2016 (Deep Compression) prune by magnitude, let the weights that are left share few values that
are trained on, and Huffman-code both; the size is that of the parameters in a file, tables of the
codes included. 61,706 parameters, where Caffe's LeNet-5 has 431,000.

`deep` does it as they do: it starts from the dense net and is trained once more, twice as long,
while weights go (AlexNet's retraining took 173 hours after 75: Han et al. 2015, section 4.2).
`taught` also has the dense net's classes for targets (Hinton et al. 2015). In `within` and the arms
of one form alone all happens inside one training of the dense net's length, so that it has no fewer
steps than they.
"""

from jaxcnn.config import Compress, Data, Model, Optim, Run, Start, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
SIZE = Measure("size", "test")
HAN = "39x smaller (Caffe's LeNet-5, 431,000 parameters), 0.80 % error before, 0.74 % after"
SOURCE = "Han 2016, Table 1"
BOTH = {"compress.sparsity": 0.895, "compress.bits": 4}
AGAIN = {**BOTH, "start.data": "mnist", "compress.prune_from": 0.0, "train.epochs": 60.0}

EXPERIMENT = Experiment(
    claim="A compressed net has much lower complexity and hardly lower accuracy",
    source="Lecture notes, section 1.9",
    base=Run(
        model=Model(name="lenet5", activation="relu", pool="max", initializer="he_normal"),
        data=Data(name="mnist", validation_examples=5000, shift=1),
        optim=Optim(name="adam", schedule="cosine"),
        train=Train(batch_size=128, epochs=30.0, eval_train_examples=2000),
        compress=Compress(scope="net", prune_from=0.1, prune_until=0.4, share_from=0.8),
        start=Start(epochs=30.0, lr=0.002, layers=("*",)),
    ),
    arms={
        "dense": {},
        "deep": AGAIN,
        "taught": {**AGAIN, "compress.distill": 0.9},
        "within": BOTH,
        "pruned_90": {"compress.sparsity": 0.9},
        "pruned_95": {"compress.sparsity": 0.95},
        "5_bits": {"compress.bits": 5},
        "3_bits": {"compress.bits": 3},
    },
    tune={"optim.lr": (0.001, 0.002, 0.004, 0.008)},
    tune_seeds=(0,),
    seeds=tuple(range(5)),
    predictions=(
        *(
            prediction
            for arm in ("deep", "taught", "within")
            for prediction in (
                Prediction(SIZE, arm, than="dense", factor=30.0, published=HAN, source=SOURCE),
                Prediction(
                    *(ERROR, arm, "dense", "same"), margin=0.001, published=HAN, source=SOURCE
                ),
            )
        ),
        Prediction(ERROR, "taught", than="deep"),
        Prediction(ERROR, "deep", than="within"),
        Prediction(ERROR, "5_bits", than="dense", direction="same", margin=0.001),
        Prediction(ERROR, "pruned_90", than="dense", direction="same", margin=0.001),
        Prediction(ERROR, "pruned_95", than="pruned_90", direction="greater"),
        Prediction(ERROR, "3_bits", than="5_bits", direction="greater"),
    ),
    caveat=(
        "Caffe's LeNet-5 has seven times as many parameters to leave out. The quick preset ends"
        " after 234 steps, in the second half of which a tenth of the weights is left: the dense"
        " net is still learning, and the others have less to learn with."
    ),
    presets={
        "quick": {
            "base.data.train_examples": 10_000,
            "base.train.epochs": 3.0,
            "base.train.eval_train_examples": 1000,
            "arms": ("dense", "within"),
        },
        # The way that loses least; paper has them all.
        "default": {"arms": ("dense", "taught")},
        "paper": {"seeds": range(20)},
    },
)
