"""The critic's built-in prompts: fusing, revising and verifying replies in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from env.spec.stage import PromptKind, PromptMessage

CRITIC_PROMPTS: Mapping[PromptKind, tuple[PromptMessage, ...]] = MappingProxyType(
    {
        "fuse": (
            PromptMessage(
                role="user",
                template=(
                    "{{ prompt }}\n\n"
                    "Here are {{ attempts | length }} independent replies to the request above. Some may be wrong.\n"
                    "{% for attempt in attempts %}\n[Reply {{ loop.index }}]\n{{ attempt }}\n{% endfor %}\n"
                    "Weigh them against each other and write the one best reply, in the form the request asks for."
                ),
            ),
        ),
        "revise": (
            PromptMessage(
                role="user",
                template=(
                    "{{ prompt }}\n\n[Earlier reply]\n{{ attempt }}\n\n"
                    "Check the earlier reply step by step. Keep what is right, correct what is not, and write "
                    "the whole reply anew, in the form the request asks for."
                ),
            ),
        ),
        "verify": (
            PromptMessage(
                role="user",
                template=(
                    "{{ prompt }}\n\n[Reply to check]\n{{ attempt }}\n\n"
                    "Check the reply step by step. End with one line: 'Verdict: right' or 'Verdict: wrong'."
                ),
            ),
        ),
    }
)
"""Templates see the variables of the stage's prompt, and `prompt`, `attempt` or `attempts`."""
