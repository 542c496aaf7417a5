"""Files for other programs: each gives our logits, from pixels, where jaxcnn is not."""

import ctypes
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config, export, models, nets, ops, step, train, trained, weights
from jaxcnn.config import Data, InputError, Model, Optim, Run, Train
from jaxcnn.data.sources import Dataset, Split
from jaxcnn.export import card, graph, to_c, to_onnx
from jaxcnn.records import Record
from jaxcnn.trained import Trained

Launch = Callable[..., tuple[int, str, str]]


def needs(library: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(library) is None
    return pytest.mark.skipif(absent, reason=f"needs {library}")


NEEDS_GCC = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
# Small, with at least one of each operation that the family has; full depth among the slow.
NETS: dict[str, tuple[str, dict[str, Any], tuple[int, int, int]]] = {
    "mlp": ("mlp", {"widths": (9, 8), "batch_norm": True}, (6, 5, 2)),
    "cosines": ("mlp", {"widths": (9, 8), "radius": 16.0}, (6, 5, 2)),
    "autoencoder": ("autoencoder", {"widths": (20, 5), "tied": True}, (8, 8, 1)),
    "lenet5": ("lenet5", {}, (28, 28, 1)),
    "lenet5 knobs": (
        "lenet5",
        {"lrn": "krizhevsky2012", "batch_norm": True, "activation": "leaky_relu"},
        (28, 28, 1),
    ),
    "lenet5_1998": ("lenet5_1998", {}, (32, 32, 1)),
    "alexnet": (
        "alexnet",
        {"head": (6, 7), "widths": (8, 12, 12, 8, 8), "classes": 5},
        (75, 67, 3),
    ),
    "cuda_convnet": ("cuda_convnet", {"widths": (4, 4, 6)}, (32, 32, 3)),
    "vgg": ("vgg11_cifar", {"widths": (4, 4, 6, 6, 8)}, (32, 32, 3)),
    "googlenet": (
        "googlenet",
        {"inceptions": {"3a": models.googlenet.CIFAR["3a"], "3b": models.googlenet.CIFAR["3b"]}}
        | {"width_multiplier": 0.25, "classes": 5},
        (64, 64, 3),
    ),
    "resnet20": ("resnet20", {"widths": (4, 6, 8), "blocks": (1, 2, 1)}, (32, 32, 3)),
    "heatmaps": (
        "resnet20",
        {"widths": (4, 6, 8), "blocks": (1, 1, 1), "heatmaps": 3, "classes": 10},
        (16, 24, 1),
    ),
    "resnet50": (
        "resnet50",
        {"widths": (4, 6, 8, 9), "blocks": (1, 2, 1, 1), "classes": 5},
        (64, 64, 3),
    ),
}
WHOLE: dict[str, tuple[str, dict[str, Any], tuple[int, int, int]]] = {
    "heatmaps": (
        "vgg16_cifar",
        {"widths": (4, 4, 6, 6), "heatmaps": 3, "classes": 10},
        (32, 48, 1),
    ),
    "cosines": ("resnet18", {"widths": (4, 6, 8, 8), "radius": 64.0, "classes": 5}, (64, 48, 1)),
    "vgg16_bn": ("vgg16_bn", {"widths": (4, 6, 8, 8, 9), "head": (6, 7)}, (64, 64, 3)),
    "googlenet": (
        "googlenet",
        {"width_multiplier": 0.1, "side_heads": False, "classes": 5},
        (96, 64, 3),
    ),
    "googlenet_bn": (
        "googlenet_bn",
        {"width_multiplier": 0.1, "side_heads": False, "classes": 5}
        | {"pool": "avg", "transform_input": True},
        (64, 64, 3),
    ),
    "resnet20": ("resnet20", {"zeros_at": "both"}, (32, 32, 3)),
    "resnet50": ("resnet50_keras", {"widths": (4, 6, 8, 9), "pool": "avg"}, (64, 64, 3)),
}


def drawn(like: Any, seed: int = 0) -> Any:
    """Variables that keep the signal's size, so that the logits tell of the picture."""
    rng = np.random.default_rng(seed)

    def leaf(path: Any, a: Any) -> np.ndarray:
        noise = rng.standard_normal(a.shape, np.float32)
        if path[-1].key in ("scale", "var", "coefficient"):
            return np.float32(1 + 0.3 * np.tanh(noise))
        fan_in = max(1, int(np.prod(a.shape[:-1])))
        return noise * np.float32(np.sqrt(2 / fan_in) if len(a.shape) > 1 else 0.1)

    return jax.tree_util.tree_map_with_path(leaf, like)


def built(name: str, fields: dict[str, Any], image: tuple[int, int, int]) -> tuple[Any, Any]:
    """(pixels -> logits, the graph), of a net with drawn weights."""
    model = models.create_model(name, **fields)
    x = jnp.zeros((1, *image))
    variables = drawn(jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False)))

    def function(pixels: jax.Array) -> jax.Array:
        return model.apply(variables, (pixels / 255 - 0.4) / 0.25, train=False)[0]

    return function, graph.read(function, image)


