"""A store and a database of one's own, by the options, as users name them."""

import pytest

from mltraq_ds import options
from mltraq_ds.tracking.default import default_session
from tests.fixtures_servers import postgresql_server, postgresql_url

__all__ = ["home", "postgresql_server", "postgresql_url"]


@pytest.fixture
def home(tmp_path):
    """Set the options to a folder of this test, and return it; its database is closed afterwards."""
    options.set("database.url", f"sqlite:///{tmp_path}/index.db")
    options.set("datastore.url", str(tmp_path / "store"))
    options.set("datastore.durability", "relaxed")
    options.set("tqdm.disable", True)
    yield tmp_path
    default_session().close()
