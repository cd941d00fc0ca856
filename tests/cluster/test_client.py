"""Where the cluster is, and which token opens it."""

import os

import pytest

from cluster.client import cluster_address, connect, use_token
from pneumonia_core.errors import InvalidInput


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_MODE", "")  # so that monkeypatch undoes what use_token sets
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))


def test_given_address_wins_over_the_environment_and_this_machine_comes_last(monkeypatch):
    assert cluster_address(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster_address(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    assert cluster_address(None) == "http://head:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://ray.example.org/")
    assert cluster_address(None) == "https://ray.example.org"
    assert cluster_address("other:8265") == "http://other:8265"


@pytest.mark.parametrize("address", ["ray://head:10001", "http://", "http://user:secret@head:8265"])
def test_address_that_cannot_be_one_is_refused_without_repeating_a_password(address):
    with pytest.raises(InvalidInput) as error:
        cluster_address(address)
    assert "secret" not in str(error.value)


def test_token_is_looked_for_where_ray_looks(monkeypatch, tmp_path):
    assert use_token() is None
    assert "RAY_AUTH_MODE" not in os.environ
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("one")
    assert use_token() == str(tmp_path / ".ray" / "auth_token")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    (tmp_path / "mine").write_text("two")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "mine"))
    assert "RAY_AUTH_TOKEN_PATH" in use_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "three")
    assert use_token() == "RAY_AUTH_TOKEN"


def test_empty_token_file_that_was_named_is_refused(monkeypatch, tmp_path):
    (tmp_path / "mine").write_text("\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "mine"))
    with pytest.raises(InvalidInput, match="RAY_AUTH_TOKEN_PATH names"):
        use_token()


def test_authentication_that_was_switched_off_stays_off(monkeypatch, tmp_path):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("one")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert use_token() is None
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_cluster_that_is_not_there_is_one_clear_message():
    with pytest.raises(InvalidInput, match=r"no cluster answers at http://127\.0\.0\.1:9"):
        connect("127.0.0.1:9")
