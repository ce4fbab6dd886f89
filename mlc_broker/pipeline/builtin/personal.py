"""What identifies a person, and how it is taken out of what an event carries: the rule table.

Two strengths. `plain` is for everybody: what no event may carry. `strict` is for children without
consent, for people of unknown age, and for personal (`pii`) events: whatever could say who it was.
`docs/privacy.md` shows these tables; they stand here alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from msgspec import Struct

from mlc_broker.model.types.parts import Context

REMOVED = "[removed]"  # stands where a text was, so that the event keeps its shape
TOKEN_CHARS_MAX = 64
BLOB_CHARS = 1024  # of base64: a picture, a recording, a template of a body

# Keys that no event may carry, in whatever spelling (`home-address`, `homeAddress`).
DENIED: Mapping[str, tuple[str, ...]] = {
    "e-mail": ("email", "emails", "mail", "emailaddress", "mailaddress"),
    "telephone": (
        "phone",
        "phonenumber",
        "telephone",
        "mobile",
        "mobilenumber",
        "cellphone",
        "fax",
    ),
    "address": (
        *("address", "homeaddress", "streetaddress", "postaladdress", "street", "zip", "zipcode"),
        *("postcode", "postalcode", "addressline1", "addressline2"),
    ),
    "date of birth": ("birthdate", "birthday", "dateofbirth", "dob", "birthyear"),
    "picture or voice": (
        *("photo", "profilephoto", "profilepicture", "picture", "selfie", "avatarurl", "portrait"),
        *("photourl", "recording", "audiodata", "voiceprint", "faceprint", "fingerprint"),
        *("biometric", "biometrics", "facetemplate", "gait"),
    ),
    "number of a network or a device": (
        *("ip", "ipaddress", "clientip", "remoteaddr", "ipv4", "ipv6", "xforwardedfor"),
        *("macaddress", "imei", "idfa", "gaid", "advertisingid", "deviceid", "serialnumber"),
    ),
    "place": ("latitude", "longitude", "lat", "lng", "gps", "geolocation", "coordinates"),
    "number of a state or a bank": (
        *("ssn", "socialsecuritynumber", "nationalid", "governmentid", "passport"),
        *("passportnumber", "taxid", "driverslicense", "iban", "creditcard", "cardnumber"),
    ),
    "social network": (
        *("socialmedia", "sociallinks", "facebook", "instagram", "twitter", "tiktok"),
        *("snapchat", "discord", "whatsapp", "contacts", "addressbook"),
    ),
    "secret": ("password", "passwd", "authtoken", "accesstoken", "secret", "apikey", "cookie"),
}
DENIED_ENDS = ("email", "phone", "phonenumber", "emailaddress", "birthdate", "ipaddress")

# Besides, of children without consent and in personal events.
DENIED_STRICT: Mapping[str, tuple[str, ...]] = {
    "name": ("initials", "nick", "nickname", "surname", "username", "login", "alias", "handle"),
    "device": ("useragent", "hostname", "devicename", "browserfingerprint", "canvas"),
    "family": ("parent", "guardian", "mother", "father", "sibling"),
    "where from": ("city", "town", "neighborhood", "ethnicity", "religion", "nationality"),
}
DENIED_STRICT_PARTS = ("name",)  # anywhere in an unknown key: `player_name`, `fullName`

CONTEXT_KEPT = frozenset(Context.__struct_fields__) - {"actor_id", "correlation_id"}
CONTEXT_LINKS = frozenset({"run_id", "impersonation_id", "class_id"})  # not of personal events
DEVICE_KEPT = frozenset({"platform", "browser"})  # what millions share

_EMAIL = r"[^\s\"'<>(),;:=&?/]+(?:@|%40|＠)[^\s\"'<>(),;:&]+"
_PHONE = (
    r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)[ .-]?|\d{2,4}[ .-])\d{3,4}[ .-]?\d{3,4}"
    r"(?![\w.-]*\w)|(?<![\w+])\+\d{8,15}(?!\w)"
)
_STATE_NUMBER = r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])|(?<!\w)(?:\d{4}[ -]){3}\d{4}(?!\w)"
_DATA_URI = r"data:[a-z]+/[\w.+-]+;base64,\S*"
_IPV4 = r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w.])"
_AT = re.compile(_EMAIL, re.IGNORECASE)
_NUMBERS = re.compile(f"{_STATE_NUMBER}|{_PHONE}")
_URI = re.compile(_DATA_URI, re.IGNORECASE)
_DIGITS = re.compile(r"\d\d")  # every number that is looked for has two together
_ADDRESS = re.compile(_IPV4)
_BLOB = re.compile(rf"[A-Za-z0-9+/_=-]{{{BLOB_CHARS},}}")
_TOKEN = re.compile(rf"[\w.:/+#@-]{{0,{TOKEN_CHARS_MAX}}}")
_OTHER_THAN_LETTERS = re.compile(r"[\W_]+")

Json: TypeAlias = Any
_GONE = object()


class Rules(Struct, frozen=True, kw_only=True):
    """How to look at one object: which of its keys are known, which of these are free text."""

    strict: bool
    known: frozenset[str] = frozenset()
    text: frozenset[str] = frozenset()
    quiet: frozenset[str] = frozenset()  # numbers and short words: no need to look


def cleaned(part: Mapping[str, Json], rules: Rules) -> dict[str, Json]:
    """Return the object without what identifies; equal to `part` where there was nothing."""
    kept: dict[str, Json] = {}
    for key, value in part.items():
        if key in rules.text and rules.strict:
            new: Json = REMOVED if value is not None else None
        elif key in rules.quiet:
            new = value
        elif key in rules.known:
            new = _known(key, value, strict=rules.strict)
        elif is_denied(key, strict=rules.strict) and not _is_flag(key, value):
            continue  # yes and no (`"mobile": true`) say nothing of a person
        else:
            new = _unknown(value, strict=rules.strict)
        if new is not _GONE:
            kept[key] = new
    return kept


@lru_cache(maxsize=4096)
def is_denied(key: str, *, strict: bool) -> bool:
    """Return whether a key that no schema knows says that its value identifies somebody."""
    if len(key) > TOKEN_CHARS_MAX or "@" in key:
        return strict or _scrubbed(key, strict=strict) != key
    bare = _OTHER_THAN_LETTERS.sub("", key).lower()
    if bare in _DENIED or bare.endswith(DENIED_ENDS):
        return True
    if not strict:
        return False
    unclear = _TOKEN.fullmatch(key) is None
    return unclear or bare in _DENIED_STRICT or any(part in bare for part in DENIED_STRICT_PARTS)


def path_only(url: str) -> str:
    """Return an address without its query and fragment: they hold searches, names, tokens."""
    return url.split("?", 1)[0].split("#", 1)[0]


def without(value: Json, word: str, instead: str | None) -> Json:
    """Return a JSON value in which no string is, or holds, that word."""
    match value:
        case str():
            return value.replace(word, instead or REMOVED)
        case dict():
            return {key: without(each, word, instead) for key, each in value.items()}
        case list():
            return [without(each, word, instead) for each in value]
        case _:
            return value


def _is_flag(key: str, value: Json) -> bool:
    return isinstance(value, bool) and key.isidentifier()


def _known(key: str, value: Json, *, strict: bool) -> Json:
    if isinstance(value, str):
        if strict and (key.endswith("url") or key in _URLS):
            value = path_only(value)
        return _scrubbed(value, strict=False)
    return value if not isinstance(value, dict | list) else _unknown(value, strict=strict)


def _unknown(value: Json, *, strict: bool) -> Json:
    match value:
        case str():
            clean = _scrubbed(value, strict=strict)
            if strict and (clean != value or _TOKEN.fullmatch(value) is None):
                return _GONE  # a text: who knows what it says
            return clean
        case dict():
            return cleaned(value, _STRICT if strict else _PLAIN)
        case list():
            some = (_unknown(each, strict=strict) for each in value)
            return [each for each in some if each is not _GONE]
        case _:
            return value


def _scrubbed(text: str, *, strict: bool) -> str:
    if len(text) >= BLOB_CHARS and _BLOB.search(text):
        return REMOVED
    if "base64" in text:
        text = _URI.sub(REMOVED, text)
    if "@" in text or "%40" in text or "＠" in text:
        text = _AT.sub(REMOVED, text)
    if _DIGITS.search(text) or "." in text:
        text = _NUMBERS.sub(REMOVED, text)
        text = _ADDRESS.sub(REMOVED, text) if strict else text
    return text


def _flat(table: Mapping[str, Iterable[str]]) -> frozenset[str]:
    return frozenset(word for words in table.values() for word in words)


_DENIED, _DENIED_STRICT = _flat(DENIED), _flat(DENIED_STRICT)
_URLS = frozenset({"referrer", "endpoint", "file_name"})
_STRICT, _PLAIN = Rules(strict=True), Rules(strict=False)
