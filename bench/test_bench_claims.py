"""Verdicts and the page of the claims, from runs that are made up."""

from __future__ import annotations

import tomllib

from bench import claims, trained
from bench.claims_list import CLAIMS, Claim, Verdict
from bench.trained import Line

ARMS = {"new": Line("c/new", "tiny", "bpr"), "old": Line("c/old", "tiny", "bpr")}
SAYS = Verdict("new wins", "ndcg@20", "new", "old")
CLAIM = Claim("c", "A claim", "Someone", "Two arms.", ARMS, ("ndcg@20", "x"), (SAYS,))


def runs(*values: float) -> list[dict[str, object]]:
    return [{"test": {"ndcg@20": value}, "epochs": [7]} for value in values]


def test_a_verdict_asks_for_more_than_chance():
    found = {"new": runs(0.20, 0.21, 0.22), "old": runs(0.10, 0.11, 0.12)}
    assert claims.judge(SAYS, found) == "holds here (0.2100 against 0.1100, +90.9%)"
    swapped = {"new": found["old"], "old": found["new"]}
    assert claims.judge(SAYS, swapped).startswith("the opposite here")
    noisy = {"new": runs(0.10, 0.21, 0.32), "old": runs(0.20, 0.11, 0.12)}
    assert claims.judge(SAYS, noisy).startswith("no difference seen here")
    close = {"new": runs(0.1005, 0.1005, 0.1005), "old": runs(0.1, 0.1, 0.1)}  # sure, and tiny
    assert claims.judge(SAYS, close).startswith("no difference seen here")
    absent = {"new": [{"test": {}}] * 3, "old": found["old"]}
    assert claims.judge(SAYS, absent) == "not on this data (it has no such test pairs)"


def test_results_of_recipes_are_those_against_bpr(tmp_path, monkeypatch):
    arms = {
        name: Line(f"recipes-tiny/{name}", "tiny", name, {"epochs": epochs})
        for name, epochs in (("bpr", 8), ("ccl", 9), ("bsl", 9))
    }
    says = tuple(Verdict("", "ndcg@20", name, "bpr") for name in ("ccl", "bsl"))
    claim = Claim("recipes-tiny", "", "", "", arms, ("ndcg@20",), says)
    monkeypatch.setattr(claims, "CLAIMS", (claim, CLAIMS[0]))
    stored: trained.Stored = {}
    for name, mean in (("bpr", 0.2), ("ccl", 0.1), ("bsl", 0.2004)):
        stored[arms[name].name] = {
            trained.run_key("tune", arms[name], arms[name].settings, 0): {
                "validation": {"ndcg@20": 0.1}, "epochs": [7],
            },
            **{
                trained.run_key("test", arms[name], {"epochs": [7]}, seed): run
                for seed, run in zip(trained.SEEDS, runs(*[mean] * 3), strict=True)
            },
        }  # fmt: skip
    path = tmp_path / "results.toml"
    claims.write_recipe_results(path, stored)
    assert tomllib.loads(path.read_text()) == {
        "tiny": {
            "ccl": "worse than bpr, ndcg@20 0.1000 against 0.2000, -50.0% (epochs 9)",
            "bpr": "ndcg@20 0.2000, to compare with (epochs 8)",
            "bsl": "no difference seen from bpr, ndcg@20 0.2004 against 0.2000, +0.2% (epochs 9)",
        }
    }
    del stored["recipes-tiny/ccl"]
    claims.write_recipe_results(path, stored)  # of a part nothing is said
    assert tomllib.loads(path.read_text()) == {}


def test_the_recipes_file_is_that_of_the_stored_runs(tmp_path):
    path = tmp_path / "results.toml"
    claims.write_recipe_results(path, trained.load(claims.HERE / "claims.json"))
    assert path.read_text() == claims.RECIPES.read_text()


def test_the_page_shows_whole_experiments_only(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "CLAIMS", (CLAIM, CLAIMS[0]))
    stored: trained.Stored = {}
    for label, line in ARMS.items():
        values = (0.2, 0.21, 0.22) if label == "new" else (0.1, 0.11, 0.12)
        stored[line.name] = {
            trained.run_key("test", line, {"epochs": [7]}, seed): run
            for seed, run in zip(trained.SEEDS, runs(*values), strict=True)
        }
        key = trained.run_key("tune", line, {}, 0)
        stored[line.name][key] = {"validation": {"ndcg@20": 0.1}, "epochs": [7]}
    claims.write(tmp_path, stored, {"processor": "P"})
    text = (tmp_path / "claims.md").read_text()
    assert "| new | 0.2100 ± 0.0100 |  | 7 | 1 |" in text
    assert "- new wins: **holds here" in text
    assert f"Not measured yet: {CLAIMS[0].name}." in text
    assert ("![A claim](claims-c.png)" in text) == (tmp_path / "claims-c.png").exists()


def test_arms_and_metrics_of_every_claim_fit_together():
    names = [line.name for claim in CLAIMS for line in claim.arms.values()]
    assert len(set(names)) == len(names)
    for claim in CLAIMS:
        for verdict in claim.verdicts:
            assert {verdict.better, verdict.worse} <= set(claim.arms)
            assert verdict.metric in claim.metrics
        for line in claim.arms.values():
            from fastneg.recipes import recipe

            for settings in trained.trials(line):
                recipe(line.recipe).settings(settings)  # raises where a setting is unknown