def run_onnx(proto: Any, pixels: np.ndarray) -> np.ndarray:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return session.run(None, {"pixels": pixels})[0]


def run_c(folder: Path, name: str, shape: tuple[int, ...], pixels: np.ndarray) -> np.ndarray:
    """Of a picture each, by what gcc makes of the files in `folder`."""
    library, header = folder / "net.so", (folder / f"{name}.h").read_text()
    strict = ["-std=c99", "-O3", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    made = [str(folder / f"{name}.c"), "-shared", "-fPIC", "-o", str(library), "-lm"]
    subprocess.run(["gcc", *strict, *made], check=True)
    call = getattr(ctypes.CDLL(str(library)), to_c.identifier(name))
    floats = int(header.partition("_WORK ")[2].split()[0])
    pointer = ctypes.POINTER(ctypes.c_float)
    out = np.zeros((len(pixels), *shape), np.float32)
    guard = np.float32(12345)
    work = np.full(floats + 1, guard)
    for one, y in zip(pixels, out, strict=True):
        call(*(a.ctypes.data_as(pointer) for a in (one, y, work)))
    assert work[-1] == guard
    return out


def compare(
    name: str, fields: dict[str, Any], image: tuple[int, int, int], folder: Path
) -> Counter[str]:
    """ONNX and C against ours; the operations of the former."""
    function, made = built(name, fields, image)
    noise = np.random.default_rng(1).integers(0, 256, (3, *image))
    pixels = np.float32(noise // np.array([1, 4, 2])[:, None, None, None])  # not all of one mean
    wanted = np.asarray(jax.jit(function)(pixels))
    spread = np.abs(wanted - wanted[:1]).max()
    assert spread > 0.01 * np.abs(wanted).max(), "the logits hardly depend on the picture"
    proto = to_onnx.model(made, name)
    largest = max(1, np.abs(wanted).max())
    if importlib.util.find_spec("onnxruntime"):
        for batch in (1, 3):
            found = run_onnx(proto, pixels[:batch])
            np.testing.assert_allclose(found, wanted[:batch], rtol=1e-4, atol=1e-5 * largest)
    if shutil.which("gcc"):
        for text, ending in zip(to_c.sources(made, name, name), ("c", "h"), strict=True):
            (folder / f"{name}.{ending}").write_text(text)
        found = run_c(folder, name, made.shape, pixels)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * largest)
    return Counter(node.op_type for node in proto.graph.node)


@needs("onnx")
@pytest.mark.parametrize("net", NETS)
def test_onnx_and_c_give_our_logits(net: str, tmp_path: Path) -> None:
    found = compare(*NETS[net], tmp_path)
    assert found["Transpose"] <= 2
    lrns = {"alexnet": 2, "googlenet": 2, "lenet5 knobs": 2}
    assert found["LRN"] == lrns.get(net, 0)
    layers = {"lenet5 knobs": (2, 3), "vgg": (8, 2), "resnet20": (9, 1), "mlp": (0, 3)}
    if net in layers:  # of a batch normalisation nothing is left
        assert (found["Conv"], found["Gemm"]) == layers[net]
        assert found["Mul"] <= 3  # pixels, a scaled tanh's output or the last mean


@needs("onnx")
@pytest.mark.slow
@pytest.mark.parametrize("net", WHOLE)
def test_onnx_and_c_give_our_logits_at_full_depth(net: str, tmp_path: Path) -> None:
    compare(*WHOLE[net], tmp_path)


@needs("onnx")
@needs("onnxruntime")
@NEEDS_GCC
@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.maximum(x, 100.0) - 100,
        lambda x: jnp.max(x, axis=1),
        lambda x: jnp.max(x, axis=(1, 2)),
        lambda x: jnp.stack([x.sum(axis=3), x.max(axis=3)], axis=2),
        lambda x: x / (1 + jnp.max(x, axis=3, keepdims=True)),
        lambda x: jnp.exp(x / 100) * jax.lax.rsqrt(1 + x),
        lambda x: jax.image.resize(x, (x.shape[0], 7, 10, 3), "linear"),
        lambda x: jax.nn.softmax(x, axis=-1),  # of numbers whose exp is infinite
    ],
)
def test_single_operations(function: Callable[[jax.Array], jax.Array], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.float32)
    made, wanted = graph.read(function, (4, 5, 3)), np.asarray(function(jnp.asarray(pixels)))
    close = {"rtol": 1e-5, "atol": 1e-37}  # what is smaller XLA makes zero
    np.testing.assert_allclose(run_onnx(to_onnx.model(made, "net"), pixels), wanted, **close)
    for text, ending in zip(to_c.sources(made, "net", "net"), ("c", "h"), strict=True):
        (tmp_path / f"net.{ending}").write_text(text)
    np.testing.assert_allclose(run_c(tmp_path, "net", made.shape, pixels), wanted, **close)


