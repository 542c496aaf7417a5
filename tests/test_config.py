"""The one strict override, and the digest that names a run's folder."""

import dataclasses
from typing import get_args

import pytest

from jaxcnn import config, ops
from jaxcnn.checks import check
from jaxcnn.config import InputError, Run, override


def test_override_takes_values_and_the_command_line_s_words_alike() -> None:
    typed = {
        "optim.lr": 1,
        "train.steps": None,
        "data.flip": True,
        "model.widths": (30, 20),
        "optim.milestones": (0.5,),
        "model.pool_window": 3,
        "model.dropout": "paper",
        "start.data": None,
        "start.layers": ("C1", "conv*"),
        "data.classes": (7, 2),
    }
    words = {
        "optim.lr": "1",
        "train.steps": "none",
        "data.flip": "true",
        "model.widths": "30,20",
        "optim.milestones": "0.5",
        "model.pool_window": "3",
        "model.dropout": "paper",
        "start.data": "none",
        "start.layers": "C1,conv*",
        "data.classes": "7,2",
    }
    run = override(Run(), typed)
    assert run == override(Run(), words)
    assert (run.optim.lr, run.data.flip, run.model.widths) == (1.0, True, (30, 20))
    assert isinstance(run.optim.lr, float)
    assert Run().optim.lr != 1.0


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("optim.lrr", 0.1, "Did you mean optim.lr"),
        ("lr", "0.1", "Did you mean optim.lr"),
        ("optim", 1, "a group of fields"),
        ("optim.lr.x", 1, "has no fields"),
        ("optim.lr", "fast", "'fast' is not a number"),
        ("optim.lr", True, "True is not a number"),
        ("train.batch_size", 1.5, "1.5 is not one of a whole number, 'auto'"),
        ("train.batch_size", "1.5", "'1.5' is not one of a whole number"),
        ("data.flip", "yes", "'yes' is not true or false"),
        ("model.activation", "sigmod", "Did you mean sigmoid"),
        ("model.widths", "30,x", "is not one of a list of int, 'paper'"),
        ("data.name", 3, "3 is not text"),
    ],
)
def test_override_names_path_value_and_choices(path: str, value: object, said: str) -> None:
    with pytest.raises(InputError) as error:
        override(Run(), {path: value})
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("optim.lr", 0.0),
        ("optim.lr", float("nan")),
        ("optim.momentum", 1.0),
        ("model.dropout", 1.0),
        ("optim.milestones", (0.7, 0.2)),
        ("train.batch_size", 0),
        ("train.steps", 0),
        ("seed", -1),
    ],
)
def test_check_names_a_number_outside_its_range(path: str, value: object) -> None:
    run = override(Run(), {path: value})
    with pytest.raises(InputError, match=f"^{path}: .* must be "):
        check(run)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.scale": 2.0}, "data.scale: 2 needs the side of the crop, data.crop"),
        ({"data.scale": 2.0, "data.area": 0.1}, "data.area: 0.1 has no use beside data.scale: 2"),
        ({"data.area": 0.1, "data.crop": 8, "data.pad": 2}, "no use beside data.pad: 2"),
        ({"data.area": 0.1, "data.crop": 8, "data.shift": 2}, "no use beside data.shift: 2"),
        ({"data.aspect": 2.0}, "data.aspect: 2 is of data.area, which is 1: off"),
        ({"model.heatmaps": 2}, "model.heatmaps: 2; they find points: train.objective landmarks"),
        (
            {"model.heatmaps": 2, "model.head": (9,), "train.objective": "landmarks"},
            "model.head: (9,) is of the fully-connected layers, in whose place model.heatmaps, 2",
        ),
        ({"data.side": 64}, "data.side: 64 is of streamed pictures: data.stream=true"),
    ],
)
def test_check_names_what_does_not_go_together(changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as error:
        check(override(Run(), changes))
    assert said in str(error.value)


def test_what_is_overridden_is_as_if_made_so() -> None:
    made = Run(optim=config.Optim(lr=0.5), seed=3)
    found = override(Run(), {"optim.lr": 0.5, "seed": 3})
    assert found == made and hash(found) == hash(made) and vars(found) == vars(made)
    assert dataclasses.replace(found, seed=4).optim is found.optim
    for part in (Run(), *vars(Run()).values()):  # nothing happens as one is made: override skips it
        assert not hasattr(part, "__post_init__")


def test_dict_round_trip() -> None:
    run = override(Run(), {"model.widths": (3, 4), "data.crop": 24, "seed": 7})
    assert config.from_dict(Run, config.to_dict(run)) == run


def test_digest_tells_runs_apart_and_ignores_defaults() -> None:
    changed = [
        override(Run(), {path: value})
        for path, value in (("seed", 1), ("optim.lr", 0.02), ("model.widths", (3,)))
    ]
    digests = [config.digest(run) for run in (Run(), *changed)]
    assert len(set(digests)) == 4
    # Equal to that of an empty object: a field that is added later changes no digest.
    assert digests[0] == "44136fa355"


def test_every_field_reaches_the_digest() -> None:
    other = {bool: True, int: 91, float: 0.377, str: "other", type(None): 91, tuple: (0.1, 0.9)}
    for path in config.paths(Run()):
        group, _, name = path.rpartition(".")
        part = getattr(Run(), group) if group else Run()
        changed = dataclasses.replace(part, **{name: other[type(getattr(part, name))]})
        run = dataclasses.replace(Run(), **{group: changed}) if group else changed
        assert config.digest(run) != config.digest(Run()), path


def test_the_words_of_config_are_the_choices_of_ops() -> None:
    assert set(get_args(config.Activation)) == {"paper", *ops.ACTIVATIONS}
    assert set(get_args(config.Initializer)) == {"paper", *ops.INITS}
    assert set(get_args(config.Pool)) == {"paper", *ops.POOLS}


def test_steps_follow_from_epochs_unless_set() -> None:
    run = override(Run(), {"train.epochs": 2.0, "train.batch_size": 100})
    assert config.total_steps(run, 1050) == 20
    assert config.total_steps(override(run, {"train.steps": 7}), 1050) == 7
    assert config.eval_interval(run, 1050) == 10
