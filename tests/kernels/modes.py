"""Prints digests of draws and of minings: the same however the kernels are compiled, or are not.

    python -m tests.kernels.modes [short] [without MODULE NAME]

``without`` hides a name of Numba's internals from fastneg, which then compiles plainly.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from typing import Any

import numpy as np


class Without:
    """A module or a class that seems to lack one name, which may be a dotted one."""

    def __init__(self, whole: Any, name: str) -> None:
        first, _, rest = name.partition(".")
        self.__dict__.update(whole=whole, first=first, rest=rest)

    def __getattr__(self, name: str) -> Any:
        if name != self.first:
            return getattr(self.whole, name)
        if not self.rest:
            raise AttributeError(name)
        return Without(getattr(self.whole, name), self.rest)


def hide(module: str, name: str) -> None:
    """What ``importlib.import_module`` finds lacks ``module.name`` from here on."""
    real = importlib.import_module

    def find(wanted: str, package: str | None = None) -> Any:
        found: Any = real(wanted, package)
        return Without(found, name) if wanted == module else found

    importlib.import_module = find  # type: ignore[assignment]


def digest(*values: Any) -> str:
    found = hashlib.blake2b(digest_size=8)
    for value in values:
        found.update(np.ascontiguousarray(np.asarray(value)).tobytes())
    return found.hexdigest()


def main(short: bool) -> None:
    import fastneg

    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 20, 200), rng.integers(0, 60, 200)
    seen = fastneg.Interactions.from_codes(users, items, num_users=20, num_items=60)
    everybody = list(range(20))
    samplers: list[Any] = [
        fastneg.UniformSampler(seen, seed=1),
        fastneg.PopularitySampler(seen, seed=1),
        fastneg.PopularitySampler(seen, seed=1, method="classes"),
    ]
    if not short:
        streaming = fastneg.StreamingPopularitySampler(seen, seed=1)
        streaming.update(items)
        samplers += [
            fastneg.LogUniformSampler(seen, seed=1),
            streaming,
            fastneg.PopularitySampler(seen, seed=1, replacement=False),
            fastneg.MixedSampler([(samplers[0], 0.3), (samplers[1], 0.7)]),
        ]
    for sampler in samplers:
        few, shared = sampler.sample(everybody, 4), sampler.sample_shared(5)
        many = few if short else sampler.sample(everybody, 33)
        print(sampler.kind, digest(few.items, few.log_q, many.items, many.log_q, *shared[:2]))  # noqa: T201
    print("mask", digest(seen.positive_mask(everybody, np.arange(30))))  # noqa: T201
    queries = rng.standard_normal((12, 20)).astype(np.float32)
    vectors = rng.standard_normal((150, 20)).astype(np.float32)
    for search in ("exact",) if short else ("exact", "ivf"):
        mined = fastneg.mine_hard_negatives(
            queries, vectors, window=(3, 20), num_negatives=5, search=search, progress=False
        )
        print(search, digest(mined.items, mined.scores, mined.ranks))  # noqa: T201


if __name__ == "__main__":
    words = sys.argv[1:]
    if "without" in words:
        at = words.index("without")
        hide(words[at + 1], words[at + 2])
    main("short" in words)
