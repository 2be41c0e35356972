"""The strategies and parsers that a module can hold, as Python that people can read."""

from __future__ import annotations

PARSERS: dict[str, str] = {
    "text": '''
def read_text(text: str) -> Any:
    """The whole output, white space collapsed."""
    return " ".join(text.split()) or None
''',
    "after": '''
def read_after(text: str, marker: str, join: bool) -> Any:
    """What follows the last marker."""
    _, found, tail = text.rpartition(marker)
    return (("" if join else " ").join(tail.split()) or None) if found else None
''',
    "ids": '''
def read_ids(text: str, prefix: str) -> Any:
    """The whole numbers behind a prefix, sorted."""
    return sorted({int(n) for n in re.findall(re.escape(prefix) + r"(\\d{1,9})(?!\\d)", text)}) or None
''',
    "regex": '''
def read_regex(text: str, pattern: str) -> Any:
    """The last match, its first group where it has one."""
    found = None
    for found in re.finditer(pattern, text):
        pass
    return (found.group(1 if found.re.groups else 0) or None) if found else None
''',
    "json": '''
def read_json(text: str, field: str | None) -> Any:
    """The first JSON value, or one field of it."""
    decoder = json.JSONDecoder()
    for start in (match.start() for match in re.finditer(r"[\\[{]", text)):
        try:
            value, _ = decoder.raw_decode(text, start)
        except ValueError:
            continue
        if field is None:
            return value
        if isinstance(value, dict) and field in value:
            return value[field]
    return None
''',
}
"""By the parser's kind: the function's source."""

STRATEGIES: dict[str, str] = {
    "vote": '''
def vote(answers: list[str | None]) -> str | None:
    """The most frequent answer; among equals the one drawn first. Replies without an answer do not vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return max(votes, key=lambda answer: votes[answer]) if votes else None
''',
    "best_of_n": '''
def best_of_n(answers: list[str | None], scores: list[float]) -> str | None:
    """The readable reply that the verifier scores highest; among equals the one drawn first."""
    readable = [(score, answer) for answer, score in zip(answers, scores) if answer is not None]
    return max(readable, key=lambda pair: pair[0])[1] if readable else None
''',
    "weighted_vote": '''
def weighted_vote(answers: list[str | None], scores: list[float]) -> str | None:
    """The answer with the largest sum of the verifier's scores; among equals the one drawn first."""
    weights: dict[str, float] = {}
    for answer, score in zip(answers, scores):
        if answer is not None:
            weights[answer] = weights.get(answer, 0.0) + score
    return max(weights, key=lambda answer: weights[answer]) if weights else None
''',
    "likeliest": '''
def likeliest(answers: list[str | None], logprobs: list[float]) -> str | None:
    """The readable reply that the model itself finds likeliest."""
    if any(logprob != logprob for logprob in logprobs):
        raise RuntimeError("the server gives no log-probabilities, which this strategy needs")
    readable = [(logprob, answer) for answer, logprob in zip(answers, logprobs) if answer is not None]
    return max(readable, key=lambda pair: pair[0])[1] if readable else None
''',
    "union": '''
def union(answers: list[str | None]) -> str | None:
    """All ids that any reply names."""
    named = {identity for answer in answers if answer is not None for identity in json.loads(answer)}
    return canonical(sorted(named) or None)
''',
    "top_ids": '''
def top_ids(answers: list[str | None]) -> str | None:
    """The ids named most often, as many as a reply usually names."""
    sets = [set(json.loads(answer)) for answer in answers if answer is not None]
    if not sets:
        return None
    sizes = Counter(len(ids) for ids in sets)
    size = min(sizes, key=lambda number: (-sizes[number], number))
    votes = Counter(identity for ids in sets for identity in ids)
    chosen = sorted(votes, key=lambda identity: (-votes[identity], identity))[:size]
    return canonical(sorted(chosen) or None)
''',
}
"""By name: the function's source. A strategy that is not here asks the plan endpoint, or is refused."""

SCORED = frozenset({"best_of_n", "weighted_vote"})
"""Strategies whose function takes the verifier's scores."""
