"""Heatmaps in the place of a net's head: their weights, and the points that they give."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from traced import program, results, shapes, uses

from jaxcnn.models.heatmaps import Heatmaps


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("vgg11_cifar", {"widths": (4, 8, 16)}),
        ("resnet20", {"widths": (4, 8, 16), "blocks": (1, 1, 1)}),
    ],
)
@pytest.mark.parametrize("stages", [1, 2])
def test_heatmaps_take_the_head_s_place(name: str, small: dict[str, Any], stages: int) -> None:
    """A 1x1 convolution of each stage asked for and no other weights behind the net's own; of any
    size of picture; the softmax is over the places of the finest of those maps.
    """
    fields = {**small, "classes": 10, "heatmaps": stages}
    params, plain = shapes(name, (32, 32, 1), **fields), shapes(name, (32, 32, 1), **small)
    own = params.pop("heatmaps")
    assert {k: v["kernel"].shape for k, v in own.items()} == {
        f"score{i}": (1, 1, 4 * 2 ** (i - 1), 5) for i in range(4 - stages, 4)
    }
    assert params == {k: v for k, v in plain.items() if not k.startswith("fc")}
    assert shapes(name, (64, 48, 1), **fields)["heatmaps"] == own
    side = 8 * 2 ** (stages - 1)
    text = program(name, (32, 32, 1), **fields)
    assert (2, side * side, 5) in results(text, "exp")
    assert not uses(text, "random_bits")


def test_a_point_is_its_map_s_centre_of_mass() -> None:
    """Of two stages, one at half the size: one cell, halfway between two, and a coarse one."""
    head = Heatmaps(outputs=4, stages=2, initializer="he_normal")
    fine, coarse = np.zeros((3, 8, 8, 2), np.float32), np.zeros((3, 4, 4, 2), np.float32)
    fine[0, 1, 6, 0] = fine[0, 0, 0, 1] = 1
    fine[1, 2, 1, 0] = fine[1, 2, 2, 0] = fine[1, 7, 7, 1] = 1
    coarse[2, 1, 2, 0] = 1
    unit = {"kernel": 100 * jnp.eye(2)[None, None], "bias": jnp.zeros(2)}
    params = {"params": {"score2": unit, "score3": unit}}
    nothing = jnp.zeros((3, 16, 16, 2))

    @jax.jit
    def found(fine: jax.Array) -> jax.Array:
        return head.apply(params, [nothing, fine, jnp.asarray(coarse)])  # type: ignore

    cells = [[6, 1, 0, 0], [1.5, 2, 7, 7], [4.5, 2.5, 3.5, 3.5]]
    want = (2 * np.array(cells) + 1) / 8 - 1
    np.testing.assert_allclose(found(jnp.asarray(fine)), want, atol=1e-4)
    slope = jax.grad(lambda x: found(x)[1, 0])(jnp.asarray(fine))
    assert np.isfinite(slope).all() and float(slope[1, 2, 2, 0]) > 0 > float(slope[1, 2, 1, 0])
