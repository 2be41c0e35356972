"""One example of a trial over HTTP: draws, votes, the chosen answer, gold; and what is no longer there."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from planner.archive.texts import TextPolicy
from planner.archive.upkeep import Selection, Upkeep
from tests.api.service import Service, ended, submit, tiny_spec


def look(service: Service, study: str, trial: int = 1, example: str | None = None) -> dict[str, Any]:
    base = f"/api/v1/studies/{study}/trials/{trial}/examples"
    if example is None:
        example = service.http.get(base).json()["items"][0]["example_id"]
    answer = service.http.get(f"{base}/{example}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_every_draw_of_every_stage_is_shown_with_its_vote(service: Service, finished: str) -> None:
    trials = service.http.get(f"/api/v1/studies/{finished}/trials").json()["items"]
    trial = max(trials, key=lambda t: sum(s["samples"] for s in t["allocation"].values()))
    example = look(service, finished, trial["trial_no"])
    assert example["gold"] == ["w"]
    assert example["fields"]["question"].startswith("w")
    assert [stage["stage"] for stage in example["stages"]] == ["find", "solve"]
    for stage in example["stages"]:
        setting = trial["allocation"][stage["stage"]]
        assert stage["setting"] == setting
        (own,) = stage["prompts"]
        assert (own["role"], own["missing"]) == ("stage", "")
        assert own["held"] >= setting["samples"]
        asked = [draw for draw in own["draws"] if draw["asked"]]
        assert [draw["index"] for draw in asked] == list(range(setting["samples"]))
        assert all(draw["text"] is not None and draw["output_tokens"] > 0 for draw in own["draws"])
        votes = {vote["answer"]: vote["count"] for vote in stage["votes"]}
        assert votes == Counter(draw["answer"] for draw in asked)
        if stage["answer"] is not None:
            assert {draw["answer"] for draw in own["draws"] if draw["chosen"]} == {stage["answer"]}
            assert votes[stage["answer"]] == max(count for answer, count in votes.items() if answer is not None)
        question = example["fields"]["question"]
        (message,) = stage["messages"]
        assert message["role"] == "user"
        assert message["content"].endswith(question), "the prompt is the one whose key the draws have"


def test_an_unknown_example_trial_or_study_is_not_found(service: Service, finished: str) -> None:
    base = f"/api/v1/studies/{finished}/trials"
    for path in (f"{base}/1/examples/none", f"{base}/999/examples/e1", "/api/v1/studies/none/trials/1/examples/e1"):
        assert service.http.get(path).status_code == 404


@pytest.fixture
def own(service: Service) -> str:
    """A study whose draws no other one shares."""
    study = ended(service, submit(service, tiny_spec(name="looked-at", seed=4242)))
    assert study["status"] == "done"
    return str(study["id"])


def test_texts_and_draws_that_are_gone_are_said_to_be(service: Service, own: str) -> None:
    before = look(service, own)
    upkeep = Upkeep(service.runtime.archive.engine)
    upkeep.prune(Selection(), TextPolicy.parse("hash"), dry_run=False, force=True)
    dropped = look(service, own)
    for stage, known in zip(dropped["stages"], before["stages"], strict=True):
        assert stage["votes"] == known["votes"], "answers stay where texts go"
        draws = [draw for draw in stage["prompts"][0]["draws"] if draw["output_tokens"] > 1]
        assert draws
        assert all(draw["text"] in (None, "") and draw["answer_known"] for draw in draws)
    assert any(d["text"] is None for s in dropped["stages"] for d in s["prompts"][0]["draws"])
    upkeep.prune(Selection(study_id=own), TextPolicy.parse("full"), dry_run=False, force=True)
    pruned = look(service, own)
    for stage in pruned["stages"]:
        assert (stage["prompts"][0]["draws"], stage["votes"], stage["messages"]) == ([], [], None)
        assert "pruned" in stage["prompts"][0]["missing"]
        assert "pruned" in stage["messages_note"]
    assert [s["answer"] for s in pruned["stages"]] == [s["answer"] for s in before["stages"]]
