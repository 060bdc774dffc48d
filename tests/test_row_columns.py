"""Times of one unit, and numbers of codes that memory holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from fastneg.errors import FastnegError
from fastneg.interactions import Interactions

DATES = pd.to_datetime(["2023-05-01 10:00:00", "2024-01-01 00:00:01", "1999-12-31 00:00:00"])
SECONDS = np.array([1_683_000_000, 1_704_067_201, 946_598_400])
UNITS = {"s": SECONDS, "s float": SECONDS + 0.5, "ms": SECONDS * 1_000, "us": SECONDS * 10**6,
         "ns": SECONDS * 10**9, "days": SECONDS // 86_400}  # fmt: skip


def made(times: object) -> Interactions:
    return Interactions.from_pairs([1, 2, 3], [4, 5, 6], times=times)


@pytest.mark.parametrize("unit", UNITS)
def test_other_units_are_not_appended_to_dates(unit: str) -> None:
    seen = made(DATES)
    if unit == "ns":
        assert seen.append([1], [9], times=UNITS[unit][:1]).num_rows == 4
        return
    with pytest.raises(FastnegError, match=r"Interactions\.append: times\[0\] = .* another unit"):
        seen.append([1], [9], times=UNITS[unit][:1])
    with pytest.raises(FastnegError, match="dates, as nanoseconds since 1970"):
        made(UNITS[unit]).append([1], [9], times=DATES[:1])


@pytest.mark.parametrize("first", UNITS)
@pytest.mark.parametrize("second", UNITS)
def test_numbers_of_one_unit_alone(first: str, second: str) -> None:
    seen, times = made(UNITS[first]), UNITS[second][:1]
    if first.split(maxsplit=1)[0] == second.split(maxsplit=1)[0]:
        assert seen.append([1], [9], times=times).num_rows == 4
    else:
        with pytest.raises(FastnegError, match="another unit"):
            seen.append([1], [9], times=times)


def test_the_first_time_that_has_a_unit_is_named() -> None:
    with pytest.raises(FastnegError, match=r"times\[1\] = 1683000000 is of another unit"):
        made(DATES).append([1, 1], [9, 9], times=[0, 1_683_000_000])


def test_times_that_differ_within_a_unit_are_appended() -> None:
    for old, new in (
        (DATES, pd.to_datetime(["2024-03-01"])),
        (pd.to_datetime([5, 6, 7], unit="s"), DATES[:1]),  # dates of 1970 are dates
        (DATES, pd.to_datetime([5], unit="s")),
        ([1, 2, 3], [1_000_000]),  # an order, counted
        ([0, 0, 0], [0.5]),
        (DATES, [0]),  # which has no unit: rows whose time is not known
        ([1.5e9, 1.6e9, 1.7e9], [1_750_000_000]),
    ):
        assert made(old).append([1], [9], times=new).num_rows == 4
    appended = made(DATES).append([], [], times=[])
    assert appended.num_rows == 3


def test_a_code_that_no_table_holds() -> None:
    for codes in ([0, 1_400_000_000], [2**62, 3], np.array([5, 2**63 - 2])):
        large = max(codes)
        match = rf"users\[\d\] = {large:,} would make {large + 1:,} codes of 2 rows, .* bytes"
        with pytest.raises(FastnegError, match=match):
            Interactions.from_codes(codes, [0, 1])
        with pytest.raises(FastnegError, match="items"):
            Interactions.from_codes([0, 1], codes)
    with pytest.raises(FastnegError, match=r"num_users = .* codes need tables of [\d,]+ bytes"):
        Interactions.from_codes([0], [0], num_users=2**61)
    matrix = sp.coo_array((np.ones(1), ([0], [2**62])), shape=(3, 2**62 + 1))
    with pytest.raises(FastnegError, match=r"matrix: items = .* codes need tables"):
        Interactions.from_csr(matrix)


def test_a_code_that_is_meant() -> None:
    assert Interactions.from_codes([0, 1_000_000], [0, 1]).num_users == 1_000_001
