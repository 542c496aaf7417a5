"""Every model against its PyTorch twin, and each mistake that porting weights or a training rule
invites. Needs PyTorch (extra `parity`).
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra parity: PyTorch")

import parity_table as parity  # noqa: E402
import torch_nets as twins  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from jaxcnn import kernels, models, ops, step, weights  # noqa: E402
from jaxcnn.config import Run, override  # noqa: E402
from jaxcnn.nets import Problem  # noqa: E402

# Compiling a gradient takes three times a forward pass's: here of one net of each kind, in
# parity_table.py of all.
LOGITS_ALONE = (
    *("vgg11", "vgg13", "vgg16", "vgg19_bn", "googlenet, training", "googlenet_bn", "resnet50"),
    *("resnet101", "resnet152_v1.5", "resnet50_keras, old names", "plain18", "plain34", "resnet56"),
)
rng = np.random.default_rng(0)


def nchw(x: Any) -> Any:
    return torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())


def nhwc(x: Any) -> np.ndarray:
    return x.detach().numpy().transpose(0, 2, 3, 1)


# The deepest, beside which another of their kind stays.
SLOW = ("googlenet_bn, training", "resnet101", "resnet101_v1.5", "resnet152", "resnet152_v1.5")
SLOW += ("resnet34", "resnet50_v1.5", "vgg19_bn")
CASES = [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in parity.CASES]


@pytest.mark.parametrize("name", CASES)
def test_same_weights_same_answers(name: str, tmp_path: Path) -> None:
    found = parity.compare(parity.CASES[name], tmp_path, gradients=name not in LOGITS_ALONE)
    assert found.logits < 1e-4
    if found.dtype:
        assert max(found.picture, found.kernel) < 1e-3


# Layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("window", "stride", "padding", "groups"),
    [(7, 2, 3, 1), (3, 2, 1, 1), (1, 2, 0, 1), (11, 4, 2, 1), (5, 2, 0, 1), (5, 1, 2, 2)],
)
def test_convolution_pads_as_pytorch(
    window: int, stride: int, padding: int, groups: int, fast: bool
) -> None:
    """'SAME' would put less before an even map than behind it: other windows, equal shapes."""
    x = rng.standard_normal((2, 16, 14, 4), np.float32)
    conv = ops.Conv(6, window, padding, stride=stride, groups=groups)
    variables = conv.init(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["kernel"])
    theirs = F.conv2d(
        nchw(x),
        torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()),
        None,
        stride,
        padding,
        1,
        groups,
    )
    if fast:
        ours = conv.apply(variables, x)
    else:
        with kernels.plain():
            ours = conv.apply(variables, x)
    assert parity.error(ours, nhwc(theirs)) < 1e-5
    if (window, stride) == (3, 2):
        assert parity.error(kernels.conv(x, kernel, stride=2, padding="SAME"), nhwc(theirs)) > 0.1


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("window", [2, 3])
def test_pooling_rounds_and_counts_as_pytorch(
    kind: str, padding: int, ceil: bool, window: int
) -> None:
    """Sizes from 5 to 9, at stride 2 and 1: no window starts in the padding behind, and padding
    counts neither for the largest nor for the mean.
    """
    for size in range(5, 10):
        x = rng.standard_normal((1, size, size, 2), np.float32) - 3  # padded zeros would win
        for stride in (1, 2):
            ours = ops.Pool(kind, window, stride, padding=padding, ceil=ceil).apply({}, x)
            where = (nchw(x), window, stride, padding)
            if kind == "max":
                theirs = F.max_pool2d(*where, ceil_mode=ceil)
            else:
                theirs = F.avg_pool2d(*where, ceil_mode=ceil, count_include_pad=False)
                counted = F.avg_pool2d(*where, ceil_mode=ceil, count_include_pad=True)
                assert padding == 0 or parity.error(ours, nhwc(counted)) > 0.1
            assert parity.error(ours, nhwc(theirs)) < 1e-6


def test_keras_zeros_before_the_first_pooling_change_nothing_behind_a_relu() -> None:
    x = np.maximum(rng.standard_normal((1, 8, 8, 2), np.float32), 0)
    x[:, :2, :2] = 0  # under the first window
    ours = ops.Pool("max", 3, 2, padding=1).apply({}, x)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    np.testing.assert_array_equal(ours, ops.Pool("max", 3, 2).apply({}, padded))
    assert (np.asarray(ours) == 0).any()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2)])
def test_of_tied_maxima_the_first_takes_the_gradient(window: int, stride: int, fast: bool) -> None:
    x = rng.integers(0, 2, (2, 8, 8, 3)).astype(np.float32)  # almost every window has a tie
    g = rng.standard_normal(ops.Pool("max", window, stride).apply({}, x).shape).astype(np.float32)

    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(ops.Pool("max", window, stride).apply({}, x) * g)

    if fast:
        ours = jax.grad(f)(x)
    else:
        with kernels.plain():
            ours = jax.grad(f)(x)
    picture = nchw(x).requires_grad_()
    (F.max_pool2d(picture, window, stride) * nchw(g)).sum().backward()
    assert parity.error(ours, nhwc(picture.grad)) < 1e-6


def test_lrn_multiplies_alpha_by_n_of_pytorch() -> None:
    x = 20 * rng.standard_normal((1, 4, 4, 16), np.float32)
    paper = ops.LRNS["krizhevsky2012"](x)

    def theirs(alpha: float) -> np.ndarray:
        return nhwc(nn.LocalResponseNorm(5, alpha=alpha, beta=0.75, k=2.0)(nchw(x)))

    assert parity.error(paper, theirs(5 * 1e-4)) < 1e-6
    assert parity.error(paper, theirs(1e-4)) > 1e-2
    caffe = nhwc(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)(nchw(x)))
    assert parity.error(ops.LRNS["caffe"](x), caffe) < 1e-6


def test_batch_statistics_momentum_and_variance() -> None:
    """Momentum 0.9 here is 0.1 there; their running variance is n / (n - 1) of ours."""
    x = 2 + 3 * rng.standard_normal((4, 2, 3, 5), np.float32)
    n = 4 * 2 * 3
    ours = ops.BatchNorm()
    variables = ours.init(jax.random.key(0), x, train=False)
    y, updates = ours.apply(variables, x, train=True, mutable=["batch_stats"])
    net = nn.BatchNorm2d(5).train()
    theirs = net(nchw(x))
    assert parity.error(y, nhwc(theirs)) < 1e-5  # both divide the batch by its own n
    stats = updates["batch_stats"]
    assert parity.error(stats["mean"], net.running_mean) < 1e-5
    unbiased = 0.9 + (stats["var"] - 0.9) * n / (n - 1)
    assert parity.error(unbiased, net.running_var) < 1e-5
    assert parity.error(stats["var"], net.running_var) > 1e-2


# Weights ------------------------------------------------------------------------------------------


def logits(model: Any, variables: Any, x: np.ndarray) -> Any:
    return jax.jit(lambda x: model.apply(variables, x, train=False)[0])(x)


def test_maps_come_first_in_a_flattened_picture_there_and_last_here(tmp_path: Path) -> None:
    """The first fully-connected kernel by itself: reshaped without a permutation it is wrong."""
    net = twins.randomised(twins.LeNet())
    case = parity.CASES["lenet5"]
    model, ours = parity.variables(case, net, tmp_path)
    x = rng.standard_normal((2, 28, 28, 1), np.float32)
    theirs = net(nchw(x)).detach()
    assert parity.error(logits(model, ours, x), theirs) < 1e-5
    forgotten = {"kernel": jnp.asarray(net.C5.weight.detach().numpy().T)}
    wrong = {"params": {**ours["params"], "C5": {**ours["params"]["C5"], **forgotten}}}
    assert parity.error(logits(model, wrong, x), theirs) > 1e-2


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("resnet20, zeros at both", {"zeros_at": "end"}),
        ("resnet20, zeros at end", {"zeros_at": "both"}),
        ("resnet20, zeros at both", {"bn_epsilon": 1e-2}),
        ("resnet50_keras, old names", {"bn_epsilon": 1e-5}),
        ("resnet50", {"stride_at": "3x3"}),
    ],
)
def test_fields_that_no_shape_shows_do_matter(
    name: str, change: dict[str, Any], tmp_path: Path
) -> None:
    """`weights.load` refuses these; here one sees why."""
    case = parity.CASES[name]
    net = twins.randomised(case.twin())
    model, ours = parity.variables(case, net, tmp_path)
    x = rng.standard_normal((1, *case.image), np.float32)
    theirs = net(nchw(x)).detach()
    assert parity.error(logits(model.clone(**change), ours, x), theirs) > 1e-3


def test_pytorch_takes_what_is_saved_under_its_names(tmp_path: Path) -> None:
    """load_state_dict is strict, and our logits come out: fully-connected layers permuted back."""
    fields = {"classes": 7, "head": (16, 12)}
    model = models.create_model("vgg11_bn", **fields)
    x = rng.standard_normal((1, 64, 64, 3), np.float32)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    ours = jax.tree.map(lambda a: rng.uniform(0.01, 0.02, a.shape).astype(np.float32), like)
    net = twins.vgg(11, True, (16, 12), 7, 2).eval()
    weights.save(tmp_path / "a.pth", ours, "torchvision", model=model)
    net.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True))
    assert parity.error(logits(model, ours, x), net(nchw(x)).detach()) < 1e-4


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "half"])
def test_pth_as_training_scripts_leave_it(wrapped: str, tmp_path: Path) -> None:
    net = twins.randomised(parity.CASES["resnet20, zeros at both"].twin())
    state = net.state_dict()
    path = tmp_path / "resnet20.th"
    if wrapped == "state_dict":
        parallel = {f"module.{name}": t for name, t in state.items()}
        torch.save({"state_dict": parallel, "best_prec1": 91.7}, path)
    elif wrapped == "half":
        torch.save(
            {n: t.bfloat16() if t.is_floating_point() else t for n, t in state.items()}, path
        )
    else:
        torch.save(state, path)
    model = models.create_model("resnet20", zeros_at="both")
    params = weights.load(path, model).variables["params"]
    expected = state["linear.weight"].numpy().T
    assert params["fc"]["kernel"].dtype == jnp.float32
    np.testing.assert_allclose(
        params["fc"]["kernel"], expected, rtol=1e-2 if wrapped == "half" else 0
    )


@pytest.mark.skipif(not parity.CIFAR_WEIGHTS.is_file(), reason=f"needs {parity.CIFAR_WEIGHTS}")
def test_a_real_cifar_resnet_answers_as_in_pytorch() -> None:
    """On 500 test pictures; parity_table.py counts all 10,000: 827 wrong, the published 8.27 %."""
    images, labels = (a[:500] for a in parity.cifar10_test())
    ours, theirs = parity.cifar_logits(images)
    assert parity.error(ours, theirs) < 1e-4
    assert (ours.argmax(-1) != labels).sum() == (theirs.argmax(-1) != labels).sum()
    assert 0.05 < (ours.argmax(-1) != labels).mean() < 0.12


# Training -----------------------------------------------------------------------------------------

LR, MOMENTUM, DECAY, STEPS, DROP = 0.1, 0.9, 0.01, 20, 10
CHANGES = {
    "optim.lr": LR,
    "optim.momentum": MOMENTUM,
    "optim.weight_decay": DECAY,
    "optim.schedule": "step",
    "optim.milestones": (DROP / STEPS,),
    "data.normalize": "unit",
    "train.batch_size": 16,
}
NET = {"model.name": "mlp", "model.widths": (24, 16), "model.activation": "relu"}


@pytest.mark.slow
def test_a_trajectory_of_sgd_is_pytorch_s_through_a_drop_of_the_rate(tmp_path: Path) -> None:
    """Coupled decay of every tensor, biases and normalisations too; the rate outside the momentum.
    With the rate inside it, as the papers have it, the weights are the same up to the drop alone.
    """
    run = override(Run(), NET | {"model.batch_norm": True} | CHANGES)
    problem = Problem((28, 28, 1), 10, train_examples=16, steps=STEPS)
    values = step.numbers(run)
    state = step.init_state(run, problem, values)
    model = models.from_config(run.model, 10)
    start = {"params": state.params, "batch_stats": state.batch_stats}
    weights.save(tmp_path / "start.pth", start, "torchvision", model=model)
    nets = {}
    for where in ("outside", "inside", "no bias decay"):
        nets[where] = net = twins.MLP((784, 24, 16, 10), torch.relu, True).train()
        net.load_state_dict(torch.load(tmp_path / "start.pth", weights_only=True))
    optimisers = {}
    for where, net in nets.items():
        groups = [
            {"params": [p], "weight_decay": DECAY if p.ndim > 1 or where != "no bias decay" else 0}
            for p in net.parameters()
        ]
        rate = 1.0 if where == "inside" else LR
        optimisers[where] = torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM)

    moments = (jnp.zeros(1), jnp.ones(1), jnp.ones((1, 1)))
    one = jax.jit(lambda s, x, y: step.train_step(run, problem, s, x, y, moments, values))
    away: dict[str, list[float]] = {"inside": [], "no bias decay": []}
    for i in range(STEPS):
        images = rng.integers(0, 256, (16, 28, 28, 1), np.uint8)
        labels = rng.integers(0, 10, 16)
        state, sums = one(state, images, labels)
        rate = LR if i < DROP else LR * 0.1
        losses = {}
        for where, net in nets.items():
            optimiser = optimisers[where]
            optimiser.zero_grad()
            loss = F.cross_entropy(net(nchw(images / np.float32(255))), torch.from_numpy(labels))
            loss.backward()
            if where == "inside":  # v <- momentum v + rate (g + decay w); w <- w - v
                with torch.no_grad():
                    for p in net.parameters():
                        p.grad = rate * (p.grad + DECAY * p)
                for group in optimiser.param_groups:
                    group["weight_decay"] = 0
            else:
                for group in optimiser.param_groups:
                    group["lr"] = rate
            optimiser.step()
            losses[where] = loss.item()
        ours = float(sums["loss"] / sums["count"])
        assert abs(ours - losses["outside"]) < 2e-5 * losses["outside"], i
        for where, gaps in away.items():
            gaps.append(abs(ours - losses[where]) / ours)
    assert max(away["inside"][: DROP + 1]) < 1e-4 < max(away["inside"][DROP + 1 :])
    assert max(away["no bias decay"]) > 1e-4
    end = {"params": state.params, "batch_stats": state.batch_stats}
    weights.save(tmp_path / "end.pth", end, "torchvision", model=model)
    theirs = nets["outside"].state_dict()
    for tensor, value in torch.load(tmp_path / "end.pth", weights_only=True).items():
        if "running_var" not in tensor:  # n / (n - 1), above
            np.testing.assert_allclose(value, theirs[tensor], rtol=1e-4, atol=5e-5, err_msg=tensor)
