"""The index of encoded pairs survives kills, counts every row once, and is no matter of memory."""

import hashlib
from pathlib import Path

import pytest

from dmpo_app.errors import StudioError
from dmpo_app.exchange.readers.reader import LeftOutReason
from dmpo_app.training.data.dataset import PairFiles
from dmpo_app.training.data.encoding import INDEX_FILE, EncodedBatch, EncodedPair, EncodedPairs, PackedFiles


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def pair(number: int, wins_a: float = 1.0) -> EncodedPair:
    files = PairFiles(sha(f"{number} a"), sha(f"{number} b"), sha(f"prompt {number % 3}"))
    return EncodedPair(f"prompt {number % 3} \udcff\n", files, wins_a, 1, str(number))


def batch(*numbers: int, is_last: bool = False) -> EncodedBatch:
    left_out = [(LeftOutReason.BROKEN_IMAGE, f"{numbers[0]}x")]
    pairs = [pair(number, 0.5 if number % 4 == 0 else 1.0) for number in numbers]
    return EncodedBatch(len(numbers) + 1, pairs, left_out, {"position": numbers[-1]}, is_last)


def test_what_was_recorded_is_found_again(tmp_path: Path) -> None:
    encoded = EncodedPairs(tmp_path)
    assert (encoded.bookmark, encoded.is_complete, encoded.counts.rows) == (None, False, 0)
    encoded.append(batch(0, 1, 2))
    encoded.append(batch(3, 4, is_last=True))
    again = EncodedPairs(tmp_path)
    assert again.counts == encoded.counts
    assert again.counts.to_dict() == {"rows": 7, "pairs": 5, "ties": 2, "left_out": {"broken image": 2}}
    assert (again.bookmark, again.is_complete) == ({"position": 4}, True)
    table = again.load_table()
    assert list(table.files) == [pair(number).files for number in range(5)]
    assert list(table.prompts) == [pair(number).prompt for number in range(5)]
    assert list(table.wins_a) == [0.5, 1.0, 1.0, 1.0, 0.5]
    assert again.find_embeds(pair(1).prompt) == pair(1).files.prompt_embeds
    assert again.find_embeds("another") is None


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
def test_a_line_that_a_kill_cut_short_is_dropped_and_written_again(tmp_path: Path, kept: float) -> None:
    encoded = EncodedPairs(tmp_path)
    encoded.append(batch(0, 1, 2))
    whole = (tmp_path / INDEX_FILE).read_bytes()
    encoded.append(batch(3, 4))
    both = (tmp_path / INDEX_FILE).read_bytes()
    (tmp_path / INDEX_FILE).write_bytes(both[: len(whole) + max(1, int(kept * (len(both) - len(whole))))])
    again = EncodedPairs(tmp_path)
    assert (tmp_path / INDEX_FILE).read_bytes() == whole
    assert (again.counts.pairs, again.bookmark) == (3, {"position": 2})
    again.append(batch(3, 4))
    assert (tmp_path / INDEX_FILE).read_bytes() == both


def test_a_damaged_line_is_said_and_not_skipped(tmp_path: Path) -> None:
    EncodedPairs(tmp_path).append(batch(0, 1))
    path = tmp_path / INDEX_FILE
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(StudioError, match=r"line 1 of .*pairs\.jsonl cannot be read"):
        EncodedPairs(tmp_path)


def test_a_limit_takes_the_first_pairs_and_what_was_read_for_them(tmp_path: Path) -> None:
    encoded = EncodedPairs(tmp_path)
    for numbers in ((0, 1, 2), (3, 4), (5, 6)):
        encoded.append(batch(*numbers))
    assert list(encoded.load_table(3).files) == [pair(number).files for number in range(3)]
    assert encoded.counts_up_to(3).rows == 4
    assert encoded.counts_up_to(None) == encoded.counts


def test_a_million_pairs_take_96_bytes_each_and_a_prompt_is_held_once(tmp_path: Path) -> None:
    encoded = EncodedPairs(tmp_path)
    encoded.append(batch(*range(300)))
    table = encoded.load_table()
    assert len({id(prompt) for prompt in table.prompts}) == 3
    packed = PackedFiles(bytes(96 * 1000))
    assert len(packed) == 1000
    assert packed[-1] == PairFiles("00" * 32, "00" * 32, "00" * 32)
    assert len(packed[10:20]) == 10
    with pytest.raises(IndexError):
        packed[1000]
    assert list(table.files.select([5, 1])) == [pair(5).files, pair(1).files]
