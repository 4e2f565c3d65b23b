"""A key with a name and limits, as `KEYS_FILE` has it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic import ValidationError as InvalidError

from trio_ai_stream.settings.values import check_file, check_keys

_Usd = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


def _check_key(key: SecretStr) -> SecretStr:
    return check_keys((key,))[0]


class NamedKey(BaseModel):
    """One `[[key]]` of the file; a limit that is left out is the server's own.

    `end_streams`: live streams end when the budget is spent, not only new ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    key: Annotated[SecretStr, AfterValidator(_check_key)]
    requests_per_second: Annotated[float, Field(gt=0, le=1e6)] | None = None
    streams: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    usd_per_day: _Usd | None = None
    usd_per_month: _Usd | None = None
    end_streams: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def has_budget(self) -> bool:
        """Whether what it spends is limited."""
        return self.usd_per_day is not None or self.usd_per_month is not None


def read_named_keys(value: object) -> object:
    """Read a TOML file of `[[key]]` tables; what is wrong is named by its number."""
    if not isinstance(value, str | Path):
        return value
    path = check_file(Path(value))
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        # The decoder's words quote no value, but for a single character.
        raise ValueError(f"expected TOML in {path}, got {exc}") from exc
    tables = document.get("key")
    if set(document) != {"key"} or not isinstance(tables, list):
        raise ValueError(f"expected [[key]] tables and nothing else in {path}")
    keys = tuple(_named_key(number, table) for number, table in enumerate(tables, 1))
    limits: dict[str, dict[str, Any]] = {}
    for number, one in enumerate(keys, 1):
        own = one.model_dump(exclude={"key"})
        if limits.setdefault(one.name, own) != own:
            raise ValueError(
                f"expected the same limits wherever the name is {one.name}, got others"
                f" (key {number})"
            )
    return keys


def _named_key(number: int, table: object) -> NamedKey:
    try:
        return NamedKey.model_validate(table)
    except InvalidError as exc:
        error = exc.errors()[0]
        field = ".".join(map(str, error["loc"]))
        message = str(error["msg"]).removeprefix("Value error, ")
        raise ValueError(f"key {number}: {field}: {message}") from exc
