"""Black out what looks like an address, a telephone number, or whatever patterns you add."""

import re
from typing import Any

from msgspec import Struct, field

from mlc_broker import Event, Processor, Stage, Verdict

PATTERNS = {
    "email": r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}",
    "phone": r"(?<![\w.])\+?\d[\d /().-]{7,17}\d(?![\w.])",
}
TEXT_MAX = 20_000  # a longer text is not searched but blacked out whole
DEPTH_MAX = 32


class Redact(Processor):
    """Look through every text of `properties`. A pattern is a regular expression of your own.

    Keep patterns simple: one that tries too many ways holds the whole daemon up, and the watchdog
    ends it. With isolation = "process" it holds up itself alone.
    """

    name = "redact"
    stage = Stage.EXTEND

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """The keys of its [[pipeline]] table."""

        patterns: dict[str, str] = field(default_factory=lambda: dict(PATTERNS))
        keep: tuple[str, ...] = ()  # properties that are left alone

        def __post_init__(self) -> None:
            """A pattern that is none is told at the start."""
            for name, pattern in self.patterns.items():
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"pattern {name}: {error}") from None

    settings: Settings

    async def open(self) -> None:
        """Compile the patterns."""
        patterns = self.settings.patterns
        self._patterns = [(f"[{name}]", re.compile(text)) for name, text in patterns.items()]

    async def process(self, event: Event) -> Verdict:
        """Return the event without what the patterns found."""
        properties = event.properties
        clean = {
            name: value if name in self.settings.keep else self._clean(value, 0)
            for name, value in properties.items()
        }
        return event if clean == properties else event.but(properties=clean)

    def _clean(self, value: Any, depth: int) -> Any:
        if depth > DEPTH_MAX:
            return None
        match value:
            case str():
                return self._redacted(value)
            case dict():
                return {name: self._clean(inner, depth + 1) for name, inner in value.items()}
            case list():
                return [self._clean(inner, depth + 1) for inner in value]
        return value

    def _redacted(self, text: str) -> str:
        if len(text) > TEXT_MAX:
            return "[too long]"
        for mark, pattern in self._patterns:
            text = pattern.sub(mark, text)
        return text
