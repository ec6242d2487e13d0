from http import HTTPStatus

import pytest

from edge.preview.access import Access, is_own_host, new_code

NAMES = frozenset(("kiosk", "kiosk.local", "localhost"))


def test_the_code_is_valid_once() -> None:
    access = Access("abcde-fghjk")
    status, session = access.exchange("abcde-fghjk")
    assert status == HTTPStatus.OK
    assert access.admits(session)
    status, sentence = access.exchange("abcde-fghjk")
    assert status == HTTPStatus.GONE
    assert "Start fer-edge preview again" in sentence
    assert access.admits(session)


@pytest.mark.parametrize("code", ["", "abcde-fghj", "abcde-fghjkk", "ABCDE-FGHJK\0", "ä" * 10, "\udcff"])
def test_a_wrong_code_gives_nothing_and_does_not_use_up_the_right_one(code: str) -> None:
    access = Access("abcde-fghjk")
    assert access.exchange(code)[0] == HTTPStatus.FORBIDDEN
    assert access.exchange("abcde-fghjk")[0] == HTTPStatus.OK


@pytest.mark.parametrize("code", ["ABCDE-FGHJK", "abcdefghjk", " abcde fghjk\n"])
def test_a_code_may_be_typed_as_a_telephone_writes_it(code: str) -> None:
    assert Access("abcde-fghjk").exchange(code)[0] == HTTPStatus.OK


@pytest.mark.parametrize("session", ["", "None", "\udcff", "ä"])
def test_no_other_session_is_admitted_not_before_the_code_was_used_either(session: str) -> None:
    access = Access("abcde-fghjk")
    assert not access.admits(session)
    access.exchange("abcde-fghjk")
    assert not access.admits(session)


def test_codes_differ_and_can_be_read_aloud() -> None:
    codes = {new_code() for _ in range(200)}
    assert len(codes) == 200
    assert not set("".join(codes)) & set("01ilo")
    assert {len(code) for code in codes} == {11}


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9470", "10.0.0.9", "[::1]:9470", "[fe80::1]", "localhost:1", "Kiosk.local", "kiosk:9470"]
)
def test_addresses_and_own_names_are_own_hosts(host: str) -> None:
    assert is_own_host(host, NAMES)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:9470", "10.0.0.9.evil.example", "127.0.0.1, evil.example", "[kiosk.evil]"],
)
def test_names_of_others_are_not(host: str) -> None:
    assert not is_own_host(host, NAMES)
