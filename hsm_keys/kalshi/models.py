"""Models of the key endpoints' answers. Unknown fields, unknown scopes and ``null`` lists are accepted."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

__all__ = ["ApiKey", "CreateApiKeyResponse", "GenerateApiKeyResponse", "ListApiKeysResponse"]


_MILLISECONDS: Final = 10**11  # as seconds, this is the year 5138


def _list_or_empty(value: Any) -> Any:
    return [] if value is None else value


def _text_or_empty(value: Any) -> Any:
    return "" if value is None else value


def _seconds_or_none(value: Any) -> Any:
    """Return a Unix time in seconds, also of one in milliseconds; None of what can't be one."""
    try:
        seconds = int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds // 1000 if seconds > _MILLISECONDS else seconds if seconds > 0 else None


class _Model(BaseModel):
    # Input values stay out of validation errors: one of them may be a private key.
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True)


class ApiKey(_Model):
    """An API key as Kalshi knows it.

    Attributes:
        api_key_id: Its id; ``api_key`` is the same.
        name: What its owner calls it. Kalshi doesn't say that names are unique.
        scopes: What it may do.
        created_ts: When it was made, if Kalshi says so.
        subaccount: The one subaccount that it is restricted to.
        fcm_subtrader_id: The one FCM subtrader that it is bound to.
    """

    api_key_id: str = Field(min_length=1, validation_alias=AliasChoices("api_key_id", "api_key"))
    name: Annotated[str, BeforeValidator(_text_or_empty)] = ""
    scopes: Annotated[list[str], BeforeValidator(_list_or_empty)] = Field(default_factory=list)
    created_ts: int | float | str | None = None
    subaccount: int | None = None
    fcm_subtrader_id: str | None = None

    @property
    def api_key(self) -> str:
        """The API key id, by the name that Kalshi's older clients give it."""
        return self.api_key_id


class ListApiKeysResponse(_Model):
    """The answer to ``GET /api_keys``.

    Attributes:
        api_keys: The account's keys.
        api_key_region_expiration_ts: When the account's location attestation ends, Unix time in seconds.
    """

    api_keys: Annotated[list[ApiKey], BeforeValidator(_list_or_empty)] = Field(default_factory=list)
    api_key_region_expiration_ts: Annotated[int | None, BeforeValidator(_seconds_or_none)] = None


class CreateApiKeyResponse(_Model):
    """The answer to ``POST /api_keys``.

    Attributes:
        api_key: The new key: its id as Kalshi gave it, name and scopes as they were asked for.
        warning: What Kalshi has to say about it.
    """

    api_key: ApiKey
    warning: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _nest(cls, data: Any) -> Any:
        """Kalshi sends the id bare; it goes into an ApiKey with what was asked for, so that it reads like list."""
        if not isinstance(data, dict) or isinstance(data.get("api_key"), ApiKey):
            return data
        sent = data.get("api_key")
        inner = sent if isinstance(sent, dict) else {"api_key_id": data.get("api_key_id") or sent}
        return {**data, "api_key": {**data, **inner}}

    @property
    def api_key_id(self) -> str:
        """The new key's id."""
        return self.api_key.api_key_id


class GenerateApiKeyResponse(CreateApiKeyResponse):
    """The answer to ``POST /api_keys/generate``.

    Attributes:
        private_key: PEM of the private half, PKCS#1 for RSA and PKCS#8 for Ed25519. Kalshi gives it once.
        key_type: ``rsa`` or ``ed25519``.
    """

    private_key: SecretStr
    key_type: str | None = None
