"""The recipes whose query is the mean of the user's history: name, description, paper, changes."""

from __future__ import annotations

from typing import Any

HISTORY_RECIPES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    (
        "youtube-dnn",
        (
            "the mean of the user's last 50 items through layers that halve, no user ids; 2,048 "
            "negatives shared by the batch, drawn as items are popular, with the logQ correction"
        ),
        "Covington et al. 2016, Deep neural networks for YouTube recommendations",
        {
            "loss": "sampled_softmax",
            "shared": True,
            "num_negatives": 2048,
            "sampler": "popularity",
            "exponent": 1.0,
            "history": "own",
            "history_length": 50,
            "use_user_ids": False,
            "hidden_layers": 2,
            "item_hidden_layers": 0,
        },
    ),
    (
        "word2vec",
        (
            "the mean of the user's other items (CBOW, the user as window) against 5 negatives "
            "from popularity^0.75; frequent positives are subsampled"
        ),
        (
            "Mikolov et al. 2013, Distributed representations of words and phrases and their "
            "compositionality (of items: Barkan and Koenigstein 2016, Item2Vec)"
        ),
        {
            "loss": "bce",
            "num_negatives": 5,
            "sampler": "popularity",
            "exponent": 0.75,
            "history": "own",
            "use_user_ids": False,
            "subsample_positives": 1e-3,
            "learning_rate": 5e-3,
        },
    ),
)
