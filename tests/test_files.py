"""Files are there whole or not at all; locks are had by one at a time."""

from pathlib import Path

import pytest

from higan.files import lock, replacing, write_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_takes_the_place_of_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, b"one")
    with replacing(path) as partial:
        partial.write_bytes(b"two")
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("stop", [OSError, KeyboardInterrupt])
def test_what_was_there_stays_if_writing_fails(tmp_path, stop):
    path = tmp_path / "a.txt"
    write_whole(path, b"one")

    def fail():
        with replacing(path) as partial:
            partial.write_bytes(b"tw")
            raise stop

    with pytest.raises(stop):
        fail()
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    path = tmp_path / "nowhere" / "a.txt"
    with pytest.raises(FileNotFoundError, match=f"No such file or directory: '{path}'$"):
        write_whole(path, b"one")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    path, half = tmp_path / "a.txt", tmp_path / "half"
    half.symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left on device: '{path}'$"):
        write_whole(path, b"one", half)
    assert names(tmp_path) == []


def test_a_lock_is_had_by_one_at_a_time(tmp_path):
    with (tmp_path / "lock").open("wb") as first, (tmp_path / "lock").open("wb") as second:
        lock(first.fileno())
        with pytest.raises(BlockingIOError):
            lock(second.fileno())
        first.close()
        lock(second.fileno())
