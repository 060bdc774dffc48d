"""The named set-ups: names, papers, settings, misspelt names."""

from __future__ import annotations

import pytest

from fastneg.commands.tables import recipe_as_toml
from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError
from fastneg.training import recipe_list
from fastneg.training.config import to_toml
from fastneg.training.recipe_list import recipe, recipes
from fastneg.training.settings import Settings


def test_names_and_errors():
    assert list(recipes()) == [
        "bpr",
        "ncf-loop",
        "in-batch",
        "in-batch-logq",
        "sampling-bias-corrected",
        "mixed-negative-sampling",
        "sampled-softmax",
        "facebook-ebr",
        "ccl",
        "bsl",
        "gbce",
        "full-softmax",
        "dns",
        "dns-m-n",
        "cross-batch",
        "taobao",
        "airbnb",
        "linkedin-jobs",
        "reinforced",
        "impressions-only",
        "youtube-dnn",
        "word2vec",
    ]
    for name, one in recipes().items():
        assert one.name == name
        assert one.description
        assert one.paper
        assert isinstance(one.settings(), Settings)
    with pytest.raises(FastnegError, match="no recipe is called 'brp'; did you mean bpr"):
        recipe("brp")
    with pytest.raises(FastnegError, match="'xyz'; known: bpr, ncf-loop"):
        recipe("xyz")
    with pytest.raises(FastnegError, match="no setting is called 'learning_rat'"):
        recipe("bpr").settings({"learning_rat": 1})


def test_what_a_recipe_changes_and_was_worth(tmp_path, monkeypatch):
    known = {"somewhere": {"dns": "better than bpr"}}
    monkeypatch.setattr(recipe_list, "_results", lambda: known)
    lines = recipe_as_toml("dns").splitlines()
    assert lines[2] == "# It changes negatives, learning_rate, l2, average_decay."
    assert lines[3] == "# On somewhere: better than bpr."
    assert lines[4] == 'recipe = "dns"'
    assert recipe_as_toml("ccl").splitlines()[3] == "# No result is recorded here."
    file = tmp_path / "dns.toml"
    file.write_text("\n".join(lines))
    assert recipe_as_toml(str(file)).splitlines() == lines  # a copy that nobody has changed
    file.write_text('recipe = "dns"\n[settings]\nepochs = 3\n')
    assert recipe(str(file)).name == "dns"
    assert recipe(str(file)).seen == {}  # another recipe now


def test_results_are_of_recipes():
    for found in recipe_list._results().values():
        assert found.keys() <= recipes().keys()
        assert "bpr" in found


@pytest.mark.parametrize("name", [5, None, b"bpr", ["bpr"], object()])
def test_what_is_no_name(name):
    with pytest.raises(FastnegTypeError, match=r"recipe: name = .*; give a recipe's name"):
        recipe(name)


def test_a_file_of_settings(tmp_path):
    file = tmp_path / "mine.toml"
    for name in recipes():  # what `fastneg recipes show` prints
        file.write_text(recipe_as_toml(name))
        assert recipe(str(file)).settings() == recipe(name).settings()
        assert recipe(str(file)).name == name
    file.write_text('recipe = "dns"\n[settings]\nepochs = 3\nwindow = [5, 90]\n')
    found = recipe(str(file))
    assert found.settings() == recipe("dns").settings({"epochs": 3, "window": (5, 90)})
    assert found.paper == recipe("dns").paper
    file.write_text("[settings]\nloss = 'hinge'\nmargin = 0.5\n")
    found = recipe(str(file))
    assert found.name == "mine"
    assert found.settings() == Settings().replace(loss="hinge", margin=0.5)
    file.write_text(to_toml({"recipe": "mine", "refit": True, "settings": Settings().to_dict()}))
    assert recipe(str(file)).settings() == Settings()  # config.toml of a run made from a file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe = ", "mine.toml is not TOML"),
        ("x = " + "[" * 5000, "mine.toml is not TOML: it is nested too deeply"),
        ("[settings]\ndim = " + "9" * 5000, "mine.toml is not TOML: Exceeds the limit"),
        ("[settings]\ndim = " + "9" * 4000, "dim = 9{60,80}[.]{3} is too large"),
        ("epochs = 3", "has epochs; it may have `recipe = NAME` and a table"),
        ("settings = 3", "has settings that are no table"),
        ('recipe = "brp"', "no recipe is called 'brp'; did you mean bpr"),
        ('recipe = "mine.toml"', "no recipe is called 'mine.toml'"),
        ("[settings]\nepoch = 3", "mine.toml: no setting is called 'epoch'"),
        ("[settings]\nepochs = 0", "mine.toml: .*epochs"),
        ("[settings]\nepochs = 'three'", "mine.toml: .*epochs"),
        ("[settings]\nwindow = 5", "mine.toml: .*window"),
        ("[settings]\nnegatives = [3]", "mine.toml: .*negatives"),
    ],
)
def test_a_file_that_is_none(tmp_path, text, said):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(FastnegError, match=said):
        recipe(str(file))
    with pytest.raises(FileFormatError, match="cannot be read: no such file"):
        recipe(str(tmp_path / "other.toml"))
