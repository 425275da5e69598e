"""Makes the databases of a node that has just been founded or let in.

``covey init`` and ``covey join`` end soon and may take their time; the agent stays, and may be one
of a hundred that are switched on together. So the tables are made here, and the agent finds them
made and need not load what makes them (``migrations.py``). It makes what it does not find.
"""

from agent.access.audit_schema import AUDIT_MIGRATIONS
from agent.config.paths import Paths
from agent.exits import AgentError
from agent.store.consensus_store import CONSENSUS_MIGRATIONS
from agent.store.control import CONTROL_MIGRATIONS
from agent.store.database import Database
from agent.store.kv_store import RECORDS_MIGRATIONS
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS


async def prepare(paths: Paths) -> bool:
    """Make the databases that are not there; tell whether all are there now.

    What is in the way is not said: the agent meets it too, and says what it means for it.
    """
    files = {
        paths.control_db: CONTROL_MIGRATIONS,
        paths.consensus_db: CONSENSUS_MIGRATIONS,
        paths.data_db: RECORDS_MIGRATIONS,
        paths.telemetry_db: OUTBOX_MIGRATIONS,
        paths.audit_db: AUDIT_MIGRATIONS,
    }
    try:
        for path, migrations in files.items():
            await (await Database.open(path, migrations)).close()
    except AgentError:
        return False
    return True
