"""Settings: ranges, combinations, --set parsing."""

from __future__ import annotations

import dataclasses
import json
import tomllib

import pytest

from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.recipes import recipes
from fastneg.training.config import to_toml
from fastneg.training.settings import LOSSES, Settings, parse_overrides, setting_names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "dim = 0 is too small; give 1 or more"),
        ({"dim": 1.5}, "dim = 1.5 is not an integer"),
        ({"batch_size": True}, "batch_size = True is a bool"),
        ({"learning_rate": 0}, r"learning_rate = 0.0 must be greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan is not finite"),
        ({"temperature": -0.1}, "temperature = -0.1 must be greater than 0"),
        ({"dropout": 1.0}, "dropout = 1.0 is too large"),
        ({"weight_decay": -1.0}, "weight_decay = -1.0 is too small"),
        ({"loss": "softmax"}, "loss = 'softmax' is not one of 'in_batch', 'mixed'"),
        ({"correction": "yes"}, "correction = 'yes' is not one of 'expected_count'"),
        ({"rewards": 1}, "rewards = 1; give true or false"),
        ({"window": (500, 101)}, r"window = \(500, 101\) ends before it starts"),
        ({"window": (0, 5)}, r"window\[0\] = 0 is too small"),
        ({"window": (1, 2, 3)}, "has 3 ranks; give two"),
        ({"window": "101"}, "give two ranks"),
        ({"device": "gpu"}, "device = 'gpu'; give 'auto', 'cpu'"),
        ({"shared": True}, "shared = true goes with loss = 'sampled_softmax', not 'bpr'"),
        ({"loss": "mixed"}, "loss = 'mixed' needs num_uniform"),
        ({"num_uniform": 5}, "num_uniform = 5 goes with loss = 'mixed'"),
        ({"loss": "in_batch", "batch_size": 1}, "leaves loss = 'in_batch' no negatives"),
        ({"window": (101, 110)}, r"num_mined = 20 are more than the 10 ranks of window"),
        ({"init_std": 0.0}, "init_std = 0.0 must be greater than 0"),
        ({"subsample_positives": 0}, "subsample_positives = 0.0 is not a share; give more than 0"),
        ({"subsample_positives": -1e-4}, "subsample_positives = -0.0001 is not a share"),
        ({"subsample_positives": 100}, "subsample_positives = 100.0 is not a share"),
        ({"subsample_positives": float("nan")}, "subsample_positives = nan is not finite"),
        ({"subsample_positives": "1e-4"}, "subsample_positives = '1e-4' is not a number"),
        ({"subsample_formula": "book"}, "subsample_formula = 'book' is not one of 'program', "),
        ({"subsample_weights": 1}, "subsample_weights = 1; give true or false"),
        ({"subsample_weights": True}, "subsample_weights = true goes with a threshold"),
        (
            {"loss": "gbce", "shared": True},
            "not 'gbce' \\('nce', 'hinge', 'ccl', 'bsl' take it too",
        ),
        ({"loss": "gbce", "sampler": "popularity"}, "'uniform', not 'popularity', or another loss"),
        ({"loss": "in_batch", "exclude_positives": False}, "goes with negatives of each row's own"),
        (
            {"loss": "ccl", "similarity": "cosine", "shared": True, "exclude_positives": False},
            "goes with negatives of each row's own",
        ),
        ({"loss": "gbce", "rounds": 2}, "rounds = 2 mines .* corrects for uniform negatives alone"),
        ({"loss": "nce", "rounds": 2}, "rounds = 2 mines .* needs the noise's probability"),
        ({"loss": "full_softmax", "rounds": 3}, "rounds = 3 mines .* has every item as a negative"),
        ({"loss": "ccl"}, "loss = 'ccl' is of cosines; give similarity = 'cosine', not 'dot'"),
        ({"loss": "ccl", "similarity": "cosine", "margin": 1.5}, "margin = 1.5 is too large for"),
        ({"loss": "hinge", "margin": -0.5}, "margin = -0.5 is too small for loss = 'hinge'"),
        ({"margin": -1.5}, "margin = -1.5 is too small"),
        ({"negative_weight": -1.0}, "negative_weight = -1.0 is too small"),
        ({"positive_temperature": 0}, "positive_temperature = 0.0 must be greater than 0"),
        ({"calibration": 1.5}, "calibration = 1.5 is too large; give 1.0 or less"),
        ({"memory_budget": 0}, "memory_budget = 0 is too small"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(FastnegError, match=message):
        Settings(**changes)


def test_types_are_normal():
    settings = Settings(learning_rate=1, window=[1, 99])
    assert isinstance(settings.learning_rate, float)
    assert settings.window == (1, 99)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.dim = 3


def test_unknown_setting_names_the_nearest():
    with pytest.raises(FastnegError, match=r"'learning_rat'; did you mean learning_rate or "):
        parse_overrides(["learning_rat=1"])
    with pytest.raises(FastnegError, match="'temprature'; did you mean temperature"):
        Settings().replace(temprature=1.0)
    with pytest.raises(FastnegError, match="known: dim, "):
        parse_overrides(["zzzzzz=1"])


def test_parse_overrides():
    values = parse_overrides(
        [
            "learning-rate=1e-2",
            "dim=1_28",
            "shared=false",
            "window=101,500",
            "loss=in_batch",
            "batch_size=none",
            "rewards=True",
            "dim=32",
            "sampler='popularity'",
        ]
    )
    assert values == {
        "learning_rate": 0.01,
        "dim": 32,
        "shared": False,
        "window": (101, 500),
        "loss": "in_batch",
        "batch_size": None,
        "rewards": True,
        "sampler": "popularity",
    }
    assert parse_overrides(["init_std=0.1"]) == {"init_std": 0.1}


def test_subsampling_is_set_from_text_on_any_recipe():
    text = ["subsample-positives=1e-4", "subsample_formula=paper", "subsample_weights=true"]
    values = parse_overrides(text)
    assert values == {
        "subsample_positives": 1e-4,
        "subsample_formula": "paper",
        "subsample_weights": True,
    }
    for one in recipes().values():
        settings = one.settings(values)
        assert settings.subsample_positives == 1e-4
        assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert parse_overrides(["subsample_positives=none"]) == {"subsample_positives": None}


def test_refreshing_is_set_from_text():
    text = ["refresh-every=2_000", "refresh_lag=none", "refresh_background=yes", "swap=when_ready"]
    values = parse_overrides(text)
    assert values == {
        "refresh_every": 2000,
        "refresh_lag": None,
        "refresh_background": True,
        "swap": "when_ready",
    }
    settings = Settings(**values)
    assert Settings.from_dict(tomllib.loads(to_toml(settings.to_dict()))) == settings


def test_a_loss_is_set_from_text_and_toml():
    text = ["loss=ccl", "similarity=cosine", "margin=0.4", "negative-weight=7", "shared=true",
            "positive_temperature=0.3", "calibration=0.5", "memory_budget=1_000_000"]  # fmt: skip
    settings = Settings(**parse_overrides(text))
    assert (settings.loss, settings.margin, settings.negative_weight) == ("ccl", 0.4, 7.0)
    assert (settings.positive_temperature, settings.calibration) == (0.3, 0.5)
    assert (settings.memory_budget, settings.per_row_negatives) == (1_000_000, False)
    assert Settings.from_dict(tomllib.loads(to_toml(settings.to_dict()))) == settings
    own = {"bpr", "bce", "gbce", "sampled_softmax", "nce", "hinge", "bsl"}
    for loss in set(LOSSES) - {"mixed", "ccl"}:
        assert Settings(loss=loss).per_row_negatives == (loss in own)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dim", "--set 'dim': give key=value"),
        ("=3", "give key=value"),
        ("dim=x", "--set dim=x: 'x' is not an integer"),
        ("dim=1.5", "is not an integer"),
        ("refresh_every=1.5", "'1.5' is not an integer or none"),
        ("window=5", "'5' is not two ranks, as in 101,500"),
        ("init_std=x", "'x' is not a number$"),
        ("learning_rate=fast", "'fast' is not a number"),
        ("shared=maybe", "is not true or false"),
        ("window=101", "is not two ranks"),
        ("batch_size=abc", "is not an integer or none"),
        ("subsample_positives=abc", "is not a number or none"),
        ("subsample_weights=0.5", "is not true or false"),
    ],
)
def test_parse_overrides_refuses(text, message):
    with pytest.raises(FastnegError, match=message):
        parse_overrides([text])