@pytest.mark.slow
def test_every_model_and_knob_has_a_translation() -> None:
    # A deeper net has no other operations than the least deep one of its kind.
    deeper = re.compile(r"(resnet|plain)(34|44|56|101|110|152|1202)|vgg(13|16|19)")
    names = [name for name in models.list_models() if not deeper.match(name)]
    cases: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in names]
    knobs = [{"activation": activation} for activation in ops.ACTIVATIONS]
    knobs += [{"pool": pool} for pool in ops.POOLS]
    for name in ("lenet5", "alexnet_cifar", "googlenet_cifar"):
        cases += [(name, fields) for fields in knobs]
    for name, fields in cases:
        model, image = models.create_model(name, **fields), models.MODELS[name].image
        x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
        like = jax.eval_shape(lambda x, m=model: m.init(jax.random.key(0), x, train=False), x)
        ones = jax.tree.map(lambda a: np.ones(a.shape, np.float32), like)
        made = graph.read(lambda x, m=model, v=ones: m.apply(v, x, train=False)[0], image)
        output = jax.eval_shape(lambda v, x, m=model: m.apply(v, x, train=False)[0], like, x)
        assert made.shape == output.shape[1:], (name, fields)


def test_what_has_no_translation_is_named() -> None:
    image = (4, 4, 3)
    with pytest.raises(InputError, match="operation 'sin' has no translation; those that have one"):
        graph.read(jnp.sin, image)
    with pytest.raises(InputError, match="mixes the examples"):
        graph.read(lambda x: x.reshape(-1, 8), image)
    with pytest.raises(InputError, match="differently"):
        graph.read(lambda x: x + jnp.arange(x.shape[0], dtype=x.dtype)[:, None, None, None], image)
    with pytest.raises(InputError, match="not with a number"):
        graph.read(lambda x: jnp.maximum(x, jnp.arange(3.0)[None, None, None]), image)
    for method in ("nearest", "cubic"):
        with pytest.raises(InputError, match="resizes what is no map, or not 'linear'"):
            graph.read(lambda x, m=method: jax.image.resize(x, (2, 8, 8, 3), m), image)
    with pytest.raises(InputError, match="does not depend"):
        graph.read(lambda x: jnp.zeros((x.shape[0], 2)), image)


def test_the_name_of_lrn_changes_no_program() -> None:
    lrn = ops.LRNS["krizhevsky2012"]
    assert isinstance(lrn, ops.LRN)
    x = jnp.ones((2, 4, 4, 8))

    def program(normalise: Callable[[jax.Array], jax.Array]) -> str:
        def loss(x: jax.Array) -> jax.Array:
            return jnp.sum(normalise(x) ** 2)

        return jax.jit(jax.value_and_grad(loss)).lower(x).as_text()

    assert program(lrn) == program(lrn._normalised)
    assert "LRN" in str(jax.make_jaxpr(lrn)(x).eqns[0].source_info.name_stack)


