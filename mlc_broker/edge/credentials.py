"""Bearer text to Principal: keys from their file, tokens by the rules of the protocol."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from msgspec import Struct

from mlc_broker.edge.keys import PREFIXES, KeyBook
from mlc_broker.model.errors import ConfigError, Unauthenticated
from mlc_broker.model.event import Id
from mlc_broker.model.principal import Principal, Role
from mlc_broker.runtime.clock import Clock

AUDIENCE = "mlc-broker"
TOKEN_CHARS_MAX = 8_192
CACHED_TOKENS_MAX = 10_000


class TokenRules(Struct, frozen=True, kw_only=True):
    """What a user token must satisfy beyond its signature."""

    issuer: str | None = None  # None: not asked for
    token_seconds_max: int = 43_200  # from `iat` to `exp`
    leeway_seconds: int = 30  # clocks differ


class VerificationKey(Struct, frozen=True, kw_only=True):
    """A key and the one algorithm that it is for."""

    algorithm: str
    key: Any
    id: str | None = None


class Claims(Struct, frozen=True):
    """The claims that must be there, and their types. `true` is no number here."""

    sub: Id
    org: Id
    role: Role
    exp: int | float
    iat: int | float
    aud: str
    iss: str | None = None
    nbf: int | float | None = None


class Credentials:
    """Verifies what a client shows. Every refusal is an Unauthenticated that says what is wrong."""

    def __init__(
        self,
        keys: KeyBook,
        verification_keys: list[VerificationKey],
        *,
        rules: TokenRules,
        clock: Clock,
        organization_known: Callable[[str], bool],
    ) -> None:
        """`organization_known` tells whether the roster has an organization: asked at every use."""
        self._keys = keys
        self._rules = rules
        self._clock = clock
        self._organization_known = organization_known
        self._verification_keys = verification_keys
        self._cache: OrderedDict[str, Principal] = OrderedDict()

    def verify(self, bearer: str | None) -> Principal:
        """Return whom a key or a token speaks for; raises Unauthenticated."""
        if not bearer:
            raise Unauthenticated(
                "Show a credential: `Authorization: Bearer …`, or `token` in hello or beacon."
            )
        if len(bearer) > TOKEN_CHARS_MAX:
            raise Unauthenticated(f"A credential has at most {TOKEN_CHARS_MAX} characters.")
        if bearer[:6] in PREFIXES and bearer[6:7] == "_":
            principal = self._keys.verify(bearer)
        else:
            principal = self._cache.get(bearer) or self._verified(bearer)
            self._refuse_expired(principal)
        if not self._organization_known(principal.organization_id or ""):
            raise Unauthenticated("The credential's organization is not in the roster.")
        return principal

    def authorization(self, header: str | None) -> Principal:
        """Return whom an `Authorization` header speaks for; raises Unauthenticated."""
        if header is None:
            return self.verify(None)
        scheme, _, bearer = header.strip().partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("Only `Authorization: Bearer …` is understood.")
        return self.verify(bearer.strip())

    def is_current(self, principal: Principal) -> bool:
        """Tell whether a principal that was verified before still stands: for open sockets."""
        if principal.kind != "user":
            return self._keys.is_current(principal.id)
        expires_at = principal.expires_at
        return expires_at is None or self._clock.now() < expires_at + self._leeway

    def use_keys(self, verification_keys: list[VerificationKey]) -> None:
        """Take these keys from now on: what was signed with others is refused."""
        self._verification_keys = verification_keys
        self._cache.clear()

    @property
    def _leeway(self) -> timedelta:
        return timedelta(seconds=self._rules.leeway_seconds)

    def _refuse_expired(self, principal: Principal) -> None:
        if not self.is_current(principal):
            raise Unauthenticated("The token has expired: ask the LMS for a new one.")

    def _verified(self, token: str) -> Principal:
        claims = self._claims(token)
        self._check(claims)
        principal = Principal(
            kind="user",
            id=claims.sub,
            organization_id=claims.org,
            role=claims.role,
            expires_at=datetime.fromtimestamp(claims.exp, UTC),
        )
        self._cache[token] = principal
        if len(self._cache) > CACHED_TOKENS_MAX:
            self._cache.popitem(last=False)
        return principal

    def _claims(self, token: str) -> Claims:
        if not _COMPACT.fullmatch(token):
            raise Unauthenticated("This is neither a key nor a token (a JWT of three parts).")
        header = _header(token)
        for key in self._candidates(header):
            try:
                registry = _Pinned(algorithms=[key.algorithm], strict_check_header=False)
                payload = jws.deserialize_compact(token, key.key, registry=registry).payload
                return _CLAIMS.decode(payload or b"")
            except msgspec.ValidationError as error:
                raise Unauthenticated(f"A claim is missing or wrong: {error}") from None
            except (JoseError, ValueError, TypeError, OverflowError, RecursionError):
                continue
        raise Unauthenticated("The token's signature does not fit any key known here.")

    def _candidates(self, header: dict[str, Any]) -> list[VerificationKey]:
        """Return the keys that the header may mean: its algorithm is the key's, never its own wish."""
        algorithm, key_id = header.get("alg"), header.get("kid")
        if header.get("crit") is not None or header.get("b64") is not None:
            raise Unauthenticated("The token's header asks for extensions that are not known here.")
        fitting = [key for key in self._verification_keys if key.algorithm == algorithm]
        if key_id is None:
            return fitting
        # A secret has no id: the sender's `kid` cannot name another key than the secret.
        return [key for key in fitting if key.id in (key_id, None)]

    def _check(self, claims: Claims) -> None:
        rules, now = self._rules, self._clock.now().timestamp()
        leeway = rules.leeway_seconds
        if not all(
            math.isfinite(t) and 0 <= t < 2**33 for t in (claims.exp, claims.iat, claims.nbf or 0)
        ):
            raise Unauthenticated("The token's times are not seconds since 1970.")
        if not (claims.sub.isprintable() and claims.org.isprintable()):
            raise Unauthenticated("`sub` and `org` are printable text.")
        if claims.aud != AUDIENCE:
            raise Unauthenticated(f'The token is not for this service: `aud` is "{AUDIENCE}".')
        if rules.issuer is not None and claims.iss != rules.issuer:
            raise Unauthenticated("The token's `iss` is not the issuer that is trusted here.")
        if claims.exp + leeway <= now:
            raise Unauthenticated("The token has expired: ask the LMS for a new one.")
        if claims.iat > now + leeway or (claims.nbf is not None and claims.nbf > now + leeway):
            raise Unauthenticated("The token is not valid yet: compare the clocks.")
        if not 0 < claims.exp - claims.iat <= rules.token_seconds_max:
            raise Unauthenticated(f"A token lives for at most {rules.token_seconds_max} s.")


