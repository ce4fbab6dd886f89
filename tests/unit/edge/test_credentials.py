"""Who is let in: keys from their file, tokens by the rules, and no hostile one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from mlc_broker.edge.credentials import (
    Credentials,
    TokenRules,
    VerificationKey,
    load_jwks,
    make_token,
    secret_key,
)
from mlc_broker.edge.keys import KeyBook, create_key, list_keys, load_pepper, revoke_key
from mlc_broker.model.errors import ConfigError, NotFound, Unauthenticated
from mlc_broker.model.principal import Role

NOW = datetime(2025, 1, 27, 14, 30, tzinfo=UTC)
SECRET = b"a secret of the school, 32 bytes"
PEPPER = b"p" * 32
T = int(NOW.timestamp())
CLAIMS: dict[str, Any] = {
    "sub": "usr_1",
    "org": "org_1",
    "role": "teacher",
    "iat": T - 10,
    "exp": T + 3_600,
    "aud": "mlc-broker",
    "iss": "lms",
}
OKP, EC, RSA = (
    OKPKey.generate_key("Ed25519"),
    ECKey.generate_key("P-256"),
    RSAKey.generate_key(2048),
)
STRANGER = OKPKey.generate_key("Ed25519")


class StillClock:
    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        return self.time


class Ticks:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def b64(data: bytes | dict[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(claims: dict[str, Any] | bytes, key: Any = OKP, alg: str = "EdDSA", **header: Any) -> str:
    """Sign by cryptography itself, so that odd headers and claims can be said at all."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    text = f"{b64({'alg': alg, **header})}.{b64(claims)}"
    said = text.encode()
    if isinstance(key, bytes):
        signature = hmac.new(key, said, hashlib.sha256).digest()
    elif isinstance(key, OKPKey):
        signature = key.get_op_key("sign").sign(said)  # type: ignore[union-attr]
    elif isinstance(key, RSAKey):
        signature = key.get_op_key("sign").sign(said, padding.PKCS1v15(), hashes.SHA256())
    else:
        der = key.get_op_key("sign").sign(said, ec.ECDSA(hashes.SHA256()))
        signature = b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(der))
    return f"{text}.{b64(signature)}"


def jwks(*keys: tuple[Any, str | None, str | None]) -> str:
    entries = []
    for key, kid, alg in keys:
        entry = key.as_dict(private=False)
        entry.pop("kid", None)
        entries.append(entry | ({"kid": kid} if kid else {}) | ({"alg": alg} if alg else {}))
    return json.dumps({"keys": entries})


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyBook]:
    book = KeyBook(tmp_path / "keys.db", PEPPER)
    yield book
    book.close()


@pytest.fixture
def verification_keys(tmp_path: Path) -> list[VerificationKey]:
    path = tmp_path / "jwks.json"
    path.write_text(jwks((OKP, "ed", "EdDSA"), (EC, "ec", None), (RSA, "rsa", "RS256")))
    return [secret_key(SECRET), *load_jwks(path)]


@pytest.fixture
def credentials(
    keys: KeyBook, verification_keys: list[VerificationKey], clock: StillClock
) -> Credentials:
    return Credentials(
        keys,
        verification_keys,
        rules=TokenRules(issuer="lms"),
        clock=clock,
        organization_known=lambda organization_id: organization_id == "org_1",
    )


def but(**changes: Any) -> dict[str, Any]:
    return CLAIMS | changes


def without(name: str) -> dict[str, Any]:
    return {k: v for k, v in CLAIMS.items() if k != name}


def rsa_public_as_secret() -> bytes:
    return bytes(RSA.as_pem(private=False))