# A trained run -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeNet-5 after 40 steps; its evaluation pads, crops and normalises."""
    run = Run(
        model=Model(name="lenet5", activation="relu", pool="max"),
        data=Data(name="mnist", train_examples=3000, validation_examples=500, pad=2, crop=30),
        optim=Optim(lr=0.05),
        train=Train(batch_size=50, steps=40, eval_every=40, eval_train_examples=100),
    )
    folder = tmp_path_factory.mktemp("runs") / "mine" / "arm" / "seed0"
    data = train.load_data([run], None)
    for _ in train.train({folder: run}, {folder: {"experiment": "mine", "arm": "arm"}}, data):
        pass
    for _ in train.test({folder: run}, data):
        pass
    return folder


@pytest.fixture(scope="module")
def source(folder: Path) -> Trained:
    return trained.load(folder)


@pytest.fixture(scope="module")
def ours(source: Trained) -> np.ndarray:
    """Logits of the first 20 test pictures, by the run's own evaluation."""
    data = source.data
    moments = (data.mean, data.std, data.covariance)
    evaluate = jax.jit(lambda s, x: step.evaluate(source.run, source.problem, s, x, moments)[0])
    return np.asarray(evaluate(source.state, data.test.images[:20]))


def pixels(source: Trained) -> np.ndarray:
    return source.data.test.images[:20].astype(np.float32)


def close(found: Any, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@needs("onnx")
@needs("onnxruntime")
def test_onnx_of_a_run_makes_the_errors_of_its_record(
    folder: Path, source: Trained, command: Launch, tmp_path: Path
) -> None:
    import onnxruntime

    code, out, err = command("export", folder, "--to", "onnx", "--out", tmp_path)
    assert (code, err) == (0, "")
    file, about = tmp_path / "lenet5.onnx", tmp_path / "lenet5.onnx.md"
    assert f"Written: {file}" in out and f"Written: {about}" in out
    session = onnxruntime.InferenceSession(file)
    test = source.data.test
    (logits,) = session.run(None, {"pixels": test.images.astype(np.float32)})
    wrong = int((logits.argmax(1) != test.labels).sum())
    measured = json.loads((folder / "test.json").read_text())
    assert 0 < wrong < 5000 and wrong == round(measured["error"] * measured["count"])
    text = about.read_text()
    for said in (
        hashlib.sha256(file.read_bytes()).hexdigest(),
        f"fingerprint `{source.data.fingerprint}`: 3,000 training, 500 validation, 10,000 test",
        f"{source.record.info['parameters']:,} parameters",
        f"{100 * measured['error']:.2f} % error (95 % interval",
        "| `data.pad` | `2` |",
        "float32 [B, 28, 28, 1], that is NHWC",
        "pad with 2 zeros on every side, take the central 30x30, divide by 255, take away [0.13",
        source.record.info["command"],
        "| licence of the data | usually given under CC BY-SA 3.0",
    ):
        assert said in text, said


def test_safetensors_of_a_run(folder: Path, source: Trained, ours: np.ndarray) -> None:
    pytest.importorskip("safetensors")
    file, about = export.export(folder, "safetensors")
    assert file == folder / "export" / "lenet5.safetensors"
    model = nets.build(source.run, source.problem, {})
    variables, _ = weights.load(file, model, image=(30, 30, 1))
    jax.tree.map(np.testing.assert_array_equal, variables["params"], source.state.params)
    said = about.read_text()
    assert "must first do this to pixels" in said and "take the central 30x30" in said
    code = said.partition("```python\n")[2].partition("```")[0]  # the card's own words, run
    x = (np.pad(pixels(source), ((0, 0), (1, 1), (1, 1), (0, 0))) / 255 - source.data.mean) / (
        source.data.std
    )
    scope: dict[str, Any] = {"x": x}
    exec(code.replace("lenet5.safetensors", str(file)), scope)
    close(scope["logits"], ours)


@needs("flatbuffers")
def test_stablehlo_needs_jax_alone(
    folder: Path, source: Trained, ours: np.ndarray, tmp_path: Path
) -> None:
    file, _ = export.export(folder, "stablehlo", tmp_path)
    np.save(tmp_path / "pixels.npy", pixels(source))
    program = f"""if True:
        import sys
        sys.modules["jaxcnn"] = None  # what imports it fails
        import jax.export, numpy as np
        function = jax.export.deserialize(bytearray(open({str(file)!r}, "rb").read()))
        assert function.platforms == ("cpu", "cuda", "tpu"), function.platforms
        pixels = np.load("pixels.npy")
        np.save("logits.npy", function.call(pixels))
        np.save("one.npy", function.call(pixels[:1]))
    """
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)
    close(np.load(tmp_path / "logits.npy"), ours)
    close(np.load(tmp_path / "one.npy"), ours[:1])


