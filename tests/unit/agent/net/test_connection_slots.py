"""Places for connections of which nobody knows yet whose they are."""

from agent.net.connection_slots import YOUNG_S, ConnectionSlots, Slot


class Guests:
    """Takes places, and notes who loses one."""

    def __init__(self, each: int, together: int) -> None:
        self.now = 0.0
        self.places = ConnectionSlots(each, together, clock=lambda: self.now)
        self.lost: list[str] = []

    def come(self, host: str, name: str = "", *, shakes_hands: bool = False) -> Slot:
        self.now += YOUNG_S
        place = self.places.acquire(host)
        assert place is not None
        place.on_lost = lambda: self.lost.append(name or host)
        place.has_shaken_hands = shakes_hands
        return place


def test_everybody_finds_a_place_and_no_more_are_taken_than_there_are() -> None:
    guests = Guests(each=3, together=5)
    for number in range(100):
        guests.come(f"10.0.0.{number % 7}")
        assert len(guests.places) <= 5
    assert len(guests.lost) == 95


def test_who_is_full_competes_with_itself() -> None:
    guests = Guests(each=2, together=10)
    guests.come("10.0.0.1", "honest")
    for number in range(20):
        guests.come("10.0.0.2", f"greedy {number}")
    assert "honest" not in guests.lost
    assert guests.lost == [f"greedy {number}" for number in range(18)], "the oldest first"


def test_who_knocks_faster_than_anybody_shakes_hands_is_turned_away() -> None:
    guests = Guests(each=2, together=10)
    guests.come("10.0.0.1", "first")
    guests.come("10.0.0.1", "second")
    guests.come("10.0.0.1", "third")
    assert guests.places.acquire("10.0.0.1") is not None, "the second is old enough"
    assert guests.places.acquire("10.0.0.1") is None
    assert guests.lost == ["first", "second"]
    assert len(guests.places) == 2


def test_a_young_place_of_a_greedy_host_is_no_reason_to_turn_another_away() -> None:
    guests = Guests(each=2, together=2)
    guests.come("2001:db8::bad", "greedy")
    guests.come("2001:db8::bad", "greedy")
    assert guests.places.acquire("2001:db8::1") is not None
    assert guests.lost == ["greedy"]


def test_together_the_fullest_site_gives_way() -> None:
    guests = Guests(each=3, together=4)
    guests.come("10.0.0.1", "honest")
    for number in range(3):
        guests.come("10.0.0.2", f"greedy {number}")
    guests.come("10.0.0.3", "another")
    assert guests.lost == ["greedy 0"]


def test_who_has_shaken_hands_is_missed_more() -> None:
    guests = Guests(each=2, together=9)
    guests.come("10.0.0.1", "guest", shakes_hands=True)
    guests.come("10.0.0.1", "silent")
    guests.come("10.0.0.1", "newcomer")
    assert guests.lost == ["silent"]


def test_in_one_ipv6_site_a_stranger_with_many_connections_gives_way_to_who_has_one() -> None:
    """A LAN shares its /64: sixteen of one stranger took all the places of all others there."""
    guests = Guests(each=16, together=64)
    honest = guests.come("2001:db8::1", "honest")
    for number in range(100):
        guests.come("2001:db8::bad", f"greedy {number}", shakes_hands=True)
    newcomer = guests.come("2001:db8::2", "newcomer")
    assert not {"honest", "newcomer"} & set(guests.lost)
    honest.give_back()
    newcomer.give_back()
    assert len(guests.places) == 14


def test_a_place_is_given_back_once_and_not_after_it_was_lost() -> None:
    guests = Guests(each=1, together=1)
    first = guests.come("10.0.0.1", "first")
    guests.come("10.0.0.1", "second")
    first.give_back()
    assert len(guests.places) == 1, "the second still has it"


def test_known_hosts_share_no_site() -> None:
    places = ConnectionSlots(1, 9, lambda host: host)
    for number in range(9):
        places.acquire(f"2001:db8::{number}")
    assert len(places) == 9
