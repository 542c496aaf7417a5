"""Files of weights: names, forms, what is refused, and round trips. PyTorch is not needed here."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import models, weights
from jaxcnn.config import InputError

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("JAXCNN_TEST_DATA", ROOT.parent / "shared" / "data"))
CIFAR_WEIGHTS = SHARED / "weights" / "cifar10_resnet20_fp32.npz"

SMALL = {"classes": 5, "head": (6, 7)}
SMALL_RESNET = {"classes": 5, "widths": (4, 8, 12, 16)}


def needs(library: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(library) is None
    return pytest.mark.skipif(absent, reason=f"needs {library}")


def shapes(model: Any, image: tuple[int, int, int]) -> Any:
    x = jnp.zeros((1, *image))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))


def drawn(model: Any, image: tuple[int, int, int], seed: int = 0) -> Any:
    """Variables all of whose numbers differ."""
    rng = np.random.default_rng(seed)
    like = shapes(model, image)
    return jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape, np.float32)), like)


def equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)


def tensors(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name != "jaxcnn"}


def refused(path: Path, model: Any, **options: Any) -> str:
    with pytest.raises(InputError) as found:
        weights.load(path, model, **options)
    return str(found.value)


def small(name: str, **fields: Any) -> tuple[Any, tuple[int, int, int]]:
    """A model with few weights, and the size of its pictures."""
    kind, image, _ = models.MODELS[name]
    narrow: dict[str, Any] = {"classes": 5}
    if kind is models.VGGNet and "cifar" not in name:
        narrow, image = SMALL, (64, 64, 3)
    elif kind is models.AlexNet and image[0] > 32:
        narrow, image = SMALL, (131, 131, 3)
    elif kind is models.ResNet and image[0] > 32:
        narrow, image = SMALL_RESNET, (64, 64, 3)
    elif name == "lenet5_1998":
        narrow = {}
    return models.create_model(name, **{**narrow, **fields}), image


# Published names and shapes, from the libraries' own state dicts, without making weights. ---------

PUBLISHED = {
    "alexnet_owt": (
        "torchvision",
        16,
        {
            "features.0.weight": (64, 3, 11, 11),
            "features.10.bias": (256,),
            "classifier.1.weight": (4096, 9216),
            "classifier.4.weight": (4096, 4096),
            "classifier.6.weight": (1000, 4096),
        },
    ),
    "vgg11": ("torchvision", 22, {"features.18.weight": (512, 512, 3, 3)}),
    # In torchvision's manner, which has no LRN: it counts as a module.
    "vgg11_lrn": ("torchvision", 22, {"features.4.weight": (128, 64, 3, 3)}),
    "vgg13": ("torchvision", 26, {"features.22.weight": (512, 512, 3, 3)}),
    "vgg16": (
        "torchvision",
        32,
        {
            "features.28.weight": (512, 512, 3, 3),
            "classifier.0.weight": (4096, 25088),
            "classifier.3.bias": (4096,),
            "classifier.6.weight": (1000, 4096),
        },
    ),
    "vgg19": ("torchvision", 38, {"features.34.weight": (512, 512, 3, 3)}),
    "vgg11_bn": ("torchvision", 54, {"features.26.running_var": (512,)}),
    "vgg13_bn": ("torchvision", 66, {"features.32.running_var": (512,)}),
    "vgg16_bn": ("torchvision", 84, {"features.41.running_mean": (512,)}),
    "vgg19_bn": (
        "torchvision",
        102,
        {"features.49.weight": (512, 512, 3, 3), "features.50.bias": (512,)},
    ),
    "googlenet_bn": (
        "torchvision",
        305,  # 59 convolutions, 59 x 4 of normalisation, 5 x 2 fully connected
        {
            "conv1.conv.weight": (64, 3, 7, 7),
            "conv3.bn.running_var": (192,),
            "inception3a.branch3.1.conv.weight": (32, 16, 3, 3),
            "inception5b.branch4.1.bn.bias": (128,),
            "aux1.conv.conv.weight": (128, 512, 1, 1),
            "aux2.fc1.weight": (1024, 2048),
            "aux2.fc2.bias": (1000,),
            "fc.weight": (1000, 1024),
        },
    ),
    "resnet18": ("torchvision", 102, {"layer4.0.downsample.0.weight": (512, 256, 1, 1)}),
    "resnet34": ("torchvision", 182, {"layer3.5.conv2.weight": (256, 256, 3, 3)}),
    "resnet50_v1.5": (
        "torchvision",
        267,
        {
            "conv1.weight": (64, 3, 7, 7),
            "bn1.running_mean": (64,),
            "layer1.0.downsample.1.weight": (256,),
            "layer3.5.conv3.weight": (1024, 256, 1, 1),
            "layer4.2.bn3.running_var": (2048,),
            "fc.weight": (1000, 2048),
        },
    ),
    "resnet101_v1.5": ("torchvision", 522, {"layer3.22.bn3.bias": (1024,)}),
    "resnet152_v1.5": ("torchvision", 777, {"layer3.35.conv3.weight": (1024, 256, 1, 1)}),
    "resnet20": (
        "akamaster",
        97,
        {"layer3.2.conv2.weight": (64, 64, 3, 3), "linear.weight": (10, 64)},
    ),
    "resnet50_keras": (
        "keras",
        320,
        {
            "conv1_conv/kernel": (7, 7, 3, 64),
            "conv1_bn/moving_variance": (64,),
            "conv2_block1_0_conv/bias": (256,),
            "conv4_block6_2_conv/kernel": (3, 3, 256, 256),
            "conv5_block3_3_bn/gamma": (2048,),
            "predictions/kernel": (2048, 1000),
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_the_published_ones(name: str) -> None:
    source, count, expected = PUBLISHED[name]
    found = table(name, source)
    assert len(found) == count
    assert {n: found[n] for n in expected} == expected


def table(name: str, source: str) -> dict[str, tuple[int, ...]]:
    image = models.MODELS[name].image
    model = models.create_model(name)
    like = weights._flat(shapes(model, image))
    return {n: e.shape for n, e in weights.names.table(model, like, source, image).items()}


def test_timm_s_vgg_has_convolutions_for_a_head_and_keras_s_old_names_are_its_own() -> None:
    vgg = table("vgg16", "timm")
    assert vgg["pre_logits.fc1.weight"] == (4096, 512, 7, 7)
    assert vgg["pre_logits.fc2.weight"] == (4096, 4096, 1, 1)
    assert vgg["head.fc.weight"] == (1000, 4096)
    keras = table("resnet50_keras", "keras_old")
    assert keras["res2a_branch2a/kernel"] == (1, 1, 64, 64)
    assert keras["res4f_branch2c/bias"] == (1024,)
    assert keras["bn5a_branch1/moving_mean"] == (2048,)
    assert keras["bn_conv1/beta"] == (64,)
    assert keras["fc1000/kernel"] == (2048, 1000)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_tensor_of_every_model_has_one_name(name: str) -> None:
    model = models.create_model(name)
    image = models.MODELS[name].image
    like = weights._flat(shapes(model, image))
    for source in weights.sources(name):
        found = [e.path for e in weights.names.table(model, like, source, image).values()]
        assert sorted(found) == sorted(like), source


# Round trips --------------------------------------------------------------------------------------

ROUND_TRIPS = [
    *[(name, {}, "flax") for name in ("lenet5", "mlp", "vgg11_bn", "googlenet_bn", "resnet18")],
    *[(name, {}, "torchvision") for name in ("lenet5", "lenet5_1998", "mlp", "alexnet", "zfnet")],
    *[(name, {}, "torchvision") for name in ("alexnet_owt", "cuda_convnet", "vgg11", "vgg19_bn")],
    ("alexnet_owt", {}, "lpips"),
    *[(name, {}, "torchvision") for name in ("vgg11_lrn", "vgg16_cifar", "resnet50_v1.5")],
    ("googlenet_bn", {"transform_input": True}, "torchvision"),
    ("resnet101_v1.5", {"scan": True}, "torchvision"),
    ("resnet101", {"scan": True}, "flax"),
    (
        "alexnet_cifar",
        {"widths": (4, 6, 8, 6, 10), "without": ("conv5",), "lrn": None},
        "torchvision",
    ),
    ("vgg16_7x7_cifar", {"widths": (4, 6, 8, 8, 10)}, "torchvision"),
    ("googlenet_cifar", {"side_heads": True, "width_multiplier": 0.25}, "flax"),
    ("vgg16", {}, "timm"),
    ("resnet20", {"zeros_at": "both"}, "akamaster"),
    ("resnet20", {"shortcut": "B"}, "akamaster"),
    ("resnet50_keras", {}, "keras_old"),
    ("resnet50_keras", {"bn_epsilon": 1.001e-5}, "keras"),
]


OTHER_FILES = [
    (*trip, ending)
    for ending in (".safetensors", ".pth")
    for trip in ROUND_TRIPS
    if trip[0] in ("lenet5_1998", "vgg11", "resnet50_v1.5", "vgg11_bn")
]


@pytest.mark.parametrize(
    ("name", "fields", "source", "ending"),
    [
        pytest.param(*trip, marks=pytest.mark.slow if trip[0].startswith("resnet101") else ())
        for trip in (*((*t, ".npz") for t in ROUND_TRIPS), *OTHER_FILES)
    ],
)
def test_there_and_back_bit_for_bit(
    name: str, fields: dict[str, Any], source: str, ending: str, tmp_path: Path
) -> None:
    pytest.importorskip({".npz": "numpy", ".safetensors": "safetensors", ".pth": "torch"}[ending])
    model, image = small(name, **fields)
    start = drawn(model.clone(scan=False) if fields.get("scan") else model, image)
    if fields.get("scan"):
        start = models.resnet.stacked(start, model.blocks)
    path = tmp_path / f"weights{ending}"
    weights.save(path, start, source, model=model, image=image)
    loaded = weights.load(path, model, image=image)
    assert loaded.left == ()
    equal(loaded.variables, start)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_our_own_names_need_no_model_and_are_the_paths(tmp_path: Path) -> None:
    model, image = small("vgg11_bn")
    start = drawn(model, image)
    weights.save(tmp_path / "a.npz", start)
    found = tensors(tmp_path / "a.npz")
    assert found["params/fc6/kernel"].shape == (2048, 6)
    assert found["batch_stats/conv1_1_bn/var"].shape == (64,)
    equal(weights.load(tmp_path / "a.npz", model, image=image).variables, start)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_parameters_are_single_whatever_the_file_s_are(dtype: Any, tmp_path: Path) -> None:
    model, image = small("lenet5")
    start = jax.tree.map(lambda a: a.astype(jnp.float16).astype(a.dtype), drawn(model, image))
    weights.save(tmp_path / "a.npz", start)
    found = {n: a.astype(dtype) for n, a in tensors(tmp_path / "a.npz").items()}
    np.savez(tmp_path / "b.npz", allow_pickle=False, **found)
    loaded = weights.load(tmp_path / "b.npz", model).variables
    equal(loaded, start)
    assert {a.dtype for a in jax.tree.leaves(loaded)} == {np.dtype(np.float32)}


def test_forms_are_pytorch_s(tmp_path: Path) -> None:
    """Each number where PyTorch looks for it; the fully-connected picture by hand."""
    model, image = small("vgg11")
    start = drawn(model, image)
    weights.save(tmp_path / "a.npz", start, "torchvision", model=model, image=image)
    weights.save(tmp_path / "b.npz", start, "timm", model=model, image=image)
    torchvision, timm = tensors(tmp_path / "a.npz"), tensors(tmp_path / "b.npz")
    params = jax.tree.map(np.asarray, start["params"])
    conv = params["conv2_1"]["kernel"]  # [h, w, I, O]
    assert torchvision["features.3.weight"][7, 5, 2, 1] == conv[2, 1, 5, 7]
    fc6 = params["fc6"]["kernel"]  # [h w C, O]
    h, w, c, o = 1, 0, 300, 4
    ours = fc6[(h * 2 + w) * 512 + c, o]
    assert torchvision["classifier.0.weight"][o, c * 4 + h * 2 + w] == ours
    assert timm["pre_logits.fc1.weight"][o, c, h, w] == ours
    assert torchvision["classifier.3.weight"][3, 5] == params["fc7"]["kernel"][5, 3]
    assert timm["pre_logits.fc2.weight"][3, 5, 0, 0] == params["fc7"]["kernel"][5, 3]


def test_a_picture_of_colours_is_flattened_maps_first_too(tmp_path: Path) -> None:
    model = models.create_model("mlp", widths=(4,))
    start = drawn(model, (6, 5, 3))
    weights.save(tmp_path / "a.npz", start, "torchvision", model=model, image=(6, 5, 3))
    found = tensors(tmp_path / "a.npz")["fc1.weight"]
    ours = np.asarray(start["params"]["fc1"]["kernel"])
    assert found[1, 2 * 30 + 4 * 5 + 3] == ours[(4 * 5 + 3) * 3 + 2, 1]
    with pytest.raises(InputError, match=r"image: fc1 takes 90 numbers.*give.*image=\(H, W, C\)"):
        weights.save(tmp_path / "b.npz", start, "torchvision", model=model)


# What is refused ----------------------------------------------------------------------------------


def saved(tmp_path: Path, name: str, source: str, **fields: Any) -> tuple[Path, Any]:
    """Under a source's names, without a word of ours: as the library itself would."""
    model, image = small(name, **fields)
    start = drawn(model, image)
    path = tmp_path / "published.npz"
    weights.save(path, start, source, model=model, image=image, trust=True)
    np.savez(path, allow_pickle=False, **tensors(path))
    return path, start


