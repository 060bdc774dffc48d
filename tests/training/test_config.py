"""The TOML writer: what it writes, tomllib reads back."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.training.config import from_toml, to_toml
from fastneg.training.settings import Settings


def test_toml_round_trip():
    settings = Settings(loss="mixed", num_uniform=7, learning_rate=1e-5, temperature=1e22)
    name = 'a "b"\n\\ \x7f é 😀'
    text = to_toml({"recipe": name, "refit": False, "settings": settings.to_dict()})
    read = tomllib.loads(text)
    assert read["recipe"] == name
    assert read["refit"] is False
    assert Settings.from_dict(read["settings"]) == settings
    assert "item_hidden_layers" not in read["settings"]


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.one_of(
            st.booleans(),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False),
            st.text(st.characters(exclude_categories=["Cs"])),
            st.lists(st.integers(-9, 9)),
        ),
        max_size=5,
    )
)
def test_toml_reads_back_what_was_written(table):
    assert tomllib.loads(to_toml({"a b": table})) == {"a b": table}


def test_toml_refuses_what_it_cannot_write():
    with pytest.raises(FastnegTypeError, match="cannot write"):
        to_toml({"a": object()})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "[" * 5000, "it is nested too deeply"),
        ("x = " + "[" * 3000 + "]" * 3000, "it is nested too deeply"),
        ("x = " + "{a=" * 3000 + "1" + "}" * 3000, "it is nested too deeply"),
        ("x = " + "9" * 5000, "Exceeds the limit"),
        ("x = ", "Invalid value"),
    ],
)
def test_toml_that_cannot_be_read(text, message):
    with pytest.raises(FastnegError, match=message):
        from_toml(text)
