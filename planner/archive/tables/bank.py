"""Tables of the sample bank."""

from sqlalchemy import BigInteger, SmallInteger, UniqueConstraint
from sqlmodel import Field

from planner.archive.columns import AnyText, RowNumber
from planner.archive.tables.base import ArchiveTable


class ModelRow(ArchiveTable, table=True):
    """One model whose draws the bank holds."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("name", "revision"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    name: str = Field(sa_type=AnyText)
    revision: str = Field(sa_type=AnyText)


class OriginRow(ArchiveTable, table=True):
    """One batch that asked for draws first, by the name the execution gives it."""

    __tablename__ = "origins"

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    name: str = Field(unique=True, sa_type=AnyText)


class ParserRow(ArchiveTable, table=True):
    """One way to read answers out of texts."""

    __tablename__ = "parsers"

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    digest: bytes = Field(unique=True)


class PromptRow(ArchiveTable, table=True):
    """One prompt of one model. Its draws refer to it by number: 32 bytes of key in each would be a third of a draw."""

    __tablename__ = "prompts"

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    key: bytes = Field(unique=True)
    model_id: int = Field(foreign_key="models.id", sa_type=RowNumber)
    parser_id: int | None = Field(default=None, sa_type=RowNumber)
    """Whose answers stand in for the texts of this prompt; NULL while the texts themselves are needed."""


class TextRow(ArchiveTable, table=True):
    """One text that a model wrote, however often it did."""

    __tablename__ = "texts"

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    digest: bytes = Field(unique=True)
    length: int
    """Characters."""

    body: bytes | None = None
    """See `planner.archive.texts.packed`; NULL where the text was dropped."""


class AnswerRow(ArchiveTable, table=True):
    """What one parser reads in one text."""

    __tablename__ = "answers"
    __table_args__ = ({"sqlite_with_rowid": False},)

    text_id: int = Field(primary_key=True, sa_type=RowNumber, sa_column_kwargs={"autoincrement": False})
    parser_id: int = Field(primary_key=True, sa_type=RowNumber, sa_column_kwargs={"autoincrement": False})
    answer: bytes | None = None
    """The canonical answer, packed like a text; NULL where there is none to be read."""


class DrawRow(ArchiveTable, table=True):
    """One draw of the sample bank, shared by all studies.

    Stored in the order of its key, so that a prompt's draws lie together. Texts and origins are referred to without a
    constraint: checking it would cost two look-ups a draw and an index that nothing else uses, and only `bank.py`
    writes these rows.
    """

    __tablename__ = "draws"
    __table_args__ = ({"sqlite_with_rowid": False},)

    prompt_id: int = Field(
        primary_key=True,
        foreign_key="prompts.id",
        ondelete="CASCADE",
        sa_type=RowNumber,
        sa_column_kwargs={"autoincrement": False},
    )
    index: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    text_id: int | None = Field(default=None, sa_type=RowNumber)
    """NULL is the empty text."""

    finish: int = Field(sa_type=SmallInteger)
    """A code of `planner.archive.bank.FINISH_CODES`."""

    prompt_tokens: int
    output_tokens: int
    logprob: float | None = None
    score: float | None = None
    origin_id: int = Field(sa_type=RowNumber)
    created_at: int = Field(sa_type=BigInteger)
    """Seconds since 1970 in UTC; a tenth of what a written date takes."""


class SettingRow(ArchiveTable, table=True):
    """One setting of the archive itself."""

    __tablename__ = "settings"

    name: str = Field(primary_key=True)
    value: str = Field(sa_type=AnyText)