def test_all_that_does_not_fit_is_one_error_and_may_be_left(tmp_path: Path) -> None:
    path, start = saved(tmp_path, "resnet18", "torchvision")
    found = tensors(path)
    found["fc.weight"] = found["fc.weight"][:3]
    del found["bn1.bias"], found["layer2.0.conv1.weight"]
    found["ema.decay"] = np.zeros(2, np.float32)
    found["bn1.num_batches_tracked"] = np.array(7)  # no weight
    np.savez(path, allow_pickle=False, **found)
    model, image = small("resnet18")
    said = refused(path, model)
    lines = [
        "missing: bn1.bias (4,)",
        "missing: layer2.0.conv1.weight (8, 4, 3, 3)",
        "extra: ema.decay (2,)",
        "mis-shaped: fc.weight (3, 16), not (5, 16)",
    ]
    assert said.splitlines()[1:] == [f"  {line}" for line in lines]
    assert "num_batches_tracked" not in said

    other = drawn(model, image, seed=1)
    loaded = weights.load(path, model, other, strict=False)
    assert list(loaded.left) == lines
    params = loaded.variables["params"]
    equal(params["fc"]["kernel"], other["params"]["fc"]["kernel"])
    equal(params["conv1_bn"]["bias"], other["params"]["conv1_bn"]["bias"])
    equal(params["conv3_1"]["conv1"], other["params"]["conv3_1"]["conv1"])
    equal(params["conv3_1"]["conv2"], start["params"]["conv3_1"]["conv2"])
    assert "variables: give model.init's" in refused(path, model, strict=False)


