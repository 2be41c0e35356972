"""Settings from a file: apportion.toml in the home folder, or the file that APPORTION_CONFIG names."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from env.errors import ApportionError

CONFIG_VARIABLE = "APPORTION_CONFIG"
FILE_NAME = "apportion.toml"


class SettingsError(ApportionError):
    """A setting cannot be read or understood; the message names it."""


class FileSettings(PydanticBaseSettingsSource):
    """What the file says. A key that is no setting is refused: it would be a setting misspelt and not in force."""

    def __init__(self, settings_cls: type[BaseSettings], home: Path) -> None:
        """Read the file.

        Raises:
            SettingsError: it is missing though named, is no TOML, or holds an unknown key.
        """
        super().__init__(settings_cls)
        self.path = config_file(home)
        self._values = {} if self.path is None else _read(self.path, set(settings_cls.model_fields))

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """See `PydanticBaseSettingsSource`."""
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The values by name."""
        return dict(self._values)


def config_file(home: Path) -> Path | None:
    """The file in force; None where there is none.

    Raises:
        SettingsError: APPORTION_CONFIG names a file that is not there.
    """
    named = os.environ.get(CONFIG_VARIABLE, "").strip()
    if named:
        if not Path(named).is_file():
            raise SettingsError(f"{CONFIG_VARIABLE} names {named}, which is no file")
        return Path(named)
    path = home / FILE_NAME
    return path if path.is_file() else None


def _read(path: Path, known: set[str]) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the settings in {path} cannot be read: {error}") from error
    unknown = sorted(set(values) - known)
    if unknown:
        raise SettingsError(f"{path} has no setting {', '.join(unknown)}; 'apportion settings' lists what there is")
    if "home" in values and not os.environ.get(CONFIG_VARIABLE):
        raise SettingsError(f"{path} lies in the home folder and cannot say where that is: set APPORTION_HOME")
    return values