def test_every_setting_can_be_set_from_text():
    values = Settings().to_dict()
    for name in setting_names():
        value = values[name]
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        assert Settings().replace(**parse_overrides([f"{name}={text}"])) == Settings()


def test_dict_round_trip():
    settings = Settings(loss="mixed", num_uniform=7, window=(3, 90), init_std=0.5)
    assert Settings.from_dict(settings.to_dict()) == settings
    assert Settings.from_dict({}) == Settings()


def test_towers_are_set_from_text_and_toml():
    text = ["history=shared", "history_length=50", "item-hidden-layers=0", "learn_temperature=yes",
            "temperature_bounds=(0.05, 2)", "hidden_layers=2"]  # fmt: skip
    settings = Settings(**parse_overrides(text))
    assert (settings.history, settings.history_length) == ("shared", 50)
    assert (settings.hidden_layers, settings.item_hidden_layers) == (2, 0)
    assert (settings.learn_temperature, settings.temperature_bounds) == (True, (0.05, 2.0))
    assert Settings.from_dict(tomllib.loads(to_toml(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"history": "mean"}, "history = 'mean' is not one of 'none', 'shared', 'own'"),
        ({"history_length": 5}, "history_length = 5 goes with a history"),
        ({"history": "own", "history_length": 0}, "history_length = 0 is too small"),
        ({"history": "shared", "use_item_ids": False}, "use_item_ids = false"),
        ({"item_hidden_layers": -1}, "item_hidden_layers = -1"),
        ({"temperature_bounds": (1.0,)}, "give two numbers"),
        ({"temperature_bounds": (0.0, 1.0)}, r"temperature_bounds\[0\] = 0.0 must be greater"),
        ({"temperature_bounds": (2.0, 1.0)}, "ends before it starts"),
        ({"learn_temperature": True, "temperature": 20.0}, "temperature = 20.0 is not within"),
        ({"learn_temperature": True, "loss": "bsl"}, "loss = 'bsl' has two"),
        ({"loss": "bsl", "negative_weight": 1.2}, "negative_weight = 1.2 with loss = 'bsl'"),
    ],
)
def test_towers_that_mean_nothing(values, message):
    with pytest.raises(FastnegError, match=message):
        Settings(**values)


