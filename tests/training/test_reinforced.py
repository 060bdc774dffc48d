"""The generator of reinforced negatives: its policy, its gradient, its rewards, its state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.data.synthetic import generate_dataset
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.results import Negatives
from fastneg.training.dynamic_sampling import choice_uniforms
from fastneg.training.explicit_negatives import with_explicit_negatives
from fastneg.training.negatives import Objective
from fastneg.training.reinforced import (
    Generator,
    adversarial_rewards,
    exposure_rewards,
    rewards_of,
)
from fastneg.training.rounds import build_model
from fastneg.training.settings import Settings
from fastneg.training.source_data import source_data
from tests.naive.statistics import LEVEL, chi_square
from tests.training.inputs import numbers


def generator(**options) -> Generator:
    return Generator(7, 20, **{"dim": 4, "seed": 3, **options})


def uniforms(rows: int, width: int) -> torch.Tensor:
    return choice_uniforms(torch.arange(rows), width, seed=1, epoch=0, name="x")


def test_picks_have_the_probabilities_of_the_policy():
    one = generator(temperature=0.02)
    candidates = torch.tensor([[3, 8, 3, 19, 0]])
    logits = (one.state["items"][candidates[0]] @ one.state["users"][2]).double() / 0.02
    expected = (logits.exp() / logits.exp().sum()).numpy()
    np.testing.assert_allclose(
        one.probabilities(torch.tensor([2]), candidates)[0], expected, rtol=1e-4
    )
    rows = 40_000
    places = one.pick(torch.full((rows,), 2), candidates.expand(rows, -1), uniforms(rows, 2))
    for column in range(2):
        assert chi_square(places[:, column].numpy(), expected) > LEVEL
    flat = expected**0.7 / (expected**0.7).sum()
    assert chi_square(places[:, 0].numpy(), flat) < LEVEL


def test_a_step_is_the_gradient_of_log_pi_times_the_advantage():
    """By finite differences of the policy, one parameter at a time."""
    one = generator(learning_rate=1.0)
    users, candidates = torch.tensor([0, 3, 0]), torch.tensor([[1, 2, 5], [2, 9, 9], [5, 4, 1]])
    places, rewards = torch.tensor([[0, 2], [1, 1], [2, 0]]), numbers(3, 2).float()
    before = {name: tensor.double().clone() for name, tensor in one.state.items()}
    one.learn(users, candidates, places, rewards)

    def objective(side: str, row: int, column: int, by: float) -> float:
        tables = {name: before[name].clone() for name in ("users", "items")}
        tables[side][row, column] += by
        total = 0.0
        for b in range(3):
            logits = tables["items"][candidates[b]] @ tables["users"][users[b]]
            log_pi = logits - logits.exp().sum().log()
            for k in range(2):
                total += log_pi[places[b, k]] * (rewards[b, k].double() - rewards.double().mean())
        return float(total) / 3

    for side, row in (("users", 0), ("users", 3), ("items", 5), ("items", 9), ("items", 7)):
        for column in range(4):
            slope = (
                objective(side, row, column, 1e-5) - objective(side, row, column, -1e-5)
            ) / 2e-5
            squares = one.state[f"{side}_squares"][row, column].double().item()
            assert squares == pytest.approx(slope**2, rel=1e-3, abs=1e-9)
            moved = (one.state[side][row, column] - before[side][row, column]).item()
            if abs(slope) > 1e-5:  # Adagrad's first step is the sign
                assert moved == pytest.approx(np.sign(slope), rel=1e-2)


def test_it_learns_what_is_rewarded():
    one = generator(learning_rate=0.1)
    users, candidates = torch.arange(7), torch.arange(20).expand(7, -1)
    wanted = torch.zeros(7, 20)
    wanted[torch.arange(7), torch.arange(7) * 2] = 1.0
    for step in range(200):
        u = choice_uniforms(torch.arange(7), 8, seed=step, epoch=0, name="x")
        places = one.pick(users, candidates, u)
        one.learn(users, candidates, places, wanted.gather(1, places))
    learnt = one.probabilities(users, candidates).gather(1, (torch.arange(7) * 2)[:, None])
    assert (learnt > 0.3).all()  # of 20 alike: 0.05


def test_the_state_is_all_there_is():
    one, other = generator(), generator(seed=4)
    users, candidates = torch.arange(5), torch.arange(15).view(5, 3)
    assert not torch.equal(one.state["users"], other.state["users"])
    places = one.pick(users, candidates, uniforms(5, 2))
    one.learn(users, candidates, places, numbers(5, 2).float())
    for name, tensor in one.state.items():
        other.state[name].copy_(tensor)
    for each in (one, other):
        each.learn(users, candidates, places, numbers(5, 2, seed=9).float())
    for name, tensor in one.state.items():
        assert torch.equal(tensor, other.state[name])


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).square().sum())


def test_rewards():
    scores = torch.tensor([[-3.0, 0.0], [2.0, 50.0]])
    expected = -1 / (1 + np.exp(scores.numpy()))
    np.testing.assert_allclose(adversarial_rewards(scores), expected, rtol=1e-5, atol=1e-12)
    picked, shown = numbers(6, 3), numbers(4, 3, seed=1)
    rewards = exposure_rewards(picked, shown)
    scale = np.mean([distance(y, x) for y in picked for x in shown])
    for b in range(6):
        total = 0.0
        for width in (0.5, 1.0, 2.0):
            spread = 2 * width * width * scale
            total += 2 * np.mean([np.exp(-distance(picked[b], x) / spread) for x in shown])
            total -= 2 * np.mean([np.exp(-distance(picked[b], y) / spread) for y in picked])
        assert rewards[b].item() == pytest.approx(total / 3)
    near = torch.cat([shown, shown + 9.0])
    assert exposure_rewards(near, shown)[:4].min() > exposure_rewards(near, shown)[4:].max()


def test_what_is_refused():
    with pytest.raises(FastnegError, match="dim = 0 is too small"):
        generator(dim=0)
    with pytest.raises(FastnegError, match="temperature"):
        generator(temperature=0.0)


def test_rewards_of_a_source_weigh_what_was_really_shown():
    """By hand: rows whose item was drawn in place of a shown one do not count as shown."""
    world = Interactions.from_codes(torch.arange(7), torch.arange(7), num_items=20)
    model = build_model(world, Settings(dim=4, hidden_layers=1, dropout=0.5))
    model.train()
    users, picked = model.user_vectors()[:3], model.item_vectors()[:6].view(3, 2, 4)
    scores = torch.einsum("bd,bkd->bk", users, picked)
    shown = Negatives(torch.tensor([[4], [9], [12]]), None, torch.tensor([[0], [1], [0]]))
    source = {"exposure": 0.7}
    hard = adversarial_rewards(scores)
    assert torch.equal(rewards_of(source, model, users, picked, scores, None), hard)
    nobody = shown._replace(source=shown.source * 0 + 1)
    assert torch.equal(rewards_of(source, model, users, picked, scores, nobody), hard)
    real = users[[0, 2]] * model.item_vectors()[[4, 12]]
    like = exposure_rewards((users[:, None] * picked).flatten(0, 1), real).view(3, 2)
    found = rewards_of(source, model, users, picked, scores, shown)
    torch.testing.assert_close(found, hard + 0.7 * like)
    assert model.training


def half_shown() -> Interactions:
    """Users 0..19 were shown a third of their rows and did not take them, the others nothing."""
    world = generate_dataset(40, 30, positives_per_user=8, seed=1).interactions
    third = np.arange(world.num_rows) % 3 == 0
    rejected = world.select(third & (world.row_users < 20))
    return with_explicit_negatives(world.select(~third), rejected)


@pytest.mark.parametrize("shown", [0, 1, 3, 5])
def test_so_many_of_the_candidates_were_shown(shown):
    train = half_shown()
    source = {"source": "reinforced", "candidates": 5, "num_negatives": 2, "shown": shown}
    settings = Settings(negatives=[source], dim=4, batch_size=16, seed=3)
    lists = [
        set(train.row_items[(train.row_users == u) & (train.row_weights <= 0)]) for u in range(40)
    ]
    taken = [
        set(train.row_items[(train.row_users == u) & (train.row_weights > 0)]) for u in range(40)
    ]
    others = []
    for _, batch in zip(range(8), Objective(train, settings).batches, strict=False):
        candidates = batch.drawn[1].items
        assert candidates.shape == (len(batch.users), 5)
        for user, row in zip(batch.users.tolist(), candidates.tolist(), strict=True):
            assert not taken[user] & set(row)
            if lists[user]:
                assert set(row[5 - shown :]) <= lists[user]
                others += [item in lists[user] for item in row[: 5 - shown]]
    if shown < 5:  # those are of the whole catalog
        assert 0 < np.mean(others) < 0.2


def test_without_anything_shown():
    world = generate_dataset(40, 30, positives_per_user=8, seed=1).interactions
    source = {"source": "reinforced", "candidates": 5, "exposure": 0}
    message = r"'reinforced' draws from .* or say exposure = 0, shown = 0"
    with pytest.raises(FastnegError, match=message):
        source_data(world, Settings(negatives=[source], dim=4))
    with pytest.raises(FastnegError, match="'reinforced' draws from rows with weight 0 or less"):
        Objective(world, Settings(negatives=[source], dim=4))
    settings = Settings(negatives=[{**source, "shown": 0}], dim=4, batch_size=16)
    batch = next(iter(Objective(world, settings).batches))
    assert [drawn.items.shape for drawn in batch.drawn] == [(16, 5)]


def test_a_source_teaches_its_generator_once_a_batch():
    """The loss of a batch moves exactly the rows that were candidates, as by hand."""
    train = half_shown()
    source = {"source": "reinforced", "candidates": 5, "num_negatives": 2, "dim": 3}
    settings = Settings(negatives=[source], dim=4, batch_size=16, temperature=0.5, seed=3)
    objective, model = Objective(train, settings), build_model(train, settings)
    taught = objective._list_loss.generators["reinforced"]
    twin = Generator(40, 30, dim=3, seed=3, name="train/reinforced")
    objective.batches.set_epoch(2)
    batch = next(iter(objective.batches))
    shown, candidates = batch.drawn
    u = choice_uniforms(batch.rows, 2, seed=3, epoch=2, name="train/reinforced")
    places = twin.pick(batch.users, candidates.items, u)
    objective.loss(model, batch)
    with torch.no_grad():
        users = model.embed_users(batch.users)
        picked = model.embed_items(candidates.items.gather(1, places))
        scores = torch.einsum("bd,bkd->bk", users, picked) / 0.5
        source = settings.negatives[0]
        twin.learn(
            batch.users, candidates.items, places,
            rewards_of(source, model, users, picked, scores, shown),
        )  # fmt: skip
    for name, tensor in twin.state.items():
        torch.testing.assert_close(taught.state[name], tensor)
    assert set(shown.source.flatten().tolist()) == {0, 1}
