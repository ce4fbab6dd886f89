"""The client is what its source builds, small enough, typed by the catalog, and its own tests pass."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from mlc_broker.model.catalog import Catalog

CLIENT = Path(__file__).parents[2] / "clients" / "javascript"


def node(*words: str, said: str = "") -> str:
    """Run node in the client's directory; what it prints. A failure says what to do."""
    done = subprocess.run(
        ["node", *words], cwd=CLIENT, input=said, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_served_files_are_a_fresh_build_of_at_most_six_kilobytes() -> None:
    print("\n" + node("scripts/build.mjs", "--check").strip())


def test_the_types_are_those_of_the_catalog() -> None:
    schemas = json.dumps(Catalog.standard().schemas())
    assert node("scripts/generate.mjs", "-", "--check", said=schemas).strip() == "up to date"


def test_the_source_is_sound_typescript() -> None:
    node("node_modules/typescript/bin/tsc", "-p", ".")


def test_a_wrong_property_is_a_compile_error(tmp_path: Path) -> None:
    game = tmp_path / "game.ts"
    game.write_text(
        'import { createClient } from "mlc-events";\n'
        'const client = createClient({ url: "https://b.school", getToken: () => "" });\n'
        'client.track("target_met", { game_id: "G-01542", actual_score: 87 });\n'
        "// @ts-expect-error a score is a number\n"
        'client.track("game_stage_complete", { score: "87" });\n'
        "// @ts-expect-error a typo is found\n"
        'client.track("game_stage_complete", { scor: 87 });\n'
        "// @ts-expect-error an unknown type\n"
        'client.track("game_stage_completed", {});\n'
        'client.track("org.choir_joined", { anything: 1 });\n'
    )
    settings = {
        "compilerOptions": {
            "strict": True,
            "noEmit": True,
            "module": "ES2022",
            "target": "ES2022",
            "moduleResolution": "bundler",
            "lib": ["ES2022", "DOM"],
            "types": [],
            "paths": {
                "mlc-events": [
                    str(CLIENT.parents[1] / "mlc_broker/edge/static/sdk/mlc-events.d.ts")
                ]
            },
        },
        "files": ["game.ts"],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings))
    node("node_modules/typescript/bin/tsc", "-p", str(tmp_path))


def test_the_units_of_the_client_do_as_they_say() -> None:
    tests = [str(path.relative_to(CLIENT)) for path in sorted((CLIENT / "test").glob("*.test.mjs"))]
    node("--import", "./test/register.mjs", "--test", *tests)


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (CLIENT / "package-lock.json").read_text()