@pytest.mark.parametrize(
    "text",
    [
        "5", "[5]", "{a=1}", '"x"', "2020-01-01", "[[1]]", '[{source="in-batch"}]\nx = 1',
        "[" * 5000, "9" * 5000, '[{source="sampled", num_negatives=' + "9" * 5000 + "}]",
        '[{source="sampled", num_negatives=' + "9" * 4000 + "}]", "[{source=5}]", "nan",
    ],
)  # fmt: skip
def test_negatives_of_any_text(text):
    with pytest.raises(FastnegError) as raised:
        Settings(**parse_overrides([f"negatives={text}"]))
    assert len(str(raised.value)) < 400
    assert "negatives" in str(raised.value)


def made(name, number):
    """Settings with an integer, from text or from Python."""
    if isinstance(number, str):
        return Settings(**parse_overrides([f"{name}={number}"]))
    return Settings(**{name: number})


INTEGERS = [k for k, v in Settings().to_dict().items() if type(v) is int] + [
    "batch_size", "eval_users", "refresh_every", "refresh_lag", "history_length",
    "item_hidden_layers",
]  # fmt: skip


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_that_no_run_can_have(name):
    """Beyond 64 bits, and beyond what Python prints, from text and from Python."""
    for number in (1 << 64, 10**40, -(10**40), 10**5000, "9223372036854775808000", "9" * 5000):
        with pytest.raises(FastnegError, match=name) as raised:
            made(name, number)
        assert len(str(raised.value)) < 300
    if "seed" not in name:
        with pytest.raises(FastnegError, match=name):
            made(name, "9223372036854775808")


@pytest.mark.parametrize("window", [(1, 1 << 40), (1 << 40, 1 << 41), (1, 10**5000)])
def test_windows_that_no_catalog_has(window):
    with pytest.raises(FastnegError, match=r"window\[\d\] = .* is too large"):
        Settings(window=window)


@pytest.mark.parametrize("values", [5, None, "dim=4", [("dim", 4)], {5: 1}, {None: 1}])
def test_settings_that_are_no_mapping(values):
    with pytest.raises(FastnegTypeError, match=r"^Settings.from_dict: "):
        Settings.from_dict(values)
