"""The claims that a calculation decides: figures, verdicts, and that a wrong claim is refuted."""

import csv
import io
from collections.abc import Callable

import pytest

from jaxcnn import calculated, overview
from jaxcnn.config import InputError

Launch = Callable[..., tuple[int, str, str]]

EXPECTED = {
    "lenet5": ("supported", "C3 2,416, S4 0, C5 48,120, F6 10,164, output 850: 61,706"),
    "parameters_in_dense_layers": ("refuted", "VGG-16 89.4 %, GoogLeNet 14.6 %, ResNet-50 8.0 %"),
    "compute_in_convolutions": ("supported", "LeNet-5 85.9 %, AlexNet 91.9 %, VGG-16 99.2 %"),
    "map_sizes": ("supported", "180 of 180"),
    "padding_keeps_the_size": ("supported", "110 of 110 cases"),
    "convolution_is_dense": ("supported", "equal, but for rounding in 4 cases"),
    "two_linear_layers": ("supported", "with ReLU between, the best single layer is 26 % off"),
    "average_pooling_shares": ("supported", "0.25"),
    "max_pooling_chooses": ("supported", "in 4 of 4 windows"),
    "alexnet": ("refuted", "60,965,224"),
    "relu_derivative": ("supported", "at x = 5 sigmoid has 7e-03, tanh 2e-04"),
    "scaling_of_a_linear_layer": ("supported", "of two linear ones: equal"),
    "scaling_of_a_deep_net": ("refuted", "6 % off with two, 18 % with three"),
    "scaling_of_own_weights": ("refuted", "outputs scaled 0.00; own W and b scaled 0.00 ReLU"),
    "crops": ("refuted", "33^2 x 2 = 2,178"),
    "two_stacked": ("refuted", "5x5 pixels; 18 weights for 25"),
    "three_stacked": ("supported", "7x7 pixels; 27 weights for 49"),
    "googlenet": ("refuted", "6,998,552"),
    "fewer_than_alexnet": ("refuted", "8.7 times fewer"),
    "one_by_one": ("refuted", "a linear map of the channels, pixel by pixel (equal, but"),
    "depth": ("supported", "152 layers"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_verdict_and_figures(name: str) -> None:
    found = calculated.outcome(name)
    assert (found.verdict, EXPECTED[name][1] in found.computed) == (EXPECTED[name][0], True), found


def test_every_claim_is_here_and_has_its_source() -> None:
    assert [claim.name for claim in calculated.CLAIMS] == [*EXPECTED]
    assert all(claim.source and claim.said for claim in calculated.CLAIMS)
    with pytest.raises(InputError, match="'depths' is no calculated claim"):
        calculated.outcome("depths")


def test_a_wrong_figure_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(calculated.LENET5, "C3", 1516)
    assert calculated.lenet5().verdict == "refuted"
    assert calculated._stacked(3, field=7, weights=(18, 49)).verdict == "refuted"


def test_the_table(command: Launch) -> None:
    code, out, err = command("table", "claims", "--format", "csv")
    rows = [*csv.DictReader(io.StringIO(out))]
    assert (code, err) == (0, "")
    assert [row["verdict"] for row in rows] == [word for word, _ in EXPECTED.values()]
    for form in ("terminal", "markdown", "latex"):
        code, out, _ = command("table", "claims", "--format", form)
        assert code == 0 and "GoogLeNet has 5 million" in " ".join(out.split()), form
    assert len(overview.claims().rows) == len(EXPECTED)
