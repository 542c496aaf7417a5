"""What a net sees in evaluation: crops are the papers', dense is each window's crop where there is
no padding, sizes are averaged, and a tree of classes says how wrong an error is.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from photographs import CLASSES, photo
from test_evaluate import opinionated

from jaxcnn import evaluate, jobs, models, wordnet
from jaxcnn.config import InputError
from jaxcnn.crops import Net, check, predict, views
from jaxcnn.evaluate import count


def net(name: str, side: int, channels: int, **knobs: Any) -> tuple[Net, Any]:
    """With random weights, as sure of itself as it takes to tell crops apart."""
    model = models.create_model(name, **knobs)
    picture = jnp.zeros((1, side, side, channels))
    variables = jax.jit(lambda k: model.init(k, picture, train=False))(jax.random.key(0))
    variables = variables | {"params": jax.tree.map(lambda a: 2 * a, variables["params"])}
    return Net(name, model, side, channels, lambda x: x / 128.0 - 1, ()), variables


def softmax(net: Net, variables: Any, crops: np.ndarray) -> np.ndarray:
    """[N, B, h, w, C] -> the softmax of the scores' mean over N, [B, K]."""
    scores = [net.model.apply(variables, crop / 128 - 1, train=False)[0] for crop in crops]
    return np.asarray(jax.nn.softmax(jnp.mean(jnp.stack(scores), 0)))


def windows(images: np.ndarray, side: int, stride: int) -> np.ndarray:
    offsets = range(0, images.shape[1] - side + 1, stride)
    return np.stack([images[:, i : i + side, j : j + side] for i in offsets for j in offsets])


def test_crops_are_the_papers():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8))
    [one] = views(images, 224, 1)
    np.testing.assert_array_equal(one, images[:, 16:240, 16:240])
    ten = views(images, 224, 10)
    corners = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    for i, (top, left) in enumerate(corners):
        want = images[:, top : top + 224, left : left + 224]
        np.testing.assert_array_equal(ten[i], want)
        np.testing.assert_array_equal(ten[i + 5], want[:, :, ::-1])


@pytest.mark.slow
@pytest.mark.parametrize("crops", [1, 10])
def test_predictions_are_the_mean_over_the_crops(crops):
    model, variables = opinionated()
    images = np.stack([photo(i, 36, 36) for i in range(3)])
    net = Net("resnet20", model, 32, 3, jobs.torchvision_input, CLASSES)
    got = predict(net, variables, jnp.asarray(images), crops)
    want = []
    for top, left in [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)] if crops == 10 else [(2, 2)]:
        part = images[:, top : top + 32, left : left + 32]
        for shown in (part, part[:, :, ::-1]) if crops == 10 else (part,):
            x = (shown / 255 - np.array(jobs.MEAN)) / np.array(jobs.STD)
            logits = np.asarray(model.apply(variables, x.astype(np.float32), train=False)[0])
            powers = np.exp(logits - logits.max(-1, keepdims=True))
            want.append(powers / powers.sum(-1, keepdims=True))
    np.testing.assert_allclose(got, np.mean(want, 0), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "side", "stride", "knobs"),
    [
        pytest.param("lenet5", 32, 4, {"padding": 0}, marks=pytest.mark.slow),
        ("mlp", 34, 1, {}),
    ],
)
def test_dense_is_the_mean_over_all_windows(
    name: str, side: int, stride: int, knobs: dict[str, Any]
) -> None:
    """Without padding the net on a window of the map is the net on that part of the picture."""
    own, variables = net(name, side, 1, **knobs)
    pictures = np.stack([photo(i, 40, 40)[..., :1] for i in range(3)])
    got = predict(own, variables, jnp.asarray(pictures), "dense")
    mirrored = pictures[:, :, ::-1]
    both = [softmax(own, variables, windows(x, side, stride)) for x in (pictures, mirrored)]
    np.testing.assert_allclose(got, np.mean(both, 0), rtol=1e-4, atol=1e-6)
    one = predict(own, variables, jnp.asarray(pictures), 1)
    assert np.abs(got - one).max() > 1e-4  # they are not the same question


