"""Augmentation against plain numpy, draw by draw; and each knob seen in the traced program."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import Data, InputError
from jaxcnn.data import augment

MEAN, STD = np.array([0.2, 0.5], np.float32), np.array([0.1, 0.3], np.float32)
MOMENTS = (MEAN, STD, np.array([[0.01, 0.02], [0.02, 0.09]], np.float32))
RANDOM = ("random_bits", "random_fold_in", "threefry")


def pictures(n: int, height: int = 6, width: int = 5) -> np.ndarray:
    """No pixel is background, so that what comes from outside can be told from what was inside."""
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (n, height, width, 2), dtype=np.uint8)


def many(different: int) -> np.ndarray:
    """One size of batch for most tests: compiling takes longer than running."""
    return np.tile(pictures(different), (4096 // different, 1, 1, 1))


@functools.cache
def compiled(data: Data):
    return jax.jit(
        lambda key, x, noise, color: augment.augment(key, x, data, *MOMENTS, noise, color)
    )


def run(
    data: Data, images: np.ndarray, seed: int = 0, noise: float = 0.0, color: float = 0.0
) -> np.ndarray:
    return np.asarray(compiled(data)(jax.random.key(seed), images, noise, color))


def pixels(data: Data, images: np.ndarray, seed: int = 0) -> np.ndarray:
    assert data.normalize == "unit"
    return np.rint(run(data, images, seed) * 255).astype(np.uint8)


def jaxpr(data: Data) -> str:
    def f(key, images, noise):
        return augment.augment(key, images, data, *map(jnp.array, MOMENTS), noise, 0.1)

    return str(jax.make_jaxpr(f)(jax.random.key(0), pictures(4), 0.5))


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    out = np.zeros_like(image)
    height, width = image.shape[:2]
    out[max(down, 0) : height + down, max(right, 0) : width + right] = image[
        max(-down, 0) : height - down, max(-right, 0) : width - right
    ]
    return out


def views(image: np.ndarray, data: Data) -> dict[bytes, tuple]:
    """The pixels that each (shift, crop, flip) that `data` allows must give, one step at a time."""
    padded = np.pad(image, ((data.pad,) * 2, (data.pad,) * 2, (0, 0)))
    reach = range(-data.shift, data.shift + 1)
    height = data.crop or padded.shape[0]
    width = data.crop or padded.shape[1]
    corners = itertools.product(
        range(padded.shape[0] - height + 1), range(padded.shape[1] - width + 1)
    )
    found = {}
    for down, right, (top, left) in itertools.product(reach, reach, list(corners)):
        view = moved(padded, down, right)[top : top + height, left : left + width]
        found[view.tobytes()] = (down, right, top, left, False)
        if data.flip:
            found[view[:, ::-1].tobytes()] = (down, right, top, left, True)
    return found


def draws(data: Data, images: np.ndarray) -> list[tuple]:
    """For each image the draw that explains its output; an output without one is a failure."""
    different = {image.tobytes(): image for image in images}
    known = {name: views(image, data) for name, image in different.items()}
    out = pixels(data, images)
    return [known[x.tobytes()][y.tobytes()] for x, y in zip(images, out, strict=True)]


@pytest.mark.parametrize(
    "knobs",
    [
        {"shift": 1},
        {"shift": 2},
        {"pad": 2, "crop": 5},
        {"flip": True},
        {"shift": 1, "flip": True},
        {
            "shift": 1,
            "crop": 4,
        },  # three draws each: if they were the same, half the rows never occur
        {"pad": 1, "shift": 1, "crop": 4, "flip": True},
    ],
)
def test_every_output_is_a_view_that_numpy_makes_and_every_view_occurs(knobs):
    data = Data(normalize="unit", **knobs)
    images = many(1)
    assert set(draws(data, images)) == set(views(images[0], data).values())


def test_draws_are_uniform():
    images = many(1)
    flips = [d[4] for d in draws(Data(normalize="unit", flip=True), images)]
    assert abs(np.mean(flips) - 0.5) < 0.04
    shifts = [d[:2] for d in draws(Data(normalize="unit", shift=1), images)]
    counts = np.unique(shifts, axis=0, return_counts=True)[1]
    assert len(counts) == 9
    assert counts.min() > 360  # 455 expected, deviation 20
    assert counts.max() < 530


def test_images_of_a_batch_are_drawn_one_by_one_and_keys_matter():
    images = many(1)
    data = Data(normalize="unit", shift=2)
    first, again, other = (pixels(data, images, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len(np.unique(first, axis=0)) > 10


def test_switching_one_knob_on_moves_no_other_knobs_draws():
    images = many(64)
    crop = Data(normalize="unit", pad=2, crop=5)
    shift = Data(normalize="unit", shift=1)
    flips = [d[4] for d in draws(Data(normalize="unit", flip=True), images)]
    for data, moves in ((crop, slice(2, 4)), (shift, slice(0, 2))):
        both = draws(dataclasses.replace(data, flip=True), images)
        assert [d[moves] for d in both] == [d[moves] for d in draws(data, images)]
        assert [d[4] for d in both] == flips
    noisy = dataclasses.replace(crop, flip=True, noise=0.1)  # of strength 0: the view without it
    expected = run(dataclasses.replace(crop, flip=True), images)
    np.testing.assert_array_equal(run(noisy, images), expected)


def test_off_leaves_nothing_random_in_the_program_and_on_reaches_it():
    off = Data()
    assert not any(
        word in jaxpr(off) for word in (*RANDOM, "pad", "dynamic_slice", "rev", "gather")
    )
    # The padded evaluation view has no draw either; a crop is random only in training.
    assert not any(word in jaxpr(Data(pad=2)) for word in RANDOM)
    for knobs, words in [
        ({"shift": 1}, ("random_bits", "gather", "pad")),
        ({"crop": 3}, ("random_bits", "gather")),
        ({"flip": True}, ("random_bits", "rev")),
        ({"noise": 0.1}, ("random_bits", "erf_inv")),
        ({"color": 0.1}, ("random_bits", "erf_inv", "dot_general")),
    ]:
        program = jaxpr(Data(**knobs))
        assert all(word in program for word in words), (knobs, words)
        assert program.count("random_bits") <= 2
    assert "erf_inv" not in jaxpr(Data(shift=1, crop=3, flip=True))


def test_noise_is_a_traced_number():
    images, data = pictures(200), Data(noise=0.3)
    clean = run(Data(), images)
    np.testing.assert_array_equal(run(data, images, noise=0.0), clean)
    weak, strong = (run(data, images, noise=s) - clean for s in (0.25, 0.5))
    np.testing.assert_allclose(strong, 2 * weak, atol=1e-5)
    assert abs(weak.std() - 0.25) < 0.01
    assert abs(weak.mean()) < 0.01


def test_color_is_krizhevskys_sum_over_principal_components():
    """One shift an image, the same for all its pixels, with the covariance of
    sum_i N(0, color) l_i p_i, of eigenvalues l and eigenvectors p; a traced number.
    """
    images, data = many(1), Data(normalize="unit", color=0.3)
    clean = run(Data(normalize="unit"), images)
    shift = run(data, images, color=0.5) - clean
    np.testing.assert_allclose(np.ptp(shift, axis=(1, 2)), 0, atol=1e-6)
    values, vectors = np.linalg.eigh(MOMENTS[2])
    want = 0.5**2 * vectors @ np.diag(values**2) @ vectors.T
    np.testing.assert_allclose(np.cov(shift[:, 0, 0].T), want, atol=0.1 * want.max())
    np.testing.assert_allclose(run(data, images, color=1.0) - clean, 2 * shift, atol=1e-5)
    scaled = run(Data(color=0.3), images, color=0.5) - run(Data(), images)
    np.testing.assert_allclose(scaled, shift / STD, atol=1e-4)  # added before it is normalised


def smooth(n: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    rough = (rng.integers(0, 256, (5, 5, 3), dtype=np.uint8) for _ in range(n))
    return np.stack([np.asarray(Image.fromarray(r).resize((side, side))) for r in rough])


@pytest.mark.slow
def test_boxes_show_what_pillow_makes_of_them():
    """Enlarged and reduced, at the border and within; Pillow rounds twice to whole grey levels."""
    images, rng = smooth(40, 32), np.random.default_rng(0)
    sizes = rng.uniform(5, 32, (40, 2))
    sizes[0] = 32
    boxes = np.concatenate([rng.uniform(0, 1, (40, 2)) * (32 - sizes), sizes], -1)
    got = np.asarray(augment.boxed(jnp.asarray(images), jnp.asarray(boxes, jnp.float32), 16))
    for image, (top, left, height, width), view in zip(images, boxes, got, strict=True):
        box = (left, top, left + width, top + height)
        want = Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR, box=box)
        assert np.abs(view - np.asarray(want)).max() < 1.1
    whole = jnp.tile(jnp.array([[0.0, 0.0, 32.0, 32.0]]), (40, 1))
    np.testing.assert_allclose(augment.boxed(jnp.asarray(images), whole, 32), images, atol=1e-3)


def test_scale_jitter_is_the_papers():
    """Crops of 24 of a picture of 32, whose side S is uniform in [32, 60] before."""
    boxes = np.asarray(augment.scale_boxes(jax.random.key(0), 20_000, (32, 32), 24, 60 / 32))
    tops, lefts, heights, widths = boxes.T
    np.testing.assert_array_equal(heights, widths)
    enlarged = 32 * 24 / heights
    assert enlarged.min() > 32 - 1e-3 and enlarged.max() < 60 + 1e-3
    quantiles = np.quantile(enlarged, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(quantiles, [34.8, 46, 57.2], atol=0.5)
    for place in (tops, lefts):
        share = place / (32 - heights)
        np.testing.assert_allclose(np.quantile(share, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)
        assert share.min() >= 0 and share.max() <= 1
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.2


@pytest.mark.slow
def test_crops_of_random_area_are_those_of_a_loop_that_draws_again():
    boxes = np.asarray(augment.area_boxes(jax.random.key(0), 20_000, (32, 32), 0.08, 4 / 3))
    tops, lefts, heights, widths = boxes.T
    assert boxes.min() >= 0
    assert (tops + heights).max() < 32 + 1e-3 and (lefts + widths).max() < 32 + 1e-3
    rng, loop = np.random.default_rng(0), []
    while len(loop) < 20_000:
        area, ratio = rng.uniform(0.08, 1) * 32**2, np.exp(rng.uniform(-1, 1) * np.log(4 / 3))
        height, width = np.sqrt(area / ratio), np.sqrt(area * ratio)
        if height <= 32 and width <= 32:
            loop.append((height * width / 32**2, width / height))
    for got, want in zip(
        (heights * widths / 32**2, widths / heights), np.array(loop).T, strict=True
    ):
        shares = [0.05, 0.25, 0.5, 0.75, 0.95]
        np.testing.assert_allclose(np.quantile(got, shares), np.quantile(want, shares), rtol=0.04)
    # A shape that never fits comes to the largest square.
    flat = np.asarray(augment.area_boxes(jax.random.key(0), 50, (4, 400), 1.0, 1.0001))
    np.testing.assert_allclose(flat[:, 2:], 4)


@pytest.mark.parametrize("knobs", [{"scale": 2.0}, {"area": 0.2, "aspect": 1.5}])
def test_crops_of_random_size_are_functions_of_the_key_and_training_s_alone(knobs):
    data = Data(normalize="unit", crop=4, flip=True, **knobs)
    fixed = (knobs.get("scale", 1.0), knobs.get("area", 1.0), knobs.get("aspect", 1.0))
    images, crop = pictures(300), Data(normalize="unit", crop=4)

    @jax.jit
    def view(key, scale, area, aspect):
        numbers = (0.0, 0.0, scale, area, aspect)
        return augment.augment(key, images, data, *MOMENTS, *numbers)

    first, again = (np.asarray(view(jax.random.key(0), *fixed)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (300, 4, 4, 2) and 0 < first.min() and first.max() < 1.001
    assert (np.asarray(view(jax.random.key(1), *fixed)) != first).mean() > 0.9
    weaker = [1 + (x - 1) / 2 for x in fixed]
    assert (np.asarray(view(jax.random.key(0), *weaker)) != first).mean() > 0.5  # traced
    for other in (data, crop):
        seen = augment.evaluate_view(images, other, *MOMENTS[:2])
        np.testing.assert_array_equal(seen, augment.evaluate_view(images, crop, *MOMENTS[:2]))
    assert "dot_general" not in jaxpr(crop) and "dot_general" in jaxpr(data)


def test_runs_side_by_side_draw_what_they_draw_alone():
    images, data = many(64), Data(normalize="unit", shift=1, flip=True)
    keys = jax.random.split(jax.random.key(3), 3)
    f = compiled(data)
    together = jax.jit(jax.vmap(f, in_axes=(0, None, None, None)))(keys, images, 0.0, 0.0)
    for one, key in zip(together, keys, strict=True):
        np.testing.assert_array_equal(one, f(key, images, 0.0, 0.0))


def test_normalisations():
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    two = np.concatenate([images, images], -1)
    expected = {
        "unit": [[0, 0], [0.2, 0.2], [1, 1]],
        "standardize": [[-2, -5 / 3], [0, -1], [8, 5 / 3]],
        "lecun1998": [[-0.1, -0.1], [0.155, 0.155], [1.175, 1.175]],
    }
    assert expected.keys() == augment.NORMALIZERS.keys()
    for name, values in expected.items():
        data = Data(normalize=name)  # type: ignore[arg-type]
        for x in (run(data, two), augment.evaluate_view(two, data, MEAN, STD)):
            assert x.dtype == np.float32
            np.testing.assert_allclose(np.asarray(x)[:, 0, 0], values, atol=1e-6)


def test_a_channel_that_never_changes_becomes_zero():
    images = np.full((2, 3, 3, 1), 51, np.uint8)
    x = augment.evaluate_view(images, Data(), np.float32([0.2]), np.float32([0.0]))
    np.testing.assert_allclose(x, 0, atol=1e-6)


@pytest.mark.parametrize(("pad", "crop"), [(0, None), (2, None), (0, 4), (0, 5), (1, 4), (2, 5)])
def test_evaluation_sees_the_centre(pad, crop):
    images = pictures(3, 8, 7)
    data = Data(normalize="unit", pad=pad, crop=crop, shift=2, flip=True, noise=1.0)
    got = np.rint(np.asarray(augment.evaluate_view(images, data, MEAN, STD)) * 255)
    expected = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    if crop:
        top, left = (expected.shape[1] - crop) // 2, (expected.shape[2] - crop) // 2
        expected = expected[:, top : top + crop, left : left + crop]
    np.testing.assert_array_equal(got, expected)


def test_the_promised_shape_is_the_shape():
    images = pictures(2, 8, 7)
    for pad, crop, shift in itertools.product((0, 2), (None, 3, 7), (0, 3)):
        data = Data(pad=pad, crop=crop, shift=shift)
        shape = augment.image_shape(data, images.shape[1:])
        for f in (
            lambda x, data=data: augment.augment(jax.random.key(0), x, data, *MOMENTS, 0.0, 0.0),
            lambda x, data=data: augment.evaluate_view(x, data, MEAN, STD),
        ):
            assert jax.eval_shape(f, images).shape == (2, *shape)
    assert augment.image_shape(Data(pad=2), (28, 28, 1)) == (32, 32, 1)
    assert augment.image_shape(Data(pad=4, crop=32), (32, 32, 3)) == (32, 32, 3)


def test_no_room():
    with pytest.raises(InputError, match=r"data\.crop: 33 .* 32x32 .* at most 32"):
        augment.image_shape(Data(pad=2, crop=33), (28, 28, 1))
    with pytest.raises(InputError, match=r"data\.crop: 9 .* at most 8"):
        augment.image_shape(Data(crop=9), (8, 12, 3))
    with pytest.raises(InputError, match=r"data\.shift: 28 .* below 28"):
        augment.image_shape(Data(shift=28), (28, 28, 1))
