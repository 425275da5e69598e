"""The fake agent's parts against the real ones: a call that the one takes, the other takes."""

import inspect
from collections.abc import Callable, Mapping

import pytest

from agent.admission.allegiance import Allegiance
from agent.admission.newcomer import Newcomer
from agent.admission.server import AdmissionServer
from agent.agent import Agent
from agent.apps.host import AppHost
from agent.blocks.file_stat import FileStats
from agent.blocks.named_files import Files
from agent.cluster.events import EventService
from agent.cluster.kv import Kv
from agent.cluster.kv_stats import KvSurvey
from agent.cluster.kv_why import KeyViews
from agent.cluster.rtt import RttClient
from agent.doctor.on_call import OnCallDoctor
from agent.keys.key_service import KeyService
from agent.telemetry.service import Telemetry
from agent.telemetry.uplink.service import Uplink
from tests.support import fake_agent as fakes
from tests.support.fake_allegiance import FakeAllegiance
from tests.support.fake_events import FakeForum
from tests.support.fake_files import FakeFiles, FakeStats
from tests.support.fake_kv_reports import FakeKeyViews, FakeKvSurvey
from tests.support.fake_uplink import FakeUplink

PAIRS = (
    (fakes.FakeAgent, Agent),
    (fakes.FakeKv, Kv),
    (FakeKeyViews, KeyViews),
    (FakeKvSurvey, KvSurvey),
    (fakes.FakeTelemetry, Telemetry),
    (FakeUplink, Uplink),
    (FakeForum, EventService),
    (fakes.FakeApps, AppHost),
    (fakes.FakeAdmission, AdmissionServer),
    (FakeAllegiance, Allegiance),
    (fakes.FakeKeys, KeyService),
    (fakes.FakeRoundTrips, RttClient),
    (fakes.FakeNewcomer, Newcomer),
    (fakes.FakeDoctor, OnCallDoctor),
    (FakeFiles, Files),
    (FakeStats, FileStats),
)
OWN = {"services", "app_with", "add"}
"""Of the fake alone; an attribute of a real agent."""


def methods(of: type) -> Mapping[str, Callable[..., object]]:
    found = inspect.getmembers(of, inspect.isfunction)
    return {name: method for name, method in found if not name.startswith("_") and name not in OWN}


def parameters(method: Callable[..., object], *, but: frozenset[str]) -> list[tuple[str, object]]:
    """Return the parameters, without those that may be left out and are not among ``but``."""
    found = inspect.signature(method).parameters.values()
    return [
        (each.name, each.kind) for each in found if each.name in but or each.default is each.empty
    ]


@pytest.mark.parametrize(("fake", "real"), PAIRS, ids=lambda each: each.__name__)
def test_a_fake_is_called_as_what_it_stands_for(fake: type, real: type) -> None:
    told, due = methods(fake), methods(real)
    assert told
    assert told.keys() <= due.keys()
    for name, method in told.items():
        named = frozenset(inspect.signature(method).parameters)
        assert parameters(method, but=named) == parameters(due[name], but=named), name
        waits = inspect.iscoroutinefunction
        assert waits(method) == waits(due[name]), name