@pytest.mark.slow
def test_dense_of_a_net_that_averages_its_last_map() -> None:
    own, variables = net("resnet20", 32, 3)
    pictures = np.stack([photo(i, 48, 48) for i in range(2)])
    both = [softmax(own, variables, x[None]) for x in (pictures, pictures[:, :, ::-1])]
    got = predict(own, variables, jnp.asarray(pictures), "dense")
    np.testing.assert_allclose(got, np.mean(both, 0), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_dense_at_a_net_s_own_size_is_the_picture_and_its_mirror_image() -> None:
    own, variables = net("vgg11_cifar", 64, 3, ceil=False)  # of a last map of 2x2
    pictures = np.stack([photo(i, 64, 64) for i in range(2)])
    both = [softmax(own, variables, x[None]) for x in (pictures, pictures[:, :, ::-1])]
    got = predict(own, variables, jnp.asarray(pictures), "dense")
    np.testing.assert_allclose(got, np.mean(both, 0), rtol=1e-4, atol=1e-6)
    larger = np.stack([photo(i, 96, 96) for i in range(2)])  # and goes over more
    assert predict(own, variables, jnp.asarray(larger), "dense").shape == (2, 10)


def test_of_several_sizes_the_mean() -> None:
    own, variables = net("mlp", 20, 3)
    pictures = jnp.asarray(np.stack([photo(i, 40, 40) for i in range(3)]))
    cells = pictures.reshape(3, 20, 2, 20, 2, 3).astype(jnp.float32).mean((2, 4))
    one, other, both = (
        predict(own, variables, pictures, 1, sides) for sides in ((40,), (20,), (40, 20))
    )
    np.testing.assert_allclose(one, predict(own, variables, pictures, 1), rtol=1e-6)
    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-5)
    # Linear between pixels, and antialiased: nearly the means over cells
    seen = softmax(own, variables, np.asarray(cells)[None])
    assert np.abs(other - seen).max() < 0.2 * np.abs(one - seen).max()


def test_what_cannot_be_seen() -> None:
    own, _ = net("mlp", 20, 3)
    with pytest.raises(InputError, match="--resize: 16 is less than the 20 pixels of 'mlp'"):
        check(own, 10, (24, 16))
    with pytest.raises(InputError, match="--crops: 5 is not one of 1, 10, dense"):
        check(own, 5, (24,))  # type: ignore[arg-type]
    check(own._replace(pad=2), 10, (16,))


def test_the_notes_tree_from_animal_to_cat() -> None:
    words = [wordnet.hypernyms()[s][1] for s in wordnet.way("n02123045")]
    assert words[4:] == [
        *("living thing", "organism", "animal", "chordate", "vertebrate", "mammal", "placental"),
        *("carnivore", "feline", "cat", "domestic cat", "tabby"),
    ]
    known = wordnet.hypernyms()
    above = {up for up, _ in known.values()}
    leaves = sorted(set(known) - above)
    assert len(leaves) == 1000 and above - set(known) == {"-"}
    whole = wordnet.levels(leaves)
    assert whole.sizes[0] == 2 and whole.sizes[-1] == 1000
    assert whole.sizes == tuple(len(set(row)) for row in whole.above.tolist())
    assert whole.largest[5][0] == "animal"
    with pytest.raises(InputError, match="--wordnet: 1 of the 2 classes are none of ILSVRC"):
        wordnet.levels(["n02123045", "cat"])


def test_an_error_is_none_at_the_levels_that_both_share() -> None:
    tabby, tiger, trombone = "n02123045", "n02129604", "n04487394"
    tree = wordnet.levels([tabby, tiger, trombone])
    scores = jnp.array([[0.9, 0.1, 0.0], [0.1, 0.0, 0.9], [jnp.nan, 0.0, 0.0], [0.9, 0.0, 0.1]])
    labels = jnp.array([1, 0, 0, -1])  # a tiger as a tabby; a tabby as a trombone; broken; nothing
    pictures, top1, _, *levels = count(scores, labels, jnp.asarray(tree.above)).tolist()
    assert (pictures, top1) == (3, 3)
    feline, whole = wordnet.way(tabby).index("n02120997"), 3
    assert "feline" == wordnet.hypernyms()["n02120997"][1]
    # Level i + 1 is way[i + 1]: that of felines is where the first error ends.
    assert levels == [1 if d <= whole else 2 if d <= feline else 3 for d in range(1, 16)]
    result = evaluate.Evaluation(3, (3, 0), {}, 1.0, tuple(levels))
    rows = evaluate.level_table(result, tree).rows
    assert rows[feline - 1]["largest"] == "feline, trombone"
    assert rows[feline - 1]["error"] == pytest.approx(200 / 3)
