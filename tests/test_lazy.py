"""Modules that wait to be imported until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastneg.lazy import lazy_module


def test_a_lazy_module_is_the_module_once_it_is_used() -> None:
    import fractions

    lazy = lazy_module("fractions")
    assert lazy.Fraction is fractions.Fraction
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = lazy.nothing_of_the_kind


def test_drawing_does_not_wait_for_readers_of_files() -> None:
    code = (
        "import sys, numpy as np, fastneg\n"
        "seen = fastneg.Interactions.from_codes(np.arange(100) % 10, np.arange(100))\n"
        "fastneg.PopularitySampler(seen).sample(np.arange(10), 4)\n"
        "print([name for name in ('pyarrow', 'faiss', 'pandas') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
