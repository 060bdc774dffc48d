"""Products by panels and the choice among them, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.kernels.jit import kernel
from fastneg.kernels.panels import LANES, TILE, extremes, multiply_tile, pack_panels, take


@kernel
def _take_all(line, count, bound, codes, to_codes, to_scores):
    at = 0
    for place in range(0, count, LANES):
        at += take(line, place, count - place, bound, codes, place, to_codes, to_scores, at)
    return at


@kernel
def _ends(values, count):
    return extremes(values, count)


def panels_of(vectors, lists, num_lists):
    sizes = np.bincount(lists, minlength=num_lists)
    borders = np.concatenate(([0], np.cumsum(sizes)))
    panel_borders = np.concatenate(([0], np.cumsum(-(-sizes // LANES))))
    order = np.concatenate((np.argsort(lists, kind="stable"), np.zeros(LANES))).astype(np.int32)
    panels = np.full(panel_borders[-1] * vectors.shape[1] * LANES, np.nan, np.float32)
    pack_panels(vectors, order, borders, panel_borders, 0, panels)
    return panels, order, borders, panel_borders


@pytest.mark.parametrize("width", [1, 7, 16, 50])
@pytest.mark.parametrize("num_items", [1, 15, 16, 17, 33, 100])
def test_products_of_a_tile(width, num_items):
    rng = np.random.default_rng(width)
    items = rng.integers(-9, 10, (num_items, width)).astype(np.float32)
    queries = rng.integers(-9, 10, (TILE, width)).astype(np.float32)
    panels, *_, panel_borders = panels_of(items, np.zeros(num_items, np.int32), 1)
    count = int(panel_borders[-1])
    stride = count * LANES + 5
    lines = np.full(TILE * stride + 3, -1.0, np.float32)
    multiply_tile(queries.ravel(), width, panels, 0, count, lines, stride)
    assert (lines[TILE * stride :] == -1).all()
    got = lines[: TILE * stride].reshape(TILE, stride)
    assert (got[:, count * LANES :] == -1).all()
    np.testing.assert_array_equal(got[:, :num_items], queries @ items.T)
    assert (got[:, num_items : count * LANES] == 0).all()


def test_panels_of_lists_some_of_them_empty_and_from_a_later_panel_on():
    rng = np.random.default_rng(1)
    items = rng.standard_normal((90, 3)).astype(np.float32)
    lists = rng.choice([0, 2, 3, 6], 90).astype(np.int32)
    panels, order, borders, panel_borders = panels_of(items, lists, 7)
    cells = panels.reshape(-1, 3, LANES)
    for one in range(7):
        held = items[lists == one]
        part = cells[panel_borders[one] : panel_borders[one + 1]].transpose(0, 2, 1).reshape(-1, 3)
        np.testing.assert_array_equal(part[: len(held)], held)
        assert (part[len(held) :] == 0).all()
    first = int(panel_borders[2])
    rest = np.empty((panel_borders[-1] - first) * 3 * LANES, np.float32)
    pack_panels(items, order, borders[2:], panel_borders[2:], first, rest)
    np.testing.assert_array_equal(rest, panels[first * 3 * LANES :])


@pytest.mark.parametrize("bound", [-np.inf, -0.5, 0.0, 1.0, 9.0])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 200])
def test_what_reaches_a_bound_is_taken_in_order(bound, count):
    rng = np.random.default_rng(count)
    line = rng.integers(-8, 9, count + LANES).astype(np.float32) / 8
    codes = rng.permutation(count + LANES).astype(np.int32)
    to_codes, to_scores = np.empty(count + LANES, np.int32), np.empty(count + LANES, np.float32)
    taken = _take_all(line, count, np.float32(bound), codes, to_codes, to_scores)
    wanted = np.flatnonzero(line[:count] >= bound)
    assert taken == wanted.size
    np.testing.assert_array_equal(to_codes[:taken], codes[wanted])
    np.testing.assert_array_equal(to_scores[:taken], line[wanted])


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 100])
def test_extremes(count):
    rng = np.random.default_rng(count)
    for _ in range(20):
        values = rng.standard_normal(count + 3).astype(np.float32) * 100
        values[count:] = [np.inf, -np.inf, 1e30]
        assert _ends(values, count) == (values[:count].min(), values[:count].max())
