"""What the page sends: a disposition, checked; who sends it is told by the token, not by the page."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.alerts import Disposition
from schemas.events import Word
from streams.api.problems import Problem
from streams.tokens import Grant

__all__ = ["Asked", "disposition_of"]

_LONGEST_BY: Final = 128
_Key = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
_Name = Annotated[str, Meta(min_length=1, max_length=60)]


class Asked(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to be done about an alert.

    ``key`` is a UUID of the sender's choice: sent again after a broken connection it is the same disposition. ``name``
    is the person's, for the record beside the organisation that the token belongs to.
    """

    action: Literal["acknowledge", "assess", "dispose", "close"]
    key: _Key
    name: _Name
    reason: Word | None = None


def disposition_of(asked: Asked, alert_id: str, grant: Grant, now: datetime) -> Disposition:
    """The disposition of a token's holder; Problem ``malformed-body`` where it cannot be sent."""
    organisation = grant.organisation[: _LONGEST_BY - len(asked.name) - 3]
    made = Disposition(
        # The token's id keeps the keys of one organisation apart from another's.
        disposition_id=f"board-{grant.id or 'local'}-{asked.key}",
        alert_id=alert_id,
        action=asked.action,
        by=f"{asked.name} ({organisation})",
        at=now,
        reason=asked.reason,
    )
    try:
        return msgspec.json.decode(msgspec.json.encode(made), type=Disposition)  # Structs check when they decode
    except msgspec.ValidationError as error:
        raise Problem("malformed-body", f"not a disposition: {error}") from None
