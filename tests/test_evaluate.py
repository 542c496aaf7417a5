"""Errors of given weights, from the pictures to the table: each picture is counted once, and what
cannot be judged is said before long work.
"""

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from photographs import CLASSES, jpeg, make, photo

from jaxcnn import evaluate, jobs, models, weights
from jaxcnn.config import InputError
from jaxcnn.data import photos
from jaxcnn.data.photos import open_split
from jaxcnn.data.stream import LEFT_OUT


def test_inputs_are_what_the_weights_were_trained_on():
    pixel = jnp.array([255, 0, 128], jnp.uint8).reshape(1, 1, 1, 3)
    torch = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    np.testing.assert_allclose(jobs.torchvision_input(pixel).ravel(), torch, rtol=1e-5)
    caffe = [128 - 103.939, 0 - 116.779, 255 - 123.68]
    np.testing.assert_allclose(jobs.caffe_input(pixel).ravel(), caffe, rtol=1e-5)


def opinionated() -> tuple[Any, Any]:
    """A ResNet-20 that tells pictures and crops apart and is sure of none, unlike a new one."""
    model = models.create_model("resnet20")
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    x = np.stack([photo(100 * i, 32, 32) for i in range(10)]) / 255
    x = ((x - jobs.MEAN) / jobs.STD).astype(np.float32)
    logits = np.asarray(model.apply(variables, x, train=False)[0])
    scale = logits.std(0).mean()
    fc = variables["params"]["fc"]
    fc = {"kernel": fc["kernel"] / scale, "bias": jnp.asarray(-logits.mean(0) / scale)}
    return model, variables | {"params": variables["params"] | {"fc": fc}}


def test_errors_are_counted_once_and_nothing_is_given_away():
    scores = jnp.array(np.eye(8, dtype=np.float32)[[1, 1, 1, 1]] + np.linspace(0.1, 0, 8))
    labels = jnp.array([1, 7, 4, LEFT_OUT])  # best; in place 8; in place 5; left out
    assert evaluate.count(scores, labels).tolist() == [3, 2, 1]
    broken = jnp.full((2, 8), jnp.nan)
    assert evaluate.count(broken, jnp.array([0, 3])).tolist() == [2, 2, 2]


def test_wilsons_interval():
    # By hand: (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    z, n, p = 1.959964, 50, 0.1
    root = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    want = [(p + z**2 / (2 * n) + sign * root) / (1 + z**2 / n) for sign in (-1, 1)]
    np.testing.assert_allclose(evaluate.interval(5, 50), want, rtol=1e-6)