@NEEDS_GCC
def test_c_of_a_run(folder: Path, source: Trained, ours: np.ndarray, tmp_path: Path) -> None:
    code, header, about = export.export(folder, "c", tmp_path)
    close(run_c(tmp_path, "lenet5", (10,), pixels(source)), ours)
    for path in (code, header):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in about.read_text()


OBJECTIVES = {
    "one_hot": {"model.name": "lenet5"},
    "scalar": {"model.name": "lenet5"},
    "reconstruction": {"model.name": "autoencoder", "data.normalize": "unit"},
    "margin": {"model.name": "lenet5"},
}
OUTPUTS = {"reconstruction": "the reconstruction", "margin": "cosines of the embedding and each"}


@needs("onnx")
@needs("onnxruntime")
@NEEDS_GCC
@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_other_objectives_from_run_to_file(objective: str, tmp_path: Path) -> None:
    """Codes of the classes, or the picture again: what comes out of the last layer."""
    import onnxruntime

    few = {"data.train_examples": 500, "train.steps": 5, "train.eval_train_examples": 100}
    run = config.override(Run(), OBJECTIVES[objective] | few | {"train.objective": objective})
    folder, data = tmp_path / "run", train.load_data([run], None)
    for _ in train.train({folder: run}, {folder: {}}, data):
        pass
    source = trained.load(folder)
    moments = (source.data.mean, source.data.std, source.data.covariance)
    images = source.data.test.images[:5]
    wanted = np.asarray(step.evaluate(run, source.problem, source.state, images, moments)[0])
    file, about = export.export(folder, "onnx", tmp_path)
    found = onnxruntime.InferenceSession(file).run(None, {"pixels": images.astype(np.float32)})[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    export.export(folder, "c", tmp_path)
    found = run_c(tmp_path, run.model.name, wanted.shape[1:], images.astype(np.float32))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    output = OUTPUTS.get(objective, "the output of the last layer")
    assert f"Output: {output}" in about.read_text()


def test_what_is_for_training_alone_is_left_behind() -> None:
    """A scanned net in bfloat16 goes out as its plain twin in float32."""
    run = Run(
        model=Model(name="resnet20", widths=(4,), blocks=(3,), scan=True, remat=True),
        train=Train(precision="bfloat16"),
    )
    problem = nets.Problem((8, 8, 3), 10, 100, 1)
    state = jax.jit(lambda: step.init_state(run, problem, step.numbers(run)))()
    split = Split(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int32))
    ones, square = np.full(3, 0.5, np.float32), np.eye(3, dtype=np.float32)
    data = Dataset(split, split, split, ("a",) * 10, ones, ones, square, "")
    record = Record(Path(), {}, [], None, None)
    function = export.evaluation(Trained(record, run, data, problem, state))
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    plain = config.override(run, {"train.precision": "float32"})
    moments = (ones, ones, square)
    wanted, _ = jax.jit(lambda x: step.evaluate(plain, problem, state, x, moments))(x)
    found = jax.jit(function)(x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert "scan" not in str(jax.make_jaxpr(function)(x))


def test_the_interval_is_wilsons() -> None:
    said = card.measured({"error": 0.1, "count": 100, "loss": 1.0})
    assert said.startswith("10.00 % error (95 % interval 5.52 to 17.44, Wilson")
    assert card.measured({"loss": 2.5, "count": 10}) == "loss 2.5, 10 examples"
    assert card.measured(None) == "not measured"
    said = card.measured({"error": 0.1, "count": 100, "loss": 0.0712}, points=True)
    assert said.startswith("normalised mean error 7.12 %; 10.00 % of faces above 10 % (95 %")


def test_predict_names_the_likeliest_classes(
    folder: Path, source: Trained, ours: np.ndarray, command: Launch, tmp_path: Path
) -> None:
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, image in zip(files, source.data.test.images, strict=False):
        cv2.imwrite(str(file), image)
    code, out, err = command("predict", folder, *files, "--top", "2")
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if ".png" in line]
    shares = np.asarray(jax.nn.softmax(ours))
    for line, file, share in zip(lines, files, shares, strict=False):
        first, second = np.argsort(-share)[:2]
        wanted = f"{first} {100 * share[first]:.1f} %, {second} {100 * share[second]:.1f} %"
        assert line == f"{file}: {wanted}"
    assert len(lines) == 3


