"""What a list asks of the other settings."""

from __future__ import annotations

import pytest

from fastneg.errors import FastnegError
from fastneg.training.settings import Settings

DNS = {"source": "dns"}
IN_BATCH = {"source": "in-batch"}
LATE = {"source": "explicit", "first_epoch": 2}
MINED = {"source": "mined"}
SOFTMAX = {"loss": "sampled_softmax"}


@pytest.mark.parametrize(
    ("negatives", "changes", "message"),
    [
        ([DNS], {"loss": "nce"}, "goes with loss = 'sampled_softmax', 'bpr', .*, not 'nce'"),
        ([DNS], {"loss": "in_batch"}, "not 'in_batch'; in-batch negatives are a source"),
        ([DNS], {**SOFTMAX, "shared": True}, "shared = true has no place beside negatives"),
        ([DNS], {"num_negatives": 4}, "num_negatives = 4 has no place beside negatives"),
        ([DNS], {"num_hard": 2}, "num_hard = 2 has no place beside negatives"),
        ([DNS], {"sampler": "popularity"}, "sampler = 'popularity' has no place beside negatives"),
        ([{"source": "in-batch"}], {"batch_size": 1}, "leaves the source 'in-batch' no negatives"),
        (
            [{"source": "in-batch-hard"}],
            {"batch_size": 1},
            "leaves the source 'in-batch-hard' no negatives",
        ),
        ([{"source": "in-batch-hard"}], SOFTMAX, "'in-batch-hard' has none; give correction"),
        ([{"source": "queue"}], {}, "'queue' is empty at first; give another one beside it"),
        ([DNS], {"rounds": 2}, "rounds = 2 mines lists that no source of negatives takes"),
        ([DNS], SOFTMAX, "correction = 'expected_count' needs log Q, and 'dns' has none; give"),
        (
            [{"source": "sampled"}],
            {**SOFTMAX, "correction": "revised"},
            "correction = 'revised' goes with one source, not with a list",
        ),
        (
            [{"source": "in-batch"}, {"source": "sampled"}],
            {**SOFTMAX, "correction": "both"},
            "correction = 'both' has one Q, of the loader; it goes with 'in-batch'",
        ),
        ([MINED, DNS], {}, "'mined' draws from lists .* rounds = 1 mines none; give rounds = 2"),
        ([MINED, MINED, DNS], {"rounds": 2}, "'mined' stands twice in negatives; there is one l"),
        ([MINED], {"rounds": 2}, "the source 'mined' is empty at first; give another one beside"),
        ([LATE], {}, "the source 'explicit' is empty at first; give another one beside it"),
        ([LATE, {"source": "queue"}], {}, "the source 'explicit', 'queue' is empty at first"),
        ([{**MINED, "ratio": 9}, DNS], {"rounds": 2}, "ratio = 9.0 weighs mined columns where co"),
        (
            [{**MINED, "ratio": 9}, IN_BATCH],
            {"rounds": 2, **SOFTMAX, "correction": "none"},
            "elsewhere every column counts once, and num_negatives decides",
        ),
        ([{"source": "queue"}, DNS], SOFTMAX, "'dns', 'queue' has none at first; give correction"),
    ],
)
def test_what_means_nothing_is_refused(negatives, changes, message):
    with pytest.raises(FastnegError, match=message):
        Settings(negatives=negatives, **changes)


@pytest.mark.parametrize(
    ("negatives", "changes"),
    [
        ([MINED, DNS], {"rounds": 2}),
        ([{**MINED, "ratio": 9}, IN_BATCH], {"rounds": 3, **SOFTMAX}),
        ([MINED, DNS], {"rounds": 2, "refresh_every": 10}),
        ([LATE, DNS], {}),
        ([{"source": "queue"}, DNS], {**SOFTMAX, "correction": "none"}),
        ([{"source": "queue"}, IN_BATCH, LATE], SOFTMAX),
        ([{"source": "same-group", "groups": "market"}], SOFTMAX),
        ([{"source": "same-group", "groups": "market"}, DNS], SOFTMAX),
        ([{"source": "queue"}, IN_BATCH], {**SOFTMAX, "correction": "both"}),
    ],
)
def test_what_means_something_is_taken(negatives, changes):
    assert Settings(negatives=negatives, **changes).negatives
