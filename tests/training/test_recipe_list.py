"""The named set-ups: names, papers, settings, misspelt names."""

from __future__ import annotations

import pytest

from fastneg.errors import FastnegError
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