def test_side_heads_of_the_file_are_left_only_when_asked(tmp_path: Path) -> None:
    fields = {"transform_input": True}
    path, start = saved(tmp_path, "googlenet_bn", "torchvision", **fields)
    model, _ = small("googlenet_bn", side_heads=False, **fields)
    said = refused(path, model)
    assert "extra: aux1.conv.conv.weight" in said and "extra: aux2.fc2.bias" in said
    loaded = weights.load(path, model, strict=False)
    assert len(loaded.left) == 18 and all(line.startswith("extra: aux") for line in loaded.left)
    equal(loaded.variables["params"]["output"], start["params"]["output"])


@pytest.mark.parametrize(
    ("name", "source", "fields", "into", "more", "said"),
    [
        ("resnet50_v1.5", "torchvision", {}, "resnet50", {}, 'model("resnet50_v1.5", '),
        (
            *("resnet20", "akamaster", {"zeros_at": "both"}, "resnet20", {}),
            "zeros_at='both') is that net",
        ),
        (
            *("resnet20", "akamaster", {"zeros_at": "both"}, "plain20", {}),
            "shortcut='A', zeros_at='both', and",
        ),
        ("resnet50_keras", "keras_old", {}, "resnet50_keras", {"bn_epsilon": 1e-5}, "0.001"),
        ("resnet50_keras", "keras", {}, "resnet50_keras", {}, "bn_epsilon=1.001e-05"),
        (
            *("resnet50_keras", "keras_old", {}, "resnet50_keras", {"stride_at": "3x3"}),
            "stride_at='1x1', and",
        ),
        (
            *("googlenet_bn", "torchvision", {}, "googlenet_bn", {}),
            "transform_input=True, and",
        ),
        (
            *("googlenet_bn", "torchvision", {}, "googlenet_bn"),
            *({"transform_input": True, "bn_epsilon": 1e-5}, "bn_epsilon=0.001, and"),
        ),
        ("vgg11_bn", "torchvision", {}, "vgg11_bn", {"bn_epsilon": 1e-3}, "bn_epsilon=1e-05, and"),
    ],
)
def test_what_shapes_do_not_show_is_refused_and_the_fitting_model_named(
    name: str,
    source: str,
    fields: dict[str, Any],
    into: str,
    more: dict[str, Any],
    said: str,
    tmp_path: Path,
) -> None:
    path, start = saved(tmp_path, name, source, **fields)
    model, image = small(into, **more)
    text = refused(path, model, image=image)
    assert said in text and "equal shapes, other answers" in text
    equal(weights.load(path, model, image=image, trust=True).variables, start)
    with pytest.raises(InputError, match="equal shapes, other answers"):
        weights.save(tmp_path / "b.npz", start, source, model=model, image=image)