def test_places_of_some_classes_among_all(tmp_path):
    model = models.create_model("resnet20")
    names = [f"n{i:08d}" for i in (5, 3, 9, 1, 7, 2, 8, 4, 6, 0)]
    path = tmp_path / "synsets.txt"
    path.write_text("\n".join(f"{n} a word, another" for n in names) + "\n")
    synsets = jobs.read_synsets(path)
    assert jobs.output_places(["n00000002", "n00000007"], model, synsets) == [2, 7]
    assert jobs.output_places(CLASSES, model) == list(range(10))
    for classes, named, words in (
        (CLASSES[:4], None, "has 4 classes and the model 10"),
        (CLASSES[:4], synsets[:9], "names 9 classes and the model has 10"),
        (("cat", "n00000002"), synsets, "1 of its 2 classes are none of --synsets: cat"),
    ):
        with pytest.raises(InputError, match=words):
            jobs.output_places(classes, model, named)


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A ResNet-20 with random weights, as a file."""
    _, variables = opinionated()
    path = tmp_path_factory.mktemp("weights") / "resnet20.npz"
    weights.save(path, variables, model="resnet20")
    return path, variables


def test_evaluate_on_the_command_line(weighted, tmp_path, command):
    path, variables = weighted
    make(tmp_path, "val", 3)
    bad = tmp_path / "val" / CLASSES[6] / f"{CLASSES[6]}_1.JPEG"
    bad.write_bytes(b"")
    source = open_split(tmp_path, "validation", 36)
    read = [
        photos.read(source, i) for i in range(30) if source.name(i) != f"{CLASSES[6]}/{bad.name}"
    ]
    shown = np.stack([image for image, _ in read])[:, 2:34, 2:34]
    x = ((shown / 255 - jobs.MEAN) / jobs.STD).astype(np.float32)
    logits = models.create_model("resnet20").apply(variables, x, train=False)[0]
    order, labels = np.argsort(-np.asarray(logits), -1), np.array([n for _, n in read])
    wrong = [int((order[:, :k] != labels[:, None]).all(-1).sum()) for k in (1, 5)]
    assert len(np.unique(order[:, 0])) > 1  # a net that says the same of all would show nothing
    arguments = ("evaluate", "resnet20", "--weights", path, "--data", tmp_path, "--resize", 36)
    record = tmp_path / "record.json"
    code, out, err = command(*arguments, "--batch-size", 9, "--out", record)
    assert code == 0, err
    assert "1 pictures could not be read and are left out" in out
    assert f"{CLASSES[6]}/{bad.name}: it is empty" in out
    assert "29 pictures, " in out and "pictures/s" in out
    assert f"{100 * wrong[0] / 29:.2f}" in out and f"{100 * wrong[1] / 29:.2f}" in out
    written = json.loads(record.read_text())
    assert [written[k]["errors"] for k in ("top1", "top5")] == wrong
    assert written["pictures"] == 29 and len(written["unreadable"]) == 1
    # Shards, ten crops, some of the pictures, some of the classes
    code, out, err = command(
        *("prepare", tmp_path, "--to", tmp_path / "shards", "--side", 36, "--form", "pixels"),
        *("--workers", 1),
    )
    assert code == 0, err
    assert "validation, 30 pictures in 1 shards; 1 could not be read" in out
    arguments = (*arguments[:5], tmp_path / "shards", "--resize", 36)
    code, out, err = command(*arguments, "--batch-size", 9, "--out", record)
    assert code == 0, err
    again = json.loads(record.read_text())
    assert (again["top1"], again["top5"]) == (written["top1"], written["top5"])
    code, out, err = command(*arguments, "--crops", 10, "--limit", 12, "--out", record)
    assert code == 0, err
    assert "resnet20, 10 crops, here" in out
    assert json.loads(record.read_text())["pictures"] in (11, 12)


def test_evaluate_on_some_of_the_classes(weighted, tmp_path, command):
    path, variables = weighted
    make(tmp_path, "val", 8, CLASSES[1:4])
    (tmp_path / "synsets.txt").write_text("".join(f"{name} a word\n" for name in CLASSES[::-1]))
    source = open_split(tmp_path, "validation", 32)
    x = np.stack([photos.read(source, i)[0] for i in range(24)]) / 255
    x = ((x - jobs.MEAN) / jobs.STD).astype(np.float32)
    logits = models.create_model("resnet20").apply(variables, x, train=False)[0]
    best = np.asarray(logits).argmax(-1)
    wrong, as_first = (int((best != np.repeat(p, 8)).sum()) for p in ([1, 2, 3], [0, 1, 2]))
    assert wrong != as_first
    record = tmp_path / "record.json"
    code, _, err = command(
        *("evaluate", "resnet20", "--weights", path, "--data", tmp_path, "--resize", 32),
        *("--synsets", tmp_path / "synsets.txt", "--batch-size", 9, "--out", record),
    )
    assert code == 0, err
    assert json.loads(record.read_text())["top1"]["errors"] == wrong


def test_devices_share_a_batch_that_they_do_not_divide(weighted, tmp_path):
    path, _ = weighted
    make(tmp_path, "val", 3)
    source = open_split(tmp_path, "validation", 32)
    job = jobs.of_weights("resnet20", path, source)
    alone, shared = (evaluate.judge(job, batch_size=9, devices=jax.devices()[:n]) for n in (1, 8))
    assert (alone.pictures, alone.errors) == (shared.pictures, shared.errors)
    assert alone.pictures == 30 and 0 < alone.errors[1] < 30


def test_evaluate_refuses_before_long_work(weighted, tmp_path, command):
    path, _ = weighted
    make(tmp_path, "train", 1, CLASSES[:4])
    line = ("evaluate", "resnet20", "--weights", path, "--data", tmp_path)
    for more, words in (
        ((), "--split: .* has no 'validation', only train"),
        (("--split", "train"), "it has 4 classes and the model 10"),
        (("--split", "train", "--synsets", tmp_path / "absent"), "--synsets: .* cannot be read"),
    ):
        code, _, err = command(*line, *more)
        assert code == 2
        assert re.search(words, err), err
    make(tmp_path, "val", 1)
    for name in CLASSES[4:]:
        (tmp_path / "train" / name).mkdir()
        (tmp_path / "train" / name / "a.JPEG").write_bytes(jpeg(photo(0)))
    code, _, err = command(*line, "--resize", 31)
    assert code == 2 and "--resize: 31 is less than the 32 pixels of 'resnet20'" in err
    code, _, err = command("prepare", tmp_path)
    assert code == 2 and "--to: " in err
    code, _, err = command("prepare", "cifar10", "--side", 64)
    assert code == 2 and "--side, --shard-size, --workers: of shards; name their --to" in err
    code, _, err = command("prepare", tmp_path, "--to", tmp_path / "s", "--archives", tmp_path)
    assert code == 2 and "--archives: has no use beside --to" in err
    code, _, err = command("evaluate", "lenet5", *line[2:])
    assert code == 2 and "channel" in err
    code, _, err = command("evaluate", "resnet21", *line[2:])
    assert code == 2 and "Did you mean" in err


def test_published_figures_stand_below_ours():
    result = evaluate.Evaluation(1000, (240, 70), {}, 2.0)
    rows = evaluate.table("resnet50_v1.5", result, 1).rows
    assert rows[0]["top1"] == 24 and rows[0]["top1_interval"] == "21.46 to 26.74"
    assert [row["top1"] for row in rows[1:]] == [23.87, 19.142, 23.45]
    assert [row["top1"] for row in evaluate.table("alexnet", result, 10).rows[1:]] == [40.7]
    assert len(evaluate.table("resnet20", result, 1).rows) == 1
