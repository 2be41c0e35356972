"""Turns messages into tokens and tokens into text, in batches and at little cost."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from env.backends._base import Message
from env.errors import CheckpointError

Ending = Literal["reply", "closed", "open"]
"""How a rendered conversation ends: with the prompt for the assistant's turn, after its last message, or inside it."""


class CheckpointTokenizer:
    """The tokenizer of a checkpoint; safe for several threads."""

    def __init__(self, checkpoint: Path) -> None:
        """Load it.

        Raises:
            CheckpointError: there is no fast tokenizer in the folder, or it cannot be read.
        """
        from transformers import AutoTokenizer

        if not (checkpoint / "tokenizer.json").is_file():
            raise CheckpointError(f"{checkpoint} has no tokenizer.json; save a fast tokenizer beside the weights")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(checkpoint), local_files_only=True)
            self._fast: Any = self._tokenizer.backend_tokenizer
        except Exception as error:
            raise CheckpointError(f"the tokenizer of {checkpoint} cannot be loaded: {error}") from error
        self._fast.no_padding()
        self._fast.no_truncation()
        self._checkpoint = checkpoint
        self._lock = threading.Lock()
        self._written: dict[int, str] = {}

    def encode_chats(self, chats: Sequence[Sequence[Message]], ending: Ending = "reply") -> list[list[int]]:
        """Tokens of conversations as ``apply_chat_template(tokenize=True)`` gives them.

        Args:
            chats: the conversations.
            ending: ``reply`` adds the prompt for the assistant's turn, ``closed`` nothing; ``open`` ends inside the
                last message, so that what follows continues it.

        Raises:
            CheckpointError: the checkpoint has no chat template, or the template refuses a conversation.
        """
        if not chats:
            return []
        if not self._tokenizer.chat_template:
            raise CheckpointError(f"{self._checkpoint} has no chat template; add chat_template.jinja to the folder")
        plain = [[{"role": m.role, "content": m.content} for m in chat] for chat in chats]
        try:
            with self._lock:
                rendered = self._tokenizer.apply_chat_template(
                    plain,
                    add_generation_prompt=ending == "reply",
                    continue_final_message=ending == "open",
                    tokenize=False,
                )
        except Exception as error:
            raise CheckpointError(f"the chat template of {self._checkpoint} refuses the messages: {error}") from error
        return self._encode(rendered, special=False)

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of plain texts, with the tokenizer's own beginning tokens."""
        return self._encode(list(texts), special=True)

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Texts of generated tokens, special tokens left out."""
        if self._tokenizer.clean_up_tokenization_spaces:
            decoded = self._tokenizer.batch_decode([list(row) for row in tokens], skip_special_tokens=True)
            return list(decoded)
        return list(self._fast.decode_batch([list(row) for row in tokens], skip_special_tokens=True))

    def decode_behind(self, context: Sequence[int], tokens: Sequence[Sequence[int]]) -> list[str]:
        """Texts of generated tokens as they read behind others: with the white space that lies between, if any.

        Args:
            context: the last few tokens before the generated ones.
            tokens: one row for each text.
        """
        before, *whole = self.decode([context, *([*context, *row] for row in tokens)])
        if all(text.startswith(before) for text in whole):
            return [text[len(before) :] for text in whole]
        return self.decode(tokens)

    def token_text(self, token: int) -> str:
        """One token by its name, special tokens included (for log-probability listings)."""
        return str(self._fast.id_to_token(token) or "")

    def token_json(self, token: int) -> str:
        """One token's entry of a log-probability listing as JSON, without its closing brace; written once a token."""
        found = self._written.get(token)
        if found is None:
            name = self.token_text(token)
            entry = {"token": name, "bytes": list(name.encode()), "top_logprobs": []}
            found = self._written[token] = json.dumps(entry)[:-1]
        return found

    def _encode(self, texts: list[str], special: bool) -> list[list[int]]:
        return [encoding.ids for encoding in self._fast.encode_batch_fast(texts, add_special_tokens=special)]
