"""The file system that a home is on: by the kernel's list of mounts, with links and bind mounts followed."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from dmpo_app.backup.startup import open_store
from dmpo_app.cli.doctor import CheckStatus, examine
from dmpo_app.errors import SetupError
from dmpo_app.server.wiring import home_lock
from dmpo_app.settings import Settings
from dmpo_app.settings.mounts import mount_of, network_file_system, read_mounts
from tests.patience import PATIENCE
from tests.studio_process import PROJECT_ROOT

MOUNTS = r"""21 20 0:20 / /proc rw - proc proc rw
20 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 20 0:30 / /srv/share rw - nfs4 server:/export rw,vers=4.2
31 30 259:1 / /srv/share/scratch rw - xfs /dev/nvme0n1 rw
32 20 0:32 /studio /var/lib/bound rw - nfs4 server:/export rw
33 20 0:33 / /mnt/my\040drive rw - cifs //box/my\040drive rw
34 20 0:34 / /data/bucket rw - fuse.hf-mount hf rw
35 20 0:35 / /hidden/below rw - xfs /dev/nvme0n2 rw
36 20 0:36 / /hidden rw - fuse.sshfs me@host: rw
37 36 0:37 / /hidden rw - ext4 /dev/vdb rw
40 20 0:40 / /auto rw - autofs systemd-1 rw
41 40 0:41 / /auto rw - lustre mgs:/fs rw
50 20 0:50 / /c1 rw - overlay overlay rw,lowerdir=/a,upperdir=/b
51 20 0:51 / /c2 rw - virtiofs share rw
52 20 0:52 / /c3 rw - fuseblk /dev/sdb1 rw
53 20 0:53 / /c4 rw - fuse.fuse-overlayfs fuse-overlayfs rw
54 20 0:54 / /c5 rw - tmpfs tmpfs rw
55 20 0:55 / /n1 rw - 9p drvfs rw
56 20 0:56 / /n2 rw - ceph 10.0.0.1:/ rw
57 20 0:57 / /n3 rw - fuse.glusterfs box:/vol rw
58 20 0:58 / /n4 rw - fuse.s3fs s3fs rw
59 20 0:59 / /n5 rw - smb3 //box/x rw
60 20 0:60 / /n6 rw - fuse bindfs rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS)
    return path


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/", None),
        ("/home/me/studio", None),
        ("/srv/share/studio", "nfs4"),
        ("/srv/shared", None),
        ("/srv/share/scratch/studio", None),
        ("/var/lib/bound/deep/er", "nfs4"),
        ("/mnt/my drive/studio", "cifs"),
        ("/mnt/my", None),
        ("/data/studio", None),
        ("/data/bucket", "fuse.hf-mount"),
        ("/hidden/below/studio", None),
        ("/auto/studio", "lustre"),
        *((f"/c{number}/studio", None) for number in range(1, 6)),
        ("/n1", "9p"),
        ("/n2", "ceph"),
        ("/n3", "fuse.glusterfs"),
        ("/n4", "fuse.s3fs"),
        ("/n5", "smb3"),
        ("/n6", "fuse"),
    ],
)
def test_a_network_disk_is_told_from_a_local_one(mounts: Path, folder: str, expected: str | None) -> None:
    assert network_file_system(Path(folder), mounts) == expected


def test_of_mounts_that_hide_each_other_the_one_that_is_seen_counts(mounts: Path) -> None:
    seen = mount_of(Path("/hidden/below/studio"), read_mounts(mounts))
    assert seen is not None
    assert (seen.id, seen.file_system) == (37, "ext4")


def test_links_are_followed_also_to_folders_that_are_not_made_yet(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    (tmp_path / "home").symlink_to(share / "studio")
    path = tmp_path / "mountinfo"
    path.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {share.resolve()} rw - nfs box:/x rw\n")
    assert network_file_system(tmp_path / "home" / "deeper", path) == "nfs"
    assert network_file_system(tmp_path / "elsewhere", path) is None


def test_what_is_no_list_of_mounts_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    assert network_file_system(tmp_path, path) is None
    path.write_text("a b c\n1 2 - nfs\n\n - \n1 1 8:1 / /elsewhere rw - nfs box:/x rw\n")
    assert network_file_system(tmp_path, path) is None


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="Linux alone lists its mounts there")
def test_the_kernels_own_list_says_what_this_folder_is_on(tmp_path: Path) -> None:
    found = mount_of(tmp_path, read_mounts())
    expected = subprocess.check_output(["findmnt", "-n", "-o", "TARGET,FSTYPE", "-T", tmp_path], text=True).split()
    assert found is not None
    assert [found.point, found.file_system] == expected
    assert mount_of(Path(os.sep), read_mounts()) is not None


@pytest.fixture
def home_on_a_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {tmp_path} rw - cifs //box/x rw\n")
    monkeypatch.setattr("dmpo_app.store.home.network_file_system", lambda home: network_file_system(home, path))
    return tmp_path / "home"


def test_a_database_on_a_network_disk_is_refused_before_anything_is_written(home_on_a_share: Path) -> None:
    settings = Settings(home=home_on_a_share)
    with pytest.raises(SetupError, match=r"\(cifs\).*be damaged.*local disk.*DMPO_BACKUP__URL.*PostgreSQL"):
        open_store(settings)
    with pytest.raises(SetupError, match="DMPO_ALLOW_NETWORK_DISK=true"), home_lock(settings, "http://127.0.0.1:1"):
        pass
    assert not home_on_a_share.exists()


def test_it_is_opened_with_a_warning_where_that_is_allowed(
    home_on_a_share: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(home=home_on_a_share, allow_network_disk=True)
    with home_lock(settings, "http://127.0.0.1:1"), caplog.at_level(logging.INFO, "dmpo_app"):
        open_store(settings).close()
    assert [record.levelname for record in caplog.records if record.name == "dmpo_app.store.home"] == ["WARNING"]
    assert "keep a backup elsewhere" in caplog.text


def test_a_home_whose_database_is_elsewhere_may_be_on_a_network_disk(home_on_a_share: Path) -> None:
    settings = Settings(home=home_on_a_share, database_url=SecretStr("postgresql://me@127.0.0.1:9/x"))
    with home_lock(settings, "http://127.0.0.1:1"):
        assert (home_on_a_share / "serve.json").is_file()


@pytest.mark.parametrize(("is_allowed", "status"), [(False, CheckStatus.PROBLEM), (True, CheckStatus.WARNING)])
def test_the_doctor_says_so(home_on_a_share: Path, is_allowed: bool, status: CheckStatus) -> None:
    settings = Settings(home=home_on_a_share, allow_network_disk=is_allowed)
    check = next(one for one in examine(settings) if one.subject == "home")
    assert (check.status, check.detail) == (status, f"{home_on_a_share} (will be made)")
    assert "(cifs)" in check.advice


UNDER_ANOTHER_LIST = 'mount --bind "$1" /proc/$$/mountinfo && shift && exec "$@"'


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can show another list of mounts")
def test_a_command_refuses_it_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    path.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {tmp_path} rw - fuse.bindfs bindfs rw\n")
    command = [sys.executable, "-m", "dmpo_app.cli", "consent", "list", "--home", str(tmp_path / "home")]
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", UNDER_ANOTHER_LIST, "sh", str(path), *command],
        cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "(fuse.bindfs)" in ended.stderr
    assert "Traceback" not in ended.stderr