def test_predict_draws_what_a_layer_makes_of_a_picture(
    folder: Path, source: Trained, command: Launch, tmp_path: Path
) -> None:
    file = tmp_path / "digit.png"
    cv2.imwrite(str(file), source.data.test.images[0])
    code, out, err = command("predict", folder, file, "--show", "C3")
    drawn = folder / "predict" / "digit.C3.png"
    assert (code, err) == (0, "") and f"Written: {drawn}" in out
    picture = cv2.imread(str(drawn))
    assert picture is not None and picture.std() > 5
    (shown,) = trained.shown(source, "C1", [file])
    assert shown.filters is not None and shown.filters.shape == (5, 5, 1, 6)
    w = np.asarray(source.state.params["C1"]["kernel"])
    np.testing.assert_array_equal(shown.filters, w)
    assert shown.maps.shape[-1] == 6 and shown.maps.min() >= 0  # behind ReLU and pooling
    assert trained.shown(source, "C3", [file])[0].filters is None
    code, _, err = command("predict", folder, file, "--show", "F6")
    assert code == 2 and err.startswith("error: --show: 'F6' is not one of 'C1', 'C3'")


def test_bad_input_is_one_line_and_code_2(folder: Path, command: Launch, tmp_path: Path) -> None:
    def picture(name: str, *shape: int) -> Path:
        cv2.imwrite(str(tmp_path / name), np.full(shape, 7, np.uint8))
        return tmp_path / name

    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "begun").mkdir()
    info = json.loads((folder / "run.json").read_text())
    (tmp_path / "begun/run.json").write_text(json.dumps(info))
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    info["data"]["fingerprint"] = "0123"
    (other / "run.json").write_text(json.dumps(info))
    diverged = tmp_path / "diverged"
    shutil.copytree(folder, diverged)
    (diverged / "result.json").write_text('{"status": "diverged", "step": 3, "seconds": 1.0}')
    good = picture("good.png", 28, 28)
    for arguments, said in (
        (["predict", folder, picture("wide.png", 28, 30)], "28x30 pixels; the pictures of 'mnist'"),
        (
            ["predict", folder, picture("red.png", 28, 28, 3)],
            "is colour (3 channels); the pictures",
        ),
        (["predict", folder, tmp_path / "gone.png"], "gone.png' is no file"),
        (["predict", folder, tmp_path / "text.png"], "text.png' is no image"),
        (["predict", folder, good, "--top", "0"], "--top: 0 is not allowed"),
        (["predict", tmp_path, good], "is no run's folder: it has no run.json"),
        (["export", tmp_path / "gone", "--to", "c"], "is no run's folder"),
        (["export", tmp_path / "begun", "--to", "c"], "is not finished"),
        (["export", other, "--to", "c"], "data.name: 'mnist' has changed"),
        (["export", diverged, "--to", "c"], "diverged at step 3"),
        (["export", folder, "--to", "onnnx"], "onnx"),
    ):
        code, _, err = command(*arguments)
        assert code == 2 and said in " ".join(err.split()), (arguments, err)
        assert "Traceback" not in err
