from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import pytest

from framebank.features.decoding import structure
from tests.clips.barcode import write_barcode_clip


class Bytes:
    """A file in memory, with what the walks need."""

    def __init__(self, content: bytes) -> None:
        self.content, self.reads = content, 0

    def peek(self, offset: int, most: int) -> bytes:
        self.reads += 1
        return self.content[offset : offset + most]


def box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (box(b"ftyp", b"isom") + box(b"moov"), ([b"ftyp", b"moov"], True)),
        (box(b"ftyp") + box(b"mdat", bytes(100))[:50], ([b"ftyp", b"mdat"], False)),
        (box(b"ftyp") + struct.pack(">I4s", 0, b"mdat") + bytes(9), ([b"ftyp", b"mdat"], True)),
        (
            box(b"ftyp") + struct.pack(">I4sQ", 1, b"mdat", 20) + bytes(4) + box(b"moov"),
            ([b"ftyp", b"mdat", b"moov"], True),
        ),
        (box(b"ftyp") + struct.pack(">I4s", 3, b"bad!"), ([b"ftyp", b"bad!"], False)),
        (b"RIFF1234AVI LIST", ([], False)),
        (b"", ([], True)),
    ],
)
def test_mp4_boxes(content: bytes, expected: tuple[list[bytes], bool]) -> None:
    assert structure.mp4_boxes(Bytes(content).peek, len(content)) == expected


def test_a_gif_is_cut_at_any_byte_but_its_last(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    write_barcode_clip(
        path,
        ticks=range(0, 12, 4),
        time_base=Fraction(1, 100),
        last_ticks=4,
        codec="gif",
        pix_fmt="rgb8",
        options={},
        size=(24, 16),
    )
    content = path.read_bytes()
    assert not structure.gif_is_cut(Bytes(content).peek, len(content))
    longer = content + b"trailing bytes"
    assert not structure.gif_is_cut(Bytes(longer).peek, len(longer))
    for length in range(13, len(content)):
        assert structure.gif_is_cut(Bytes(content[:length]).peek, length), length


def test_a_matroska_file_says_how_long_it_is(tmp_path: Path) -> None:
    path = write_barcode_clip(tmp_path / "a.mkv", ticks=range(0, 400, 40)).path
    content = path.read_bytes()
    for length in (len(content), len(content) - 1, len(content) // 2):
        assert structure.stated_size(Bytes(content[:length]).peek, length) == len(content)
    live = tmp_path / "live.mkv"
    write_barcode_clip(live, ticks=range(0, 400, 40), muxing={"live": "1"})
    content = live.read_bytes()
    assert structure.stated_size(Bytes(content).peek, len(content)) is None


def test_an_avi_says_how_long_it_is() -> None:
    content = b"RIFF" + struct.pack("<I", 100) + b"AVI " + bytes(96)
    assert structure.stated_size(Bytes(content).peek, len(content)) == 108
    assert structure.stated_size(Bytes(b"\0" * 100).peek, 100) is None


@pytest.mark.parametrize("annex_b", [False, True])
def test_an_av1_stream_is_cut_at_any_byte_within_a_unit(annex_b: bool) -> None:
    head = b"" if annex_b else b"\x12\x00"
    long = bytes([*(b"" if annex_b else b"\x32"), 0x90, 0x03]) + bytes(400)  # 400 in LEB128
    short = bytes([*(b"" if annex_b else b"\x36\x08"), 5]) + bytes(5)
    ends = {0}
    content = b""
    for unit in (head, long, short, head, long):
        content += unit
        ends.add(len(content))
    for length in range(len(content) + 1):
        walked = Bytes(content[:length]).peek
        cut = structure.ends_amid_a_packet("av1" if annex_b else "obu", walked, length)
        assert cut is (length not in ends), length


def ebml(kind: int, content: bytes) -> bytes:
    name = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    return name + struct.pack(">Q", len(content) | 1 << 56) + content


@pytest.mark.parametrize("locked", [True, False])
def test_an_encrypted_matroska_track(locked: bool) -> None:
    encoding = ebml(0x6240, ebml(0x5035 if locked else 0x5034, b"\x01"))
    sound = ebml(0xAE, ebml(0x83, b"\x02") + ebml(0x6D80, ebml(0x6240, ebml(0x5035, b""))))
    pictures = ebml(0xAE, ebml(0x83, b"\x01") + ebml(0x6D80, encoding))
    segment = ebml(0xEC, bytes(50)) + ebml(0x1654AE6B, sound + pictures)
    file = Bytes(ebml(0x1A45DFA3, b"head") + ebml(0x18538067, segment))
    assert structure.matroska_locked(file.peek, len(file.content)) is locked
    assert file.reads < 40


def test_walks_end_on_any_bytes() -> None:
    for seed in range(200):
        content = bytes((seed * 7 + n * n * 31 + n * seed) % 256 for n in range(300))
        for start in (b"", b"GIF89a", b"\x1a\x45\xdf\xa3", b"\0\0\0\x08ftyp"):
            file = Bytes(start + content)
            size = len(file.content)
            structure.gif_is_cut(file.peek, size)
            structure.matroska_locked(file.peek, size)
            structure.stated_size(file.peek, size)
            structure.mp4_boxes(file.peek, size)
