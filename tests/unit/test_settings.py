"""
Settings: service URLs, the base URL, trusted proxies, unknown names, files in the data folder.

They are judged together when they are loaded, so their tests stand together.
"""

from __future__ import annotations

import ipaddress
import os

import pytest

from app import settings
from app.domain.errors import SettingsError

SERVICES = {
    "HOPGATE_DATABASE_URL": "postgresql://u:p@a:5432,b:5433/d",
    "HOPGATE_REDIS_URL": "rediss+cluster://u:p@cache:7000",
    "HOPGATE_AMQP_URL": "amqp://u:p@bus/%2F",
}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The data folder, and no other setting."""
    for name in [name for name in os.environ if name.upper().startswith("HOPGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOPGATE_DATA_DIR", str(tmp_path))
    return tmp_path


def secret(value):
    """Return the text of a setting that is a secret."""
    assert value is not None
    return value.get_secret_value()


@pytest.fixture
def environment(monkeypatch):
    for name, value in SERVICES.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_url_with_several_hosts_and_ports(environment):
    loaded = settings.load()

    assert secret(loaded.database_url) == SERVICES["HOPGATE_DATABASE_URL"]


def test_replica_urls_are_separated_by_commas(environment):
    environment.setenv("HOPGATE_DATABASE_REPLICA_URLS", "postgresql://a:1,b:2/d, postgres://c/d?host=x,y")

    urls = [url.get_secret_value() for url in settings.load().database_replica_urls]

    assert urls == ["postgresql://a:1,b:2/d", "postgres://c/d?host=x,y"]


def test_empty_replica_urls(environment):
    environment.setenv("HOPGATE_DATABASE_REPLICA_URLS", "")

    assert settings.load().database_replica_urls == ()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "postgres://u:50%25off@h/d"),
        ("DATABASE_URL", "postgresql:///d?host=/run/postgresql"),
        ("REDIS_URL", "redis://:p@h:6379/0"),
        ("REDIS_URL", "redis+cluster://h:7000"),
        ("REDIS_URL", "unix:///run/redis.sock"),
        ("AMQP_URL", "amqps://u:p@h/%2Fx"),
    ],
)
def test_urls_of_all_drivers(environment, name, url):
    environment.setenv(f"HOPGATE_{name}", url)

    assert getattr(settings.load(), name.lower()).get_secret_value() == url


_BAD_SCHEME, _NO_URL = "must start with one of ", "is not a URL"


@pytest.mark.parametrize(
    ("name", "url", "why"),
    [
        ("DATABASE_URL", "postgresql+psycopg://u:geheim@h/d", _BAD_SCHEME),
        ("DATABASE_URL", "PostgreSQL://u:geheim@h/d", _BAD_SCHEME),
        ("DATABASE_URL", "sqlite:///geheim", _BAD_SCHEME),
        ("DATABASE_URL", "postgresql:u:geheim@h/d", _BAD_SCHEME),
        ("DATABASE_REPLICA_URLS", "postgresql://a/d, postgresql+psycopg://u:geheim@h/d", _BAD_SCHEME),
        ("REDIS_URL", "geheim:6379", _BAD_SCHEME),
        ("REDIS_URL", "http://:geheim@h", _BAD_SCHEME),
        ("AMQP_URL", "rabbitmq://u:geheim@h/", _BAD_SCHEME),
        ("DATABASE_URL", "postgresql://u:50%geheim@h/d", _NO_URL),
        ("DATABASE_URL", "postgresql://u:geheim%@h/d", _NO_URL),
        ("DATABASE_URL", "postgresql://u:geheim\udce9@h/d", _NO_URL),
        ("DATABASE_REPLICA_URLS", "postgresql://a/d,postgresql://u:geheim%2@h/d", _NO_URL),
        ("REDIS_URL", "redis://:geheim%zz@h", _NO_URL),
        ("AMQP_URL", "amqp://u:geheim@h/%", _NO_URL),
    ],
)
def test_invalid_url_is_refused_without_quoting_it(environment, name, url, why):
    environment.setenv(f"HOPGATE_{name}", url)

    with pytest.raises(SettingsError) as caught:
        settings.load()

    assert str(caught.value).startswith(f"HOPGATE_{name}: {why}")
    assert "geheim" not in str(caught.value)


# --- the base URL ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("https://hop.example", "https://hop.example"),
        ("HTTPS://Hop.Example/", "https://hop.example"),
        ("hTTp://hop.example:80", "http://hop.example"),
        ("https://hop.example/s/", "https://hop.example/s"),
        ("https://hop.example/go/to", "https://hop.example/go/to"),
        ("https://☃.example", "https://xn--n3h.example"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_base_url_is_canonical(monkeypatch, given, canonical):
    monkeypatch.setenv("HOPGATE_BASE_URL", given)

    assert settings.load().base_url == canonical


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://user:geheim@hop.example", "user name or password"),
        ("https://geheim@hop.example", "user name or password"),
        ("ftp://user:geheim@hop.example", "user name or password"),
        ("https://hop.example/path?x=1#y", "query or a fragment"),
        ("https://hop.example?", "query or a fragment"),
        ("https://hop.example/#", "query or a fragment"),
        ("https://hop.example/a b", "HOPGATE_BASE_URL"),
        ("https://hop.example/a%2Fb", "the path may consist of"),
        ("https://hop.example//s", "the path may consist of"),
        ("https://hop.example/api/", "would hide the API"),
        ("https:\\\\hop.example", "http:// or https://"),
        ("https://hop.example:0", "port 0"),
        ("https://https", "scheme there twice"),
        ("https://https://hop.example", "scheme there twice"),
        ("hop.example", "http:// or https://"),
    ],
)
def test_base_url_parts_that_no_short_url_has(monkeypatch, text, why):
    monkeypatch.setenv("HOPGATE_BASE_URL", text)

    with pytest.raises(SettingsError, match=why) as caught:
        settings.load()

    assert "\n" not in str(caught.value)
    assert "geheim" not in str(caught.value)


# --- trusted proxies ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "networks",
    ["0.0.0.0/0", "::/0", "0.0.0.0/1, 128.0.0.0/1", "10.0.0.0/8,::/0", "2000::/3", "::ffff:0:0/96"],
)
def test_proxies_everywhere_are_a_warning(monkeypatch, networks):
    monkeypatch.setenv("HOPGATE_TRUSTED_PROXIES", networks)

    [warning] = settings.warnings(settings.load())

    assert warning.startswith("HOPGATE_TRUSTED_PROXIES trusts most of the internet")


@pytest.mark.parametrize("networks", ["", "127.0.0.1", "10.0.0.0/8,192.168.0.0/16,172.16.0.0/12,fc00::/7"])
def test_proxies_in_private_networks_are_fine(monkeypatch, networks):
    monkeypatch.setenv("HOPGATE_TRUSTED_PROXIES", networks)

    assert settings.warnings(settings.load()) == []


@pytest.mark.parametrize(
    ("networks", "says"),
    [
        ("192.168.144.3/24", "'192.168.144.3/24' is an address inside of a network: write 192.168.144.3 "),
        ("10.0.0.1, fd00::1/64", "'fd00::1/64' is an address inside of a network: write fd00::1 "),
        ("10.0.0.0/33", "'10.0.0.0/33' is neither"),
        ("nginx", "'nginx' is neither"),
    ],
)
def test_proxies_that_are_no_network_are_quoted(monkeypatch, networks, says):
    monkeypatch.setenv("HOPGATE_TRUSTED_PROXIES", networks)

    with pytest.raises(SettingsError) as caught:
        settings.load()

    assert str(caught.value).startswith(f"HOPGATE_TRUSTED_PROXIES: {says}")


# --- names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("HOPGATE_BASEURL", "HOPGATE_BASE_URL"),
        ("HOPGATE_LIMIT_REDIRECTS", "HOPGATE_LIMIT_REDIRECT"),
        ("HOPGATE_LIMITREDIRECT", "HOPGATE_LIMIT_REDIRECT"),
        ("hopgate_trusted_proxy", "HOPGATE_TRUSTED_PROXIES"),
        ("HOPGATE_DATABASE", "HOPGATE_DATABASE_URL"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(monkeypatch, name, nearest):
    monkeypatch.setenv(name, "1")

    with pytest.raises(SettingsError) as caught:
        settings.load()

    assert str(caught.value) == f"{name} is not a setting: is {nearest} meant?"


def test_unknown_names_and_wrong_values_are_all_reported(monkeypatch):
    monkeypatch.setenv("HOPGATE_QQ", "1")
    monkeypatch.setenv("HOPGATE_PORT", "9000")
    monkeypatch.setenv("HOPGATE_WORKERS", "0")

    with pytest.raises(SettingsError) as caught:
        settings.load()

    for name in ("HOPGATE_QQ is not a setting", "HOPGATE_PORT is not a setting", "HOPGATE_WORKERS: "):
        assert name in str(caught.value)


def test_names_of_compose_and_kubernetes_are_no_settings(monkeypatch):
    for name, value in {
        "HOPGATE_VERSION": "1.2.3",
        "HOPGATE_SERVICE_HOST": "10.0.0.1",
        "HOPGATE_SERVICE_PORT_HTTP": "80",
        "HOPGATE_PORT": "tcp://10.0.0.1:80",
        "HOPGATE_PORT_80_TCP_ADDR": "10.0.0.1",
        "HOPGATE_WORKER_SERVICE_HOST": "10.0.0.2",
        "HOPGATE_WORKER_PORT": "tcp://10.0.0.2:9100",
    }.items():
        monkeypatch.setenv(name, value)

    settings.load()


# --- files in the data folder ------------------------------------------------------------


def test_environment_beats_env_file_beats_toml(monkeypatch, folder):
    (folder / "hopgate.toml").write_text(
        'bind = "127.0.0.1:1"\nlimit_api = "1/s"\nHOPGATE_LIMIT_CREATE = "1/s"\n'
        'trusted_proxies = ["10.0.0.0/8"]\n'
    )
    (folder / ".env").write_text("HOPGATE_BIND=127.0.0.1:2\nHOPGATE_LIMIT_API='2/s'\nHOPGATE_LIMIT_CREATE=\n")
    monkeypatch.setenv("HOPGATE_BIND", "127.0.0.1:3")

    loaded = settings.load()

    assert (loaded.bind, loaded.limit_api, loaded.limit_create) == ("127.0.0.1:3", "2/s", "1/s")
    assert loaded.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"),)


def test_env_file_values_stand_as_written(folder):
    lines = [f"export {name}={value}" for name, value in SERVICES.items()]
    (folder / ".env").write_text("\n".join([*lines, "# a comment", 'HOPGATE_KEY="a$HOME#b"']))

    loaded = settings.load()

    assert secret(loaded.key) == "a$HOME#b"
    assert secret(loaded.amqp_url) == SERVICES["HOPGATE_AMQP_URL"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (".env", "HOPGATE_BASEURL=x", "HOPGATE_BASEURL is not a setting: is HOPGATE_BASE_URL meant? (in {})"),
        (".env", "BASE_URL=x", "BASE_URL is not a setting: is HOPGATE_BASE_URL meant? (in {})"),
        ("hopgate.toml", "baseurl = 'x'", "baseurl is not a setting: is HOPGATE_BASE_URL meant? (in {})"),
        ("hopgate.toml", "[limits]\napi = '1/s'", "limits is not a setting"),
        (
            "hopgate.toml",
            "workers = 0",
            "HOPGATE_WORKERS: Input should be greater than or equal to 1 (in {})",
        ),
        (".env", "HOPGATE_DATA_DIR=x", "HOPGATE_DATA_DIR cannot be set in {}, which is inside of it"),
        ("hopgate.toml", "data_dir = 'x'", "data_dir cannot be set in {}, which is inside of it"),
        (".env", "HOPGATE_BIND", "{}: line 1 is not NAME=VALUE"),
        (".env", "HOPGATE_KEY='geheim", "{}: line 1 is not NAME=VALUE"),
        (".env", "HOPGATE_KEY=geheim\nHOPGATE_KEY=2", "{}: line 2: HOPGATE_KEY is set twice"),
        (".env", "HOPGATE_KEY=geheim\nhopgate_key=2", "{}: hopgate_key is set twice"),
        ("hopgate.toml", "bind = '::'\nHOPGATE_BIND = 'x'", "{}: HOPGATE_BIND is set twice"),
        ("hopgate.toml", "bind = " + "[" * 5000, "{}: is nested too deeply"),
        ("hopgate.toml", "bind: geheim", "{}: "),
        ("hopgate.toml", "bind = '\udcff'", "{}: is not UTF-8"),
    ],
)
def test_settings_file_mistakes_are_named(folder, name, content, says):
    path = folder / name
    path.write_bytes(content.encode("utf-8", "surrogateescape"))

    with pytest.raises(SettingsError) as caught:
        settings.load()

    assert str(caught.value).startswith(says.format(path))
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "content", "says"),
    [
        (0o644, "HOPGATE_KEY=x", "holds secrets and can be read by other users"),
        (0o640, "HOPGATE_KEY=x", "holds secrets and can be read by other users"),
        (0o666, "HOPGATE_BIND=127.0.0.1:1", "can be written by other users"),
        (0o644, "HOPGATE_BIND=127.0.0.1:1", None),
        (0o600, "HOPGATE_KEY=x", None),
    ],
)
def test_settings_file_open_to_others_is_a_warning(folder, mode, content, says):
    path = folder / ".env"
    path.write_text(content)
    path.chmod(mode)

    found = settings.warnings(settings.load())

    assert [says in warning for warning in found] == ([True] if says else [])


def test_relative_data_folder_is_absolute(monkeypatch, folder):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOPGATE_DATA_DIR", "here")

    assert settings.load().sqlite_path == folder / "here" / "hopgate.db"


def test_store_name_has_no_password(environment):
    environment.setenv("HOPGATE_DATABASE_URL", "postgresql://u:geheim@a:5432,b/d%20x?password=geheim")

    assert settings.load().store_name == "postgresql://a:5432,b/d x"


def test_share_of_the_access_log_may_be_a_number_of_toml(folder):
    (folder / "hopgate.toml").write_text("access_log = 0.25\n")
    assert settings.load().access_log_share == 0.25

    (folder / "hopgate.toml").write_text("access_log = true\n")
    assert settings.load().access_log_share == 1


@pytest.mark.parametrize("text", ["http https mailto tel myapp", "HTTP, https,,mailto  TEL myapp http"])
def test_schemes_are_separated_by_spaces_or_commas(monkeypatch, text):
    monkeypatch.setenv("HOPGATE_TARGET_SCHEMES", text)

    assert settings.load().target_schemes == "http https mailto tel myapp"


def test_schemes_may_be_a_list_of_toml(folder):
    (folder / "hopgate.toml").write_text('target_schemes = ["https", "mailto"]\n')

    assert settings.load().allowed_schemes == {"https", "mailto"}


@pytest.mark.parametrize(
    "scheme",
    [
        *(
            "javascript",
            "JavaScript",
            "data",
            "vbscript",
            "file",
            "filesystem",
            "blob",
            "about",
            "view-source",
        ),
        *("jar", "intent", "ms-msdt", "search-ms", "chrome-extension", "moz-extension", "livescript", "feed"),
    ],
)
def test_scheme_that_runs_code_can_never_be_allowed(monkeypatch, scheme):
    monkeypatch.setenv("HOPGATE_TARGET_SCHEMES", f"https {scheme}")

    with pytest.raises(SettingsError) as refused:
        settings.load()
    assert str(refused.value).startswith(f"HOPGATE_TARGET_SCHEMES: {scheme.lower()} cannot be allowed")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["mailto:", "https://", "1x", "my_app", "a" * 65, "ä", "*", "https;mailto"])
def test_what_is_no_scheme_is_named(monkeypatch, text):
    monkeypatch.setenv("HOPGATE_TARGET_SCHEMES", f"https {text}")

    with pytest.raises(SettingsError) as refused:
        settings.load()
    assert str(refused.value).startswith(f"HOPGATE_TARGET_SCHEMES: {text!r} is no scheme")


def test_list_of_schemes_that_names_none_is_refused(monkeypatch):
    monkeypatch.setenv("HOPGATE_TARGET_SCHEMES", " , ")

    with pytest.raises(SettingsError, match="names no scheme"):
        settings.load()


def test_other_share_of_the_access_log_is_named(monkeypatch):
    monkeypatch.setenv("HOPGATE_ACCESS_LOG", "sometimes")

    with pytest.raises(SettingsError) as refused:
        settings.load()
    expected = "HOPGATE_ACCESS_LOG: 'sometimes' is neither off nor on, nor a number from 0 to 1"
    assert str(refused.value) == expected


@pytest.mark.parametrize("text", ["yourls,shlink", "Shlink  YOURLS,,yourls"])
def test_dialects_are_separated_by_spaces_or_commas(monkeypatch, text):
    monkeypatch.setenv("HOPGATE_DIALECTS", text)

    assert settings.load().spoken_dialects == {"shlink", "yourls"}


@pytest.mark.parametrize(
    ("text", "hint"), [("yourl", "; did you mean yourls?"), ("shink", "; did you mean shlink?"), ("dub", "")]
)
def test_unknown_dialect_stops_the_start_with_the_nearest(monkeypatch, text, hint):
    monkeypatch.setenv("HOPGATE_DIALECTS", f"bitly,{text}")

    with pytest.raises(SettingsError) as refused:
        settings.load()
    wanted = f"HOPGATE_DIALECTS: {text} is no dialect, there are bitly, shlink, yourls{hint}"
    assert str(refused.value) == wanted


def test_origins_are_kept_as_browsers_send_them(monkeypatch, folder):
    origins = {
        "https://app.example",
        "http://localhost:8080",
        "chrome-extension://abcdef",
        "http://[::1]:3000",
    }
    monkeypatch.setenv("HOPGATE_CORS_ORIGINS", ", ".join(sorted(origins)))
    assert settings.load().allowed_origins == origins
    monkeypatch.delenv("HOPGATE_CORS_ORIGINS")

    (folder / "hopgate.toml").write_text('cors_origins = ["*"]\n')
    assert settings.load().allowed_origins == {"*"}


@pytest.mark.parametrize(
    "text",
    [
        *("https://app.example/", "https://App.example", "app.example", "https://app.example:443", "null"),
        *("http://app.example:80", "https://*.example", "https://user@app.example", "https://app.example/a"),
        "https://",
    ],
)
def test_what_is_no_origin_stops_the_start(monkeypatch, text):
    monkeypatch.setenv("HOPGATE_CORS_ORIGINS", text)

    with pytest.raises(SettingsError) as refused:
        settings.load()
    assert str(refused.value).startswith(f"HOPGATE_CORS_ORIGINS: {text} is no origin as browsers send it")


def test_every_origin_must_be_said_alone(monkeypatch):
    monkeypatch.setenv("HOPGATE_CORS_ORIGINS", "*,https://app.example")

    with pytest.raises(SettingsError, match="must stand alone"):
        settings.load()
