"""ImageNet by the papers' recipes: AlexNet, VGG, GoogLeNet, ResNet.

The notes, sections 1.5 to 1.7. Each arm has its paper's batch, rate, decay, length, initial weights
and crops. What the papers leave open, or we do otherwise:

- Three drops of the rate "when the validation error stopped improving" (Krizhevsky 2012, section 5;
  VGG, section 3.1; He 2016, section 3.4) come here at a quarter, a half and three quarters.
- VGG-16 starts from Glorot's weights, the paper's other way than those of a shallower net (section
  3.1). GoogLeNet's batch, rate and decay are those of Caffe's solver for it: the paper
  says only that the rate falls by 4 % every 8 epochs (section 6). Its photometric distortions are
  left out.
- Crops of random scale are taken out of the middle square at 256 pixels, not out of the whole
  picture at each size.
- ILSVRC-2012's training split gives 10,000 pictures for validation, and its validation split, whose
  labels everyone has, is the test split here, by one central crop; the papers' protocols are said
  beside their figures, and `launch.py evaluate RUN --crops 10`, or `dense`, is by those.

`resnet50_1e-5` has the weight decay of the notes' section 1.7.3. `resnet50_modern` is torchvision's
architecture with warm-up, cosine, label smoothing, crops of random area (Goyal et al. 2017,
arXiv:1706.02677; T. He et al. 2019, arXiv:1812.01187) and a running mean of the weights (Szegedy et
al. 2016, arXiv:1512.00567, section 8).

The pictures are the folder `imagenet` in --data-dir, or its shards (docs/imagenet.md); of any other
folder, or of TFDS: --set data.name=FOLDER, or imagenet2012. The quick preset shows the way from
JPEG to a table, at 64 pixels.
"""

from typing import Any

from jaxcnn import published
from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

TOP1 = Measure("final", "test")
TOP5 = Measure("final", "test", "error5")
VGG = {"train.epochs": 74.0}
RESNET: dict[str, Any] = {"data.scale": 480 / 256, "optim.lr": 0.1, "optim.weight_decay": 1e-4}
RESNET |= {"train.epochs": 120.0}  # 600,000 steps
GOOGLENET: dict[str, Any] = {"data.area": 0.08, "data.color": 0.0, "optim.weight_decay": 2e-4}
GOOGLENET |= {"train.batch_size": 32, "train.epochs": 250.0, "optim.factor": 0.96}
GOOGLENET |= {"optim.milestones": tuple(epoch / 250 for epoch in range(8, 250, 8))}
MODERN: dict[str, Any] = {"data.area": 0.08, "data.color": 0.0, "optim.lr": 0.1}
MODERN |= {"optim.weight_decay": 1e-4, "train.label_smoothing": 0.1, "model.zero_gamma": True}
MODERN |= {"optim.schedule": "cosine", "optim.warmup": 5 / 90, "optim.nesterov": True}
MODERN |= {"optim.ema": 0.9999}  # means over some 10,000 steps, 2 % of the training


def less(measure: Measure, arm: str, than: str, *nets: str) -> Prediction:
    """With the figures of both, under their sources' names, and the protocols of those."""
    results = [published.find(net) for net in nets]
    errors = [r.top1 if measure == TOP1 else r.top5 for r in results]
    texts = [f"{e:g} % ({r.protocol})" for e, r in zip(errors, results, strict=True)]
    sources = "; ".join(dict.fromkeys(r.source for r in results))
    return Prediction(measure, arm, than, published=" against ".join(texts), source=sources)


EXPERIMENT = Experiment(
    claim="Deeper nets have less error on ImageNet, and ResNets can be the deepest",
    source="Lecture notes, sections 1.5 to 1.7",
    base=Run(
        model=Model(name="alexnet"),
        data=Data(
            name="imagenet",
            stream=True,
            validation_examples=10_000,
            crop=224,
            flip=True,
            color=0.1,
        ),
        optim=Optim(
            lr=0.01,
            momentum=0.9,
            weight_decay=5e-4,
            schedule="step",
            milestones=(0.25, 0.5, 0.75),
        ),
        train=Train(batch_size=256, epochs=90.0),
    ),
    arms={
        # 227 pixels are what its 55x55 maps need
        "alexnet": {"data.crop": 227, "train.batch_size": 128},
        "vgg11": {"model.name": "vgg11", **VGG},
        "vgg16": {"model.name": "vgg16", "model.initializer": "glorot_uniform", **VGG},
        "googlenet": {"model.name": "googlenet", **GOOGLENET},
        "resnet18": {"model.name": "resnet18", **RESNET},
        "resnet34": {"model.name": "resnet34", **RESNET},
        "resnet50": {"model.name": "resnet50", **RESNET},
        "resnet50_1e-5": {"model.name": "resnet50", **RESNET, "optim.weight_decay": 1e-5},
        "resnet50_modern": {"model.name": "resnet50_v1.5", **MODERN},
    },
    predictions=(
        less(TOP5, "vgg16", "alexnet", "D", "1 CNN"),
        less(TOP5, "googlenet", "alexnet", "GoogLeNet", "1 CNN"),
        less(TOP1, "vgg16", "vgg11", "D", "A"),
        less(TOP1, "resnet18", "vgg11", "ResNet-18", "A"),
        less(TOP1, "resnet34", "resnet18", "ResNet-34 B", "ResNet-18"),
        less(TOP1, "resnet50", "resnet34", "ResNet-50", "ResNet-34 B"),
        Prediction(TOP1, "resnet50", than="resnet50_1e-5"),
        Prediction(TOP1, "resnet50_modern", than="resnet50"),
    ),
    seeds=(0,),
    caveat=(
        "The papers trained one net of each kind; from one seed nothing is decided, and the paper "
        "preset has three. The quick preset ends long before any of these nets has learnt much."
    ),
    presets={
        "quick": {
            "arms": ("vgg11", "resnet18", "resnet34"),
            "base.data.side": 72,
            "base.data.crop": 64,
            "base.data.validation_examples": 200,
            "base.train.batch_size": 32,
            "base.train.steps": 100,
            "base.train.eval_every": 50,
            "base.train.eval_train_examples": 200,
        },
        "paper": {"seeds": range(3)},
    },
)
