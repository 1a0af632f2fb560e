import subprocess
import sys
from pathlib import Path

from tests.patience import PATIENCE

BACKUP_UNDER_WATCH = """
import sys
from pathlib import Path

opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)

from dmpo_app.backup.remotes import open_remote
from dmpo_app.backup.restoring import verify
from dmpo_app.store import Store
from tests.backup.backup_data import Voters, shipper_of

home, storage = Path(sys.argv[1]), open_remote(sys.argv[2])
with Store.open(home) as store:
    voters, shipper = Voters(store), shipper_of(home, storage)
    for _ in range(3):
        voters.vote(5)
        shipper.upload_changes()
    verify(home)
    shipper.close()

assert any(path == str(home / "backup" / "next.db") for path in opened), "the watch works"
print([path for path in opened if path.startswith(str(home / "studio.db"))])
"""


def test_copies_are_read_and_the_live_database_never_but_by_sqlite(tmp_path: Path) -> None:
    """Closing any other handle on the file would drop SQLite's locks, and acknowledged votes with them."""
    process = subprocess.run(
        [sys.executable, "-c", BACKUP_UNDER_WATCH, str(tmp_path / "home"), str(tmp_path / "storage")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == "[]"