def test_the_published_resnet50_in_the_paper_s_is_refused_by_name(tmp_path: Path) -> None:
    """At full size, the message as users see it."""
    found = {n: np.zeros(s, np.float32) for n, s in table("resnet50_v1.5", "torchvision").items()}
    np.savez(tmp_path / "resnet50.npz", allow_pickle=False, **found)
    said = refused(tmp_path / "resnet50.npz", "resnet50")
    assert "stride_at='3x3', and resnet50 has stride_at='1x1'" in said
    assert " resnet50_v1.5 is that net" in said


@pytest.mark.parametrize(
    ("name", "source", "fields", "into", "said"),
    [
        ("resnet50_keras", "keras_old", {}, "resnet50", "extra: res2a_branch2a/bias (4,)"),
        ("resnet20", "akamaster", {"zeros_at": "both"}, "resnet56", 'resnet20", classes=5, zeros'),
        ("resnet20", "akamaster", {"zeros_at": "both"}, "vgg11", "none of its tensors (conv1.w"),
        ("mlp", "flax", {}, "lenet5", "extra: params/fc1/bias (300,)"),
        ("lenet5", "torchvision", {}, "lenet5_1998", "mis-shaped: C3.weight (16, 6, 5, 5), not ("),
        ("vgg11_bn", "torchvision", {}, "vgg11", "extra: features.1.running_mean (64,)"),
    ],
)
def test_another_net_is_refused(
    name: str, source: str, fields: dict[str, Any], into: str, said: str, tmp_path: Path
) -> None:
    path, _ = saved(tmp_path, name, source, **fields)
    model, image = small(into)
    assert said in refused(path, model, image=image)


