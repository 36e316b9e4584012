"""Settings: the example is the defaults, and a wrong key is refused by name."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from sqlalchemy import make_url

from dicom_node.peers import Pacs
from dicom_node.refusal import Refused
from dicom_node.settings import DEFAULT_DATA_FOLDER, Destination, ReviewSettings, Settings, load_settings

EXAMPLE = Path(__file__).parents[2] / "configs" / "node.example.toml"


def test_the_example_holds_every_key_with_its_default():
    assert load_settings(EXAMPLE) == load_settings(None)
    document = tomllib.loads(EXAMPLE.read_text())
    for section in fields(Settings):
        if section.name in ("send", "pacs"):
            continue
        default = getattr(Settings(), section.name)
        if section.name == "data_folder":
            assert Path(document["data_folder"]) == DEFAULT_DATA_FOLDER
        else:
            assert list(document[section.name]) == [field.name for field in fields(default)]


def test_the_commented_blocks_of_the_example_are_valid(tmp_path):
    lines = EXAMPLE.read_text().splitlines()
    for name in ("# [[pacs]]", "# [[send]]"):
        start = lines.index(name)
        end = next((n for n in range(start, len(lines)) if not lines[n]), len(lines))
        lines[start:end] = [line.removeprefix("# ") for line in lines[start:end]]
    (tmp_path / "node.toml").write_text("\n".join(lines))
    settings = load_settings(tmp_path / "node.toml")
    assert settings.send == (Destination("PACS", "127.0.0.1", 4242),)
    assert settings.pacs == (Pacs("PACS", "127.0.0.1", 4242),)


def test_a_relative_data_folder_is_meant_from_the_files_own_folder(tmp_path):
    (tmp_path / "node.toml").write_text('data_folder = "data"')
    settings = load_settings(tmp_path / "node.toml")
    assert settings.data_folder == tmp_path / "data"
    assert settings.ledger_url == f"sqlite:///{tmp_path}/data/ledger.sqlite"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[listener]\nquiet_time = 3", "unknown key listener.quiet_time; did you mean listener.quiet_time_s?"),
        ("[listner]\nport = 3", "unknown key listner; did you mean listener?"),
        ("[listener]\nport = 'x'", "listener.port must be a whole number"),
        ("[listener]\nport = 70000", "listener.port must be 1 to 65535"),
        ("[listener]\nport = true", "listener.port must be a whole number"),
        ("[listener]\nae_title = 'ABCDEFGHIJKLMNOPQ'", "listener.ae_title must be"),
        ("[listener]\ncalling_ae_titles = ['A', 3]", "listener.calling_ae_titles must be a text"),
        ("[database]\nurl = 'mysql://x'", "database.url must be"),
        ("[[send]]\nae_title = 'PACS'\nhost = 'x'", "send.port is missing"),
        ("[[send]]\nae_title = 'PACS'\nhost = 'x'\nport = 1\ntls = true", "unknown key send.tls"),
        ("send = 3", "send must be a list"),
        ("[[send]]\nae_title = 'PACS'\nstorage_commitment = 1", "send.storage_commitment must be true or false"),
        ("[[send]]\nae_title = 'P'\ndicomweb_url = 'ftp://x'", "send.dicomweb_url must be empty or an http"),
        ("[[send]]\nae_title = 'P'\ndicomweb_url = 'http://x'\nstorage_commitment = true", "send.host is missing"),
        ("[[pacs]]\nae_title = 'P'\nhost = 'x'\nport = 1\nretrieve = 'ftp'", "pacs.retrieve must be one of c-get"),
        ("[[pacs]]\nae_title = 'P'\nretrieve = 'dicomweb'", "pacs.dicomweb_url is missing"),
        ("[[pacs]]\nae_title = 'P'\nport = 104", "pacs.host is missing"),
        ("[complete]\nexpected_series = [{ modality = 'US' }]", "complete.expected_series.modality must be CT or MR"),
        ("[complete]\nexpected_series = [{ modality = 'CT', description = '(' }]", "is no regular expression"),
        (
            "[simulation]\nisotherm_c = 253.15",
            "simulation.isotherm_c must be between -80 and 0 °C; it looks like kelvin",
        ),
        ("[simulation]\nisotherm_c = -90.0", "simulation.isotherm_c must be between -80 and 0 °C"),
        ("[simulation]\ndose = 'kelvin'", "simulation.dose must be arrhenius or cem43"),
        ("[fetch]\nfirst_retry_s = 0", "fetch.first_retry_s must be above 0"),
        ("[worker]\nconcurrency = 0", "worker.concurrency"),
        ("[review]\ntls_key = 'key.pem'", "review.tls_certificate and review.tls_key are given together"),
        ("[review]\nbehind_proxy = true", "review.behind_proxy needs review.host_names"),
        ("[review]\nbehind_proxy = 1", "review.behind_proxy must be true or false"),
        ("[review]\nsession_hours = 0", "review.session_hours must be above 0"),
        ("[review]\nstow_request_mib = 1", "review.stow_request_mib no less"),
        ("[audit]\ntransport = 'http'", "audit.transport must be udp, tcp or tls"),
        ("[audit]\nsource = ' '", "audit.source cannot be empty"),
        ("[logs]\nformat = 'xml'", "logs.format must be text or json"),
        ("[logs]\nlevel = 'INFO'", "logs.level must be"),
        ("x = ", "Invalid value"),
    ],
)
def test_what_is_wrong_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "node.toml").write_text(text)
    with pytest.raises(Refused) as refused:
        load_settings(tmp_path / "node.toml")
    assert message in refused.value.text


def test_files_are_meant_from_the_files_own_folder(tmp_path):
    text = (
        "[review]\ntls_certificate = 'a.pem'\ntls_key = '/k.pem'\nmetrics_token_file = 't'\n[audit]\nca_file = 'ca.pem'"
    )
    (tmp_path / "node.toml").write_text(text)
    settings = load_settings(tmp_path / "node.toml")
    assert settings.review.tls_certificate == str(tmp_path / "a.pem")
    assert settings.review.tls_key == "/k.pem"
    assert settings.review.metrics_token_file == str(tmp_path / "t")
    assert settings.audit.ca_file == str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("changed", "is_local", "is_secure"),
    [
        ({}, True, False),
        ({"host": "::1"}, True, False),
        ({"host_names": ("localhost",)}, True, False),
        ({"host_names": ("node.example",)}, False, False),
        ({"host": "0.0.0.0"}, False, False),
        ({"host": "10.1.2.3"}, False, False),
        ({"behind_proxy": True, "host_names": ("node.example",)}, False, True),
        ({"tls_certificate": "c", "tls_key": "k"}, True, True),
    ],
)
def test_who_can_reach_the_page_and_how(changed, is_local, is_secure):
    review = ReviewSettings(**changed)
    assert (review.is_local, review.is_secure) == (is_local, is_secure)


def test_the_databases_password_stands_in_a_file(tmp_path):
    secret = "p@ss/w:ord%1 ä"
    (tmp_path / "secret").write_text(f"{secret}\nmore\n", encoding="utf-8")
    file = tmp_path / "node.toml"
    file.write_text('[database]\nurl = "postgresql://node@db:5433/ledger"\npassword_file = "secret"\n')
    settings = load_settings(file)
    for url in (settings.ledger_url, settings.queue_url):
        parsed = make_url(url)
        assert (parsed.username, parsed.password) == ("node", secret)
        assert (parsed.host, parsed.port, parsed.database) == ("db", 5433, "ledger")
    (tmp_path / "secret").unlink()
    with pytest.raises(Refused, match="password_file: secret cannot be read"):
        load_settings(file)
    for url in ("", "postgresql://db/ledger", "postgresql://node:known@db/ledger"):
        file.write_text(f'[database]\nurl = "{url}"\npassword_file = "secret"\n')
        with pytest.raises(Refused, match="with a user and without a password"):
            load_settings(file)


def test_postgresql_serves_ledger_and_queue():
    url = "postgresql://someone@db/marginwatch"
    settings = replace(Settings(), database=replace(Settings().database, url=url))
    assert settings.ledger_url == "postgresql+psycopg://someone@db/marginwatch"
    assert settings.queue_url == url


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_are_finite(tmp_path, value):
    config = tmp_path / "node.toml"
    config.write_text(f'data_folder = "data"\n[listener]\nquiet_time_s = {value}\n')
    with pytest.raises(Refused, match=r"listener\.quiet_time_s must be a finite number"):
        load_settings(config)


def test_page_and_listener_need_a_port_each(tmp_path):
    config = tmp_path / "node.toml"
    config.write_text('listener = { host = "127.0.0.1", port = 8104 }\nreview = { port = 8104 }\n')
    with pytest.raises(Refused, match=r"review\.port must be another port"):
        load_settings(config)
