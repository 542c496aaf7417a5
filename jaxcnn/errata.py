"""Statements of the lecture notes that their own sources contradict, and what comes out here.

Each has what the notes say, what the source says, and, where it can be computed, the number made
anew. Where nothing can be computed (a date, a recipe, an argument), `computed` is None.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from jaxcnn import published, recomputed


class Erratum(NamedTuple):
    number: int
    notes: str
    source_says: str
    computed: Callable[[], str] | None
    source: str


K, S, G, H, L = (
    *(published.KRIZHEVSKY, published.VGG, published.GOOGLENET, published.HE),
    "LeCun et al. 1998",
)

ERRATA = (
    Erratum(
        1,
        "Two stacked 3x3 convolutions see 7x7 pixels, with 18 weights where one layer has 49.",
        "Two see 5x5 (18 weights for 25). Three see 7x7 (27 for 49; one layer has 81 % more).",
        recomputed.stacks,
        f"{S}, section 2.3",
    ),
    Erratum(
        2,
        "AlexNet's errors on the ImageNet test set were 37.5 % (top-1) and 16.4 % (top-5).",
        "Two different tests: 37.5/17.0 is one net on ILSVRC-2010; 16.4 is five nets on ILSVRC-2012"
        " (top-1 38.1, validation). One net there has 40.7/18.2; the entry that won had 15.3.",
        None,
        f"{K}, Tables 1 and 2",
    ),
    Erratum(
        3,
        "AlexNet has 600 million parameters (in another place: 60 million).",
        "60 million.",
        recomputed.alexnet,
        f"{K}, section 4",
    ),
    Erratum(4, "AlexNet is of 2013.", "ILSVRC-2012 and NIPS 2012.", None, K),
    Erratum(
        5,
        "ResNet was trained with a weight decay of 1e-5.",
        "1e-4; the other figure stands on a lecture slide (cs231n).",
        None,
        f"{H}, section 3.4",
    ),
    Erratum(
        6,
        "ResNet starts from Xavier's initial weights.",
        "From those of He et al. 2015, of variance 2/n; the slide behind it wrote Xavier/2.",
        None,
        f"{H}, section 3.4",
    ),
    Erratum(
        7,
        "ResNet's learning rate was 0.1.",
        "It began at 0.1 and fell by 10 whenever the error stopped falling.",
        None,
        f"{H}, section 3.4",
    ),
    Erratum(
        8,
        "MNIST's images are binary.",
        "They are grey: NIST's black-and-white digits were smoothed when they were shrunk.",
        recomputed.grey_levels,
        "LeCun, Cortes, Burges, MNIST page",
    ),
    Erratum(
        9,
        "By 2009 ImageNet had 1000 classes and over a million images, at least 500 of each class.",
        "In 2009: 5,247 synsets, 3.2 million images. 1000 classes and 1.2 million images are the"
        " challenge's, from 2010. 500 to 1000 images are meant as an average.",
        None,
        "Deng et al. 2009",
    ),
    Erratum(
        10,
        "LeNet-5 has 61,706 parameters.",
        "60,000: C3 is partly connected, S2 and S4 have coefficients and biases (12 and 32; they"
        " sum and scale, not average), and the output layer's RBF codes are fixed.",
        recomputed.lenet,
        f"{L}, section II.B",
    ),
    Erratum(
        11,
        "LeCun et al. 1998 is on pages 1-7.",
        "Proceedings of the IEEE 86(11), pages 2278-2324.",
        None,
        L,
    ),
    Erratum(
        12,
        "AlexNet introduced max pooling and showed that it beats average pooling.",
        "It introduced overlapping windows; max pooling is older. Neither it nor VGG nor ResNet"
        " compares the two: there is no published figure to reproduce.",
        None,
        f"{K}, section 3.4",
    ),
    Erratum(
        13,
        "Overlapping pooling does well against overfitting.",
        "0.4 (top-1) and 0.3 (top-5) points; such nets were seen to overfit slightly less easily.",
        None,
        f"{K}, section 3.4",
    ),
    Erratum(
        14,
        "Dropout is applied to every layer.",
        "To the first two fully-connected layers, with p = 0.5.",
        recomputed.dropout_places,
        f"{K}, section 4.2",
    ),
    Erratum(
        15,
        "For testing, the layer's W and b are multiplied by 1 - p.",
        "Its outputs are. Scaling its own W and b comes to that only where the activation lets a"
        " factor through, as ReLU does; the next layer's b must not be scaled at all.",
        recomputed.test_scaling,
        f"{K}, section 4.2",
    ),
    Erratum(
        16,
        "Dropout prevents too fast updates and makes nets converge fast that otherwise would not.",
        "It prevents units from relying on one another, and about doubles the steps that training"
        " takes (which the notes say as well).",
        None,
        f"{K}, section 4.2",
    ),
    Erratum(
        17,
        "One of AlexNet's augmentations is to add noise.",
        "It shifts an image's colour as a whole: along the principal components of RGB, by"
        " N(0, 0.1) once an image and component. Worth more than 1 point of top-1.",
        None,
        f"{K}, section 4.1",
    ),
    Erratum(
        18,
        "Crops of 224 pixels and reflections make 2048 images of one.",
        "The paper's own number, 32 x 32 x 2; but a crop can start at 0 to 32, which is 33 places.",
        recomputed.crops,
        f"{K}, section 4.1",
    ),
    Erratum(
        19,
        "Two GPUs cut the training time by tens.",
        "No such figure: training took five to six days. Two took slightly less time than one, and"
        " had 1.7 and 1.2 points less error than a net with half the kernels.",
        None,
        f"{K}, sections 1 and 3.2",
    ),
    Erratum(
        20,
        "Hinton's 2006 paper trains autoencoders greedily, a layer at a time, the others fixed.",
        "It trains restricted Boltzmann machines and then fine-tunes all layers together. Stacks of"
        " autoencoders are Bengio et al. 2007. Fixed are the layers already trained.",
        None,
        published.HINTON,
    ),
    Erratum(
        21,
        "GoogLeNet has 5 million parameters, 12 times fewer than AlexNet.",
        "Table 1 adds up to 6.8 million. The 5 million are a later paper's (Inception-v3).",
        recomputed.googlenet,
        f"{G}, Table 1; Caffe's graph",
    ),
    Erratum(
        22,
        "GoogLeNet has 6.7 % error, ResNet 3.57 %.",
        "7 nets with 144 crops, and an ensemble of 6: one GoogLeNet with one crop has 10.07,"
        " one ResNet-152 4.49.",
        recomputed.ensembles,
        f"{G}, Table 3; {H}, Tables 4 and 5",
    ),
    Erratum(
        23,
        "A 1x1 convolution averages over channels with weights.",
        "It is any linear map of them, not normalised and of either sign, and a ReLU follows.",
        None,
        f"{G}, sections 3 and 4",
    ),
    Erratum(
        24,
        "ResNet passes features on as supervision.",
        "A shortcut adds a layer's input to its output; the loss has no further term. Such terms"
        " are GoogLeNet's side heads.",
        recomputed.side_heads,
        f"{H}, section 3.2",
    ),
    Erratum(
        25,
        "Most parameters lie in the fully-connected layers.",
        "So it is up to VGG; GoogLeNet and ResNet average over the last map instead.",
        recomputed.shares,
        f"{G}, section 5; {H}, Table 1",
    ),
    Erratum(
        26,
        "A net's cost depends on its number of kernels.",
        "On its multiply-adds, so on the size of kernels and maps too.",
        recomputed.cost,
        f"{K}; {S}, Table 1",
    ),
    Erratum(
        27,
        "Padding makes up for edge pixels that the stride leaves out.",
        "It mostly keeps the size, by p = (m - 1) / 2 at stride 1: K = floor((M + 2 p - m) / u)"
        " + 1.",
        recomputed.padding,
        f"{S}, section 2.1",
    ),
    Erratum(
        28,
        "Deeper nets are better than shallow ones.",
        "Not without shortcuts (plain-34 28.54, plain-18 27.94), nor without end (ResNet-1202 7.93,"
        " ResNet-110 6.43).",
        recomputed.plain,
        f"{H}, Tables 2 and 6",
    ),
    Erratum(
        29,
        "CNNs were first proposed in the 1990s; AlexNet's is the largest data set so far.",
        "LeCun trained one by backpropagation in 1989. The other is a statement of 2012.",
        None,
        "LeCun et al. 1989",
    ),
    Erratum(
        30,
        "ReLU trains fast because negative inputs become 0, so that not all values change.",
        "Because it does not saturate. Sparsity, or a likeness to max pooling and dropout, is the"
        " notes' own addition.",
        None,
        f"{K}, section 3.1",
    ),
)


@functools.cache
def computed(number: int) -> str | None:
    """What comes out here for an erratum; None where there is nothing to compute."""
    compute = next(e.computed for e in ERRATA if e.number == number)
    return None if compute is None else compute()