def test_the_model_that_fits_is_found_over_all_papers(tmp_path: Path) -> None:
    for name, source, into in (
        ("alexnet_owt", "torchvision", "alexnet"),
        ("googlenet_bn", "torchvision", "googlenet"),
        ("vgg11_bn", "timm", "resnet18"),
    ):
        found = {n: np.broadcast_to(0, shape) for n, shape in table(name, source).items()}
        said = weights._fitting(found)
        fields = ", transform_input=True)" if name == "googlenet_bn" else ""
        assert name in said and fields in said and said.endswith(" fits."), (into, said)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_our_files_say_what_shapes_do_not(ending: str, tmp_path: Path) -> None:
    pytest.importorskip({".npz": "numpy", ".safetensors": "safetensors"}[ending])
    path = tmp_path / f"own{ending}"
    model, image = small("resnet50_v1.5", zero_gamma=True)
    start = drawn(model, image)
    weights.save(path, start, model=model)
    text = refused(path, small("resnet50")[0])
    assert "stride_at='3x3', and" in text
    text = refused(path, model.clone(activation="tanh"))
    assert "activation='relu', and" in text
    equal(weights.load(path, model).variables, start)
    # A net of one's own under another's names: written on trust, read by what the file says.
    paper, _ = small("resnet50")
    weights.save(path, start, "torchvision", model=paper, trust=True)
    equal(weights.load(path, paper).variables, start)
    assert "stride_at='1x1', and" in refused(path, model)


