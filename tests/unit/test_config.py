"""config.toml: strict, and kind to whoever made a mistake in it."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.cli.reference_config import full_toml, short_toml
from mlc_broker.config import Config, address, load
from mlc_broker.config_files import ensure_secret, place_of, read_secret
from mlc_broker.config_lines import lines_of
from mlc_broker.config_sections import DEFAULT_STEPS
from mlc_broker.model.errors import ConfigError


def wrongs(tmp_path: Path, text: str) -> list[str]:
    """What `load` says about a file, a line each, without the folder."""
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


def good(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return load(file, environ or {})


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    config = good(tmp_path, "")
    assert config == Config(file=tmp_path / "config.toml")
    assert tuple(step.use for step in config.pipeline) == DEFAULT_STEPS


@pytest.mark.parametrize("text", [full_toml(), short_toml()])
def test_the_files_that_we_write_spell_out_the_defaults(tmp_path: Path, text: str) -> None:
    assert good(tmp_path, text) == good(tmp_path, "")


def test_the_full_file_shows_every_key() -> None:
    shown = lines_of(full_toml().replace("\n# ", "\n"))
    for section in ("http", "websocket", "storage", "auth", "events", "privacy", "limits"):
        for key in getattr(Config(file=Path()), section).__struct_fields__:
            assert (section, key) in shown, f"[{section}] {key}"


def test_an_unknown_key_is_told_with_its_line_the_nearest_key_and_all_keys(tmp_path: Path) -> None:
    (line,) = wrongs(tmp_path, "[http]\n\n[storage]\nslotz = 1\n")
    assert line.startswith(
        'config.toml:4: [storage] has no key "slotz"; did you mean "slots"? There is ballast_bytes'
    )


def test_an_unknown_section_is_told(tmp_path: Path) -> None:
    (line,) = wrongs(tmp_path, "\n[sorage]\n")
    assert line.startswith('config.toml:2: there is no section "sorage"; did you mean "storage"?')


def test_every_wrong_key_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    told = wrongs(
        tmp_path,
        '[http]\nlisten = 7310\n[storage]\nslots = 900\ndurability = "maybe"\n'
        '[privacy.consent]\nuser_interaction = 3\n[[pipeline]]\non_failure = "hld"\n',
    )
    assert told == [
        "config.toml:2: [http] listen: expected a text in quotes, got 7310",
        "config.toml:4: [storage] slots: expected a whole number from 1 to 256, got 900",
        'config.toml:5: [storage] durability: expected "power-loss" or "process-crash", got "maybe"',
        "config.toml:7: [privacy.consent] user_interaction: expected true or false, got 3",
        "config.toml:8: [[pipeline]] 1 needs `use`: a text in quotes of at most 64 characters",
        'config.toml:9: [[pipeline]] 1 on_failure: expected "hold" or "skip", got "hld"',
    ]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a = [1\n", "config.toml:1: this is not TOML"),
        ("[http]\nlisten = \n", "config.toml:2: this is not TOML"),
        ("[http]\n[http]\n", "config.toml:2: this is not TOML"),
        ("http = 3\n", "config.toml:1: [http] is a section"),
        ("[pipeline]\nuse = 'protect'\n", "config.toml:1: [[pipeline]] is a list of tables"),
        (
            "[http]\nlisten = '7310'\n",
            "config.toml:2: [http] listen: expected an address and a port",
        ),
        ("[http]\nlisten = 'a:99999'\n", "config.toml:2: [http] listen: a port is a number"),
        ("[http]\nlisten = '::1:80'\n", "config.toml:2: [http] listen: an IPv6 address stands in"),
        ("[http]\ntls_key = 'k'\n", "config.toml:2: [http] tls_key: certificate and key"),
        (
            "[http]\nlisten = '127.0.0.1:7311'\n",
            "config.toml:1: [websocket] listen: is [http]'s too",
        ),
        ("[[pipeline]]\nuse = 'route'\n", 'config.toml:1: [[pipeline]] has no `use = "protect"`'),
        (
            "[[pipeline]]\nuse = 'protect'\non_failure = 'skip'\n",
            'config.toml:3: [[pipeline]] "protect" on_failure: it can only "hold"',
        ),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(tmp_path: Path, text: str, start: str) -> None:
    (line,) = wrongs(tmp_path, text)
    assert line.startswith(start)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mlc-broker init"):
        load(tmp_path / "nowhere.toml", {})


def test_a_folder_or_bytes_that_are_not_text_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, {})
    (tmp_path / "c.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 0"):
        load(tmp_path / "c.toml", {})


@given(st.text(max_size=200))
def test_any_text_is_a_config_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(text.encode("utf-8", "replace"))
    try:
        assert isinstance(load(file, {}), Config)
    except ConfigError as error:
        assert str(error).startswith(str(file))


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.booleans(),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=4,
    ).filter(lambda value: value is not None and "None" not in repr(value)),
    st.sampled_from(
        ["storage.slots", "http.listen", "events.max_batch", "http.origins", "auth.issuer"]
    ),
)
def test_any_value_of_a_key_is_taken_or_named(
    tmp_path_factory: pytest.TempPathFactory, value: object, key: str
) -> None:
    from mlc_broker.config_describe import written

    file = tmp_path_factory.getbasetemp() / "value.toml"
    text = f"{key} = {written(value)}\n"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    file.write_text(text, "utf-8")
    try:
        load(file, {})
    except ConfigError as error:
        section, _, name = key.partition(".")
        assert str(error).startswith(f"{file}:1: [{section}] {name}: ")


def test_a_processors_own_settings_are_handed_on(tmp_path: Path) -> None:
    config = good(
        tmp_path,
        '[[pipeline]]\nuse = "protect"\n[[pipeline]]\nuse = "screen"\non_failure = "skip"\n'
        "score_max = 9000\n[pipeline.rates]\nnavigation = 0.01\n",
    )
    step = config.pipeline[1]
    assert (step.use, step.on_failure, step.seconds_max) == ("screen", "skip", 5.0)
    assert step.settings == {"score_max": 9000, "rates": {"navigation": 0.01}}


def test_names_in_the_file_are_relative_to_it(tmp_path: Path) -> None:
    config = good(tmp_path, "")
    assert config.data_path == tmp_path / "data"
    assert config.secret_path("jwt.secret", {}) == tmp_path / "jwt.secret"


def test_under_systemd_the_state_folder_holds_the_data_unless_the_file_says_where(
    tmp_path: Path,
) -> None:
    systemd = {"STATE_DIRECTORY": "/var/lib/mlc-broker"}
    assert good(tmp_path, "", systemd).data_path == Path("/var/lib/mlc-broker")
    told = good(tmp_path, '[storage]\npath = "here"\n', systemd)
    assert told.data_path == tmp_path / "here"


def test_a_credential_of_systemd_comes_before_the_file_beside(tmp_path: Path) -> None:
    given_folder = tmp_path / "credentials"
    given_folder.mkdir()
    (given_folder / "jwt.secret").write_text("x")
    (tmp_path / "jwt.secret").write_text("y")
    environ = {"CREDENTIALS_DIRECTORY": str(given_folder)}
    assert place_of("jwt.secret", tmp_path, environ) == given_folder / "jwt.secret"
    assert place_of("pseudonym.key", tmp_path, environ) == tmp_path / "pseudonym.key"


def test_a_secret_is_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "jwt.secret"
    assert ensure_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = read_secret(path)
    assert len(before) == 64
    assert not ensure_secret(path)
    assert read_secret(path) == before


def test_a_weak_or_missing_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weak").write_text("hunter2\n")
    with pytest.raises(ConfigError, match="7 bytes, too few"):
        read_secret(tmp_path / "weak")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret(tmp_path / "none")


@pytest.mark.parametrize(
    ("listen", "parts"),
    [("127.0.0.1:7310", ("127.0.0.1", 7310)), ("[::1]:0", ("::1", 0)), ("host:1", ("host", 1))],
)
def test_an_address_is_a_host_and_a_port(listen: str, parts: tuple[str, int]) -> None:
    assert address(listen) == parts


def test_headers_inside_texts_do_not_mislead_the_line_numbers() -> None:
    text = '[http]\na = """\n[storage]\nb = 1\n"""\nc = 2\n[[x]]\n[[x]]\nd.e = 1\n'
    assert lines_of(text) == {
        ("http",): 1,
        ("http", "a"): 2,
        ("http", "c"): 6,
        ("x",): 7,
        ("x", 0): 7,
        ("x", 1): 8,
        ("x", 1, "d", "e"): 9,
    }