HOSTILE: dict[str, Callable[[], str]] = {
    "alg none": lambda: f"{b64({'alg': 'none'})}.{b64(CLAIMS)}.",
    "alg None with a signature": lambda: sign(CLAIMS, alg="None"),
    "no alg": lambda: f"{b64({'typ': 'JWT'})}.{b64(CLAIMS)}.AAAA",
    "HS256 by the RSA public key": lambda: sign(CLAIMS, rsa_public_as_secret(), "HS256", kid="rsa"),
    "HS256 by another secret": lambda: sign(CLAIMS, b"x" * 32, "HS256"),
    "RS256 by another key of the right kid": lambda: sign(
        CLAIMS, RSAKey.generate_key(2048), "RS256", kid="rsa"
    ),
    "EdDSA by a stranger": lambda: sign(CLAIMS, STRANGER, kid="ed"),
    "embedded jwk": lambda: sign(CLAIMS, STRANGER, jwk=STRANGER.as_dict(private=False)),
    "unknown kid": lambda: sign(CLAIMS, kid="other"),
    "kid of another algorithm": lambda: sign(CLAIMS, kid="rsa"),
    "critical extension": lambda: sign(CLAIMS, crit=["exp"]),
    "unencoded payload": lambda: sign(CLAIMS, b64=False),
    "signature cut": lambda: sign(CLAIMS)[:-4],
    "payload changed": lambda: ".".join(
        [(parts := sign(CLAIMS).split("."))[0], b64(but(role="system_admin")), parts[2]]
    ),
    "no exp": lambda: sign(without("exp")),
    "exp as text": lambda: sign(but(exp=str(T + 60))),
    "exp true": lambda: sign(but(exp=True, iat=False)),
    "exp passed": lambda: sign(but(exp=T - 31)),
    "exp in ten years": lambda: sign(but(exp=T + 315_360_000)),
    "no iat": lambda: sign(without("iat")),
    "iat in the future": lambda: sign(but(iat=T + 300)),
    "not before later": lambda: sign(but(nbf=T + 300)),
    "no aud": lambda: sign(without("aud")),
    "aud of another": lambda: sign(but(aud="billing")),
    "aud a list": lambda: sign(but(aud=["mlc-broker", "billing"])),
    "iss of another": lambda: sign(but(iss="evil")),
    "no iss": lambda: sign(without("iss")),
    "no sub": lambda: sign(without("sub")),
    "empty sub": lambda: sign(but(sub="")),
    "sub a number": lambda: sign(but(sub=1)),
    "sub too long": lambda: sign(but(sub="x" * 129)),
    "sub with NUL": lambda: sign(but(sub="a\0b")),
    "no org": lambda: sign(without("org")),
    "org a list": lambda: sign(but(org=["org_1"])),
    "unknown org": lambda: sign(but(org="org_2")),
    "role a list": lambda: sign(but(role=["teacher"])),
    "role unknown": lambda: sign(but(role="god")),
    "no role": lambda: sign(without("role")),
    "payload no object": lambda: sign(b"[]"),
    "payload no JSON": lambda: sign(b"{"),
    "exp infinite": lambda: sign(
        b'{"sub":"u","org":"org_1","role":"student","iat":1,"exp":1e999,"aud":"mlc-broker"}'
    ),
    "five parts": lambda: "a.b.c.d.e",
    "nothing": str,
    "half a megabyte": lambda: "x" * 500_000,
    "key of no kind": lambda: "mlc_zk_0000_0000",
    "key without secret": lambda: "mlc_ik_0000",
    "not ASCII": lambda: "mlc_ik_é_ü",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_token_is_refused(credentials: Credentials, name: str) -> None:
    with pytest.raises(Unauthenticated) as told:
        credentials.verify(HOSTILE[name]())
    assert "Traceback" not in str(told.value)


GOOD: dict[str, Callable[[], str]] = {
    "EdDSA": lambda: sign(CLAIMS, kid="ed"),
    "EdDSA without kid": lambda: sign(CLAIMS),
    "ES256": lambda: sign(CLAIMS, EC, "ES256", kid="ec"),
    "RS256": lambda: sign(CLAIMS, RSA, "RS256", kid="rsa"),
    "HS256": lambda: sign(CLAIMS, SECRET, "HS256", typ="JWT"),
    "HS256 with a kid of its own": lambda: sign(CLAIMS, SECRET, "HS256", kid="lms-2025"),
    "one second past exp, inside the leeway": lambda: sign(but(exp=T - 1)),
    "jku is ignored": lambda: sign(CLAIMS, jku="https://evil.example/jwks.json"),
    "x5u is ignored": lambda: sign(CLAIMS, x5u="https://evil.example/cert"),
    "an unknown claim": lambda: sign(but(classes="all", nbf=T - 5)),
    "made by us": lambda: make_token(
        SECRET, sub="usr_1", org="org_1", role="teacher", now=NOW, issuer="lms"
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_token_speaks_for_its_person(credentials: Credentials, name: str) -> None:
    principal = credentials.verify(GOOD[name]())
    assert (principal.kind, principal.id, principal.organization_id) == ("user", "usr_1", "org_1")
    assert principal.role is Role.TEACHER


def test_a_known_token_ends_at_its_time_too(credentials: Credentials, clock: StillClock) -> None:
    token = sign(CLAIMS)
    principal = credentials.verify(token)
    assert credentials.verify(token) is principal  # remembered
    clock.time += timedelta(seconds=3_631)
    assert not credentials.is_current(principal)
    with pytest.raises(Unauthenticated, match="expired"):
        credentials.verify(token)


def test_replaced_keys_are_refused_at_once(credentials: Credentials) -> None:
    token = sign(CLAIMS)
    credentials.verify(token)
    credentials.use_keys([secret_key(SECRET)])
    with pytest.raises(Unauthenticated):
        credentials.verify(token)


def test_only_bearer_is_understood(credentials: Credentials) -> None:
    assert credentials.authorization(f"bearer  {sign(CLAIMS)}").id == "usr_1"
    for header in (None, "", "Bearer", "Basic dTpw", sign(CLAIMS)):
        with pytest.raises(Unauthenticated):
            credentials.authorization(header)


def test_a_key_works_at_once_and_ends_within_a_second(tmp_path: Path) -> None:
    path, ticks = tmp_path / "keys.db", Ticks()
    book = KeyBook(path, PEPPER, monotonic=ticks)
    key = create_key(
        path, PEPPER, organization_id="org_1", name="kiosk", now=NOW, may_write_roster=True
    )
    principal = book.verify(key)
    assert (principal.kind, principal.organization_id, principal.may_write_roster) == (
        "ingest",
        "org_1",
        True,
    )
    (record,) = list_keys(path)
    revoke_key(path, record.id, NOW)
    ticks.seconds += 0.5
    assert not book.is_current(record.id)
    with pytest.raises(Unauthenticated):
        book.verify(key)
    assert list_keys(path)[0].revoked_at is not None
    with pytest.raises(NotFound):
        revoke_key(path, "nope", NOW)
    book.close()


def test_a_keys_secret_is_nowhere_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    key = create_key(path, PEPPER, organization_id="org_1", name="kiosk", now=NOW)
    secret = key.split("_", 3)[3].encode()
    assert all(secret not in file.read_bytes() for file in tmp_path.iterdir())
    assert path.stat().st_mode & 0o077 == 0


def test_only_the_whole_key_fits(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    key = create_key(
        path,
        PEPPER,
        organization_id="org_1",
        name="page",
        now=NOW,
        anonymous=True,
        categories=frozenset({"user_interaction"}),
    )
    book = KeyBook(path, PEPPER)
    assert book.verify(key).categories == frozenset({"user_interaction"})
    for wrong in (key[:-1], key + "x", key.replace("_ak_", "_ik_"), key.upper(), key[:24] + "é"):
        with pytest.raises(Unauthenticated):
            book.verify(wrong)
    book.close()
    other = KeyBook(path, b"q" * 32)
    with pytest.raises(Unauthenticated):
        other.verify(key)
    other.close()


def test_a_key_that_makes_no_sense_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    for wrong in (
        {"categories": frozenset({"nonsense"}), "anonymous": True},
        {"anonymous": True},
        {"categories": frozenset({"user_interaction"})},
    ):
        with pytest.raises(ValueError, match="categor"):
            create_key(path, PEPPER, organization_id="o", name="n", now=NOW, **wrong)


def test_the_pepper_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "pepper.key"
    assert load_pepper(path) == load_pepper(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_jwks_that_is_not_usable_says_which_key(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    small = {"kty": "RSA", "n": b64(b"\xff" * 128), "e": "AQAB"}
    secret = OctKey.generate_key(256).as_dict(private=True)
    ec384 = ECKey.generate_key("P-384").as_dict(private=False)
    for wrong in (
        "nonsense",
        "[]",
        '{"keys": 5}',
        '{"keys": [{}]}',
        json.dumps({"keys": [small]}),
        json.dumps({"keys": [secret]}),
        json.dumps({"keys": [ec384]}),
        jwks((RSA, None, "PS512")),
    ):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match=r"jwks\.json"):
            load_jwks(path)
    with pytest.raises(ConfigError, match="32 bytes"):
        secret_key(b"short")