def test_the_words_of_the_rest(tmp_path: Path) -> None:
    model, image = small("vgg11")
    start = drawn(model, image)
    assert "no such file" in refused(tmp_path / "a.npz", model)
    (tmp_path / "a.npz").write_bytes(b"not a zip")
    assert "cannot be read as .npz: it is no archive" in refused(tmp_path / "a.npz", model)
    assert "'.onnx' is no kind of file with weights; known: .npz" in refused(
        tmp_path / "a.onnx", model
    )
    with pytest.raises(InputError, match="is no kind of file"):
        weights.save(tmp_path / "a.h5", start)
    with pytest.raises(InputError, match="'torchvision' needs model="):
        weights.save(tmp_path / "b.npz", start, "torchvision")
    with pytest.raises(InputError, match="'torchvison' is not one of .*Did you mean torchvision"):
        weights.save(tmp_path / "b.npz", start, "torchvison", model=model)
    with pytest.raises(InputError, match="Did you mean vgg11"):
        weights.load(tmp_path / "a.npz", "vgg111")


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".h5"])
def test_an_absent_library_is_named(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = {".safetensors": "safetensors", ".pth": "torch", ".h5": "h5py"}[ending]
    monkeypatch.setitem(__import__("sys").modules, library, None)
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"")
    assert f"{ending} needs {library}. Run: pip install {library}" in refused(path, "lenet5")


# Keras's files ------------------------------------------------------------------------------------


def h5(path: Path, found: dict[str, np.ndarray], form: str, epsilon: float | None = None) -> None:
    """As `save_weights` (2), as Keras 1 wrote it, and as a whole model (`save`)."""
    import h5py

    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if form == "whole" else file
        for name, a in found.items():
            layer, leaf = name.split("/")
            if form == "keras 1":
                old = {"kernel": "W", "bias": "b", "moving_mean": "running_mean"}
                old["moving_variance"] = "running_std"
                root[f"{layer}/{layer}_{old.get(leaf, leaf)}:0"] = a
            else:
                root[f"{layer}/{layer}/{leaf}:0"] = a
        if form == "whole":
            file["optimizer_weights/Adam/iter:0"] = np.zeros(1)
            layers = [{"class_name": "BatchNormalization", "config": {"epsilon": epsilon}}]
            file.attrs["model_config"] = json.dumps({"config": {"layers": layers}})


@needs("h5py")
@pytest.mark.parametrize("form", ["weights", "keras 1", "whole"])
@pytest.mark.parametrize("source", ["keras", "keras_old"])
def test_keras_s_h5_in_its_forms(form: str, source: str, tmp_path: Path) -> None:
    epsilon = {"keras": 1.001e-5, "keras_old": 1e-3}[source]
    model, image = small("resnet50_keras", bn_epsilon=epsilon)
    start = drawn(model, image)
    weights.save(tmp_path / "a.npz", start, source, model=model)
    found = tensors(tmp_path / "a.npz")
    h5(tmp_path / "a.h5", found, form, epsilon)
    equal(weights.load(tmp_path / "a.h5", model).variables, start)
    # Kernels are ours: [h, w, I, O], and [D, O].
    last = {"keras": "predictions/kernel", "keras_old": "fc1000/kernel"}[source]
    equal(found[last], start["params"]["fc"]["kernel"])


@needs("h5py")
def test_a_whole_keras_model_says_its_epsilon(tmp_path: Path) -> None:
    model, image = small("resnet50_keras")  # 1e-3
    start = drawn(model, image)
    weights.save(tmp_path / "a.npz", start, "keras", model=model, trust=True)
    found = tensors(tmp_path / "a.npz")
    h5(tmp_path / "a.h5", found, "whole", 1e-3)
    equal(weights.load(tmp_path / "a.h5", model).variables, start)
    h5(tmp_path / "a.h5", found, "whole", 2e-5)
    assert "bn_epsilon=2e-05, and" in refused(tmp_path / "a.h5", model)
    h5(tmp_path / "a.h5", found, "weights")
    assert "bn_epsilon=1.001e-05, and" in refused(tmp_path / "a.h5", model)


@pytest.mark.skipif(not CIFAR_WEIGHTS.is_file(), reason=f"needs {CIFAR_WEIGHTS}")
def test_a_real_file() -> None:
    assert "zeros_at='both') is that net" in refused(CIFAR_WEIGHTS, "resnet20")
    model = models.create_model("resnet20", zeros_at="both")
    loaded = weights.load(CIFAR_WEIGHTS, model)
    assert loaded.left == ()
    equal(
        loaded.variables["params"]["conv1"]["kernel"],
        tensors(CIFAR_WEIGHTS)["conv1.weight"].transpose(2, 3, 1, 0),
    )
