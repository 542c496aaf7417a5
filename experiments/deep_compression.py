"""Can a net be made much smaller at hardly any cost? LeNet-5 on MNIST, pruned and quantised.

The notes, section 1.9: network compression lowers the complexity and hardly the accuracy. Han et
al. 2016 (Deep Compression) prune by magnitude, let the weights that are left share few values that
are trained on, and Huffman-code both. Here all of it happens inside one training of the same length
for every arm, so that the dense net has no fewer steps than the others; the size is that of the
parameters in a file, tables of the codes included. 61,706 parameters, where Caffe's LeNet-5 has
431,000.
"""

from jaxcnn.config import Compress, Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

ERROR = Measure("final", "test")
SIZE = Measure("size", "test")
HAN = "39x smaller (Caffe's LeNet-5, 431,000 parameters), 0.80 % error before, 0.74 % after"
SOURCE = "Han 2016, Table 1"

EXPERIMENT = Experiment(
    claim="A compressed net has much lower complexity and hardly lower accuracy",
    source="Lecture notes, section 1.9",
    base=Run(
        model=Model(name="lenet5", activation="relu", pool="max", initializer="he_normal"),
        data=Data(name="mnist", validation_examples=2000, shift=1),
        optim=Optim(name="adam", schedule="cosine"),
        train=Train(batch_size=128, epochs=15.0, eval_train_examples=2000),
        compress=Compress(scope="net", prune_from=0.2, prune_until=0.5, share_from=0.6),
    ),
    arms={
        "dense": {},
        "pruned_90": {"compress.sparsity": 0.9},
        "pruned_95": {"compress.sparsity": 0.95},
        "5_bits": {"compress.bits": 5},
        "3_bits": {"compress.bits": 3},
        "deep": {"compress.sparsity": 0.9, "compress.bits": 5},
    },
    tune={"optim.lr": (0.001, 0.002, 0.004, 0.008)},
    tune_seeds=(0,),
    seeds=tuple(range(10)),
    predictions=(
        Prediction(SIZE, "deep", than="dense", factor=30.0, published=HAN, source=SOURCE),
        Prediction(
            ERROR,
            "deep",
            than="dense",
            direction="same",
            margin=0.001,
            published=HAN,
            source=SOURCE,
        ),
        Prediction(ERROR, "5_bits", than="dense", direction="same", margin=0.001),
        Prediction(ERROR, "pruned_90", than="dense", direction="same", margin=0.001),
        Prediction(ERROR, "pruned_95", than="pruned_90", direction="greater"),
        Prediction(ERROR, "3_bits", than="5_bits", direction="greater"),
    ),
    caveat=(
        "The quick preset ends after 234 steps, in the second half of which a tenth of the weights "
        "is left: the dense net is still learning, and the other has less to learn with."
    ),
    presets={
        "quick": {
            "base.data.train_examples": 10_000,
            "base.train.epochs": 3.0,
            "base.train.eval_train_examples": 1000,
            "arms": ("dense", "deep"),
            "seeds": range(5),
        },
        "paper": {"base.train.epochs": 60.0, "seeds": range(20)},
    },
)
