"""Names of devices in keys, as people type them."""

from agent import exits
from tests.support.command_line import Covey
from tests.support.fake_agent import Served


def test_a_device_goes_by_its_name_and_what_is_none_stays_as_it_is(
    served: Served, covey: Covey
) -> None:
    served.agent.kv.values = {}
    ids = [key.split("/")[1] for key in _put(served, covey, "bob")]
    assert len(ids) == 1
    assert ids != ["bob"]
    assert _put(served, covey, "nobody") == ["device/nobody/mode"]


def _put(served: Served, covey: Covey, name: str) -> list[str]:
    before = set(served.agent.kv.values)
    done = covey("kv", "put", f"device/{name}/mode", "night")
    assert done.status == exits.YES, done.stderr
    return sorted(set(served.agent.kv.values) - before)
