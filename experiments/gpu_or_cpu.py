"""Is training on a GPU tens of times faster, and for which nets?

The notes, section 1.5.5: AlexNet was trained on GPUs, which take a training down by tens of times.
One net of each paper takes training steps on CIFAR-10's pictures, alone on its device, by the same
program in float32: a few on the CPU, many on the GPU. Ten times is the least that could be called
tens.

A launch trains the arms of its own devices and leaves the others. On a machine with a GPU:

    python launch.py run gpu_or_cpu
    JAX_PLATFORMS=cpu python launch.py run gpu_or_cpu
"""

from typing import Any

from jaxcnn.config import Data, Optim, Run, Train
from jaxcnn.experiment import Experiment, Measure, Prediction

TIME = Measure("step_time", "train")
# Steps between the points of the curve, the first of which does not count: some seconds of each.
STEPS = {"mlp": 200, "lenet5": 100, "resnet20": 6, "alexnet_cifar": 3, "vgg16_cifar": 3}
STEPS |= {"googlenet_cifar": 3}
ON_GPU = 500


def arm(net: str, device: str) -> dict[str, Any]:
    """A net's run on a device: a curve of the start and two points more."""
    every = STEPS[net] if device == "cpu" else ON_GPU
    run = {"model.name": net, "train.device": device}
    return run | {"train.steps": 2 * every, "train.eval_every": every}


EXPERIMENT = Experiment(
    claim="A GPU trains a convolutional network tens of times faster than a CPU",
    source="Lecture notes, section 1.5.5",
    base=Run(
        data=Data(name="cifar10", train_examples=20_000, validation_examples=250),
        optim=Optim(lr=0.001),
        train=Train(batch_size=128, eval_train_examples=250),
    ),
    arms={f"{net}_{device}": arm(net, device) for net in STEPS for device in ("cpu", "gpu")},
    predictions=tuple(
        Prediction(TIME, f"{net}_gpu", than=f"{net}_cpu", published="tens of times", factor=10.0)
        for net in STEPS
    ),
    timed=True,
    caveat=(
        "The ratio is of these two devices, and it needs the runs of both: where a GPU's are "
        "missing, none was at hand yet. Nets as small as LeNet-5 leave most of a GPU idle."
    ),
    presets={
        "quick": {"base.train.batch_size": 64, "seeds": range(3)},
        "paper": {"seeds": range(10)},
    },
)