def secret_key(secret: bytes) -> VerificationKey:
    """Return the key for HS256; raises ConfigError when it is too short to be one."""
    if len(secret) < 32:
        raise ConfigError(
            "The secret for HS256 needs 32 bytes or more: `mlc-broker init` makes one."
        )
    return VerificationKey(algorithm="HS256", key=OctKey.import_key(secret))


def load_jwks(path: Path) -> list[VerificationKey]:
    """Return the keys of a JWKS file; raises ConfigError, naming the entry, and changes nothing."""
    try:
        document = msgspec.json.decode(path.read_bytes(), type=dict[str, list[dict[str, Any]]])
        entries = document["keys"]
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        raise ConfigError(f'{path} is no JWKS ({{"keys": […]}}): {error}') from None
    return [_verification_key(entry, f"{path}: key {i + 1}") for i, entry in enumerate(entries)]


def make_token(
    secret: bytes,
    *,
    sub: str,
    org: str,
    role: str,
    now: datetime,
    seconds: int = 3_600,
    issuer: str | None = None,
) -> str:
    """Return a token signed with the HS256 secret, for trying out."""
    issued = int(now.timestamp())
    claims: dict[str, Any] = {
        "sub": sub,
        "org": org,
        "role": Role(role).value,
        "iat": issued,
        "exp": issued + seconds,
        "aud": AUDIENCE,
    }
    if issuer is not None:
        claims["iss"] = issuer
    return jwt.encode({"alg": "HS256"}, claims, secret_key(secret).key, ["HS256"])


def _verification_key(entry: dict[str, Any], where: str) -> VerificationKey:
    kind, curve, said = entry.get("kty"), entry.get("crv"), entry.get("alg")
    algorithm, loader = _KINDS.get((kind, curve if kind != "RSA" else None), (None, None))
    if loader is None or algorithm is None:
        raise ConfigError(
            f"{where}: {kind} {curve or ''} is not used here; there are OKP Ed25519, EC P-256 and RSA. "
            "A shared secret belongs into secret_file."
        )
    if said not in (None, algorithm) and not (algorithm == "EdDSA" and said == "Ed25519"):
        raise ConfigError(f"{where}: its algorithm is {algorithm}, not {said}.")
    if entry.get("use") not in (None, "sig"):
        raise ConfigError(f"{where}: it is not for signatures.")
    try:
        public = {name: entry[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in entry}
        if kind == "RSA" and len(str(public.get("n", ""))) < 342:  # base64 of 2,048 bits
            raise ConfigError(f"{where}: an RSA key needs 2,048 bits or more.")
        key = loader.import_key(public)
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{where}: not a key: {error}") from None
    return VerificationKey(algorithm=algorithm, key=key, id=entry.get("kid"))


def _header(token: str) -> dict[str, Any]:
    try:
        padded = token.partition(".")[0]
        return _HEADER.decode(f'"{padded}{"=" * (-len(padded) % 4)}"')
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        raise Unauthenticated("The token's header cannot be read.") from None


class _Pinned(jws.JWSRegistry):
    """One algorithm, and no opinion on its name (joserfc warns of "EdDSA" and asks for "Ed25519").

    What a header says of keys (`jku`, `x5u`, `jwk`) is never followed: the key is handed in.
    """

    max_header_length = 2_048

    def get_alg(self, name: str) -> Any:
        """Return the algorithm's model, when it is the pinned one."""
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


class _HeaderDecoder:
    """Base64url of a JSON object."""

    def decode(self, quoted: str) -> dict[str, Any]:
        text = msgspec.json.decode(quoted.replace("-", "+").replace("_", "/"), type=bytes)
        return msgspec.json.decode(text, type=dict[str, Any])


_HEADER = _HeaderDecoder()
_CLAIMS = msgspec.json.Decoder(Claims)
_COMPACT = re.compile(r"[A-Za-z0-9_-]{1,2048}\.[A-Za-z0-9_-]{1,8192}\.[A-Za-z0-9_-]{0,2048}")
_KINDS: dict[tuple[Any, Any], tuple[str, Any]] = {
    ("OKP", "Ed25519"): ("EdDSA", OKPKey),
    ("EC", "P-256"): ("ES256", ECKey),
    ("RSA", None): ("RS256", RSAKey),
}
