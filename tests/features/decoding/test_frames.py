from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from framebank.features.decoding.container import DecodeLimits, open_clip
from framebank.features.decoding.damage import DamageReport, ffmpeg_messages
from framebank.features.decoding.frames import PacketReader, decode_packet, start_decoder
from framebank.features.errors import VideoRejected
from tests.clips.barcode import CLOSED_GOP, write_barcode_clip


def test_packets_and_frames_of_one_clip(tmp_path: Path) -> None:
    made = write_barcode_clip(tmp_path / "a.mp4", ticks=range(0, 800, 40), options=CLOSED_GOP)
    with ffmpeg_messages() as messages, open_clip(str(made.path), DecodeLimits()) as clip:
        report = DamageReport(clip, messages)
        reader = PacketReader(clip, report)
        start_decoder(clip, 1, report)
        frames = [len(decode_packet(clip, packet, report)) for packet in reader]
        frames.append(len(decode_packet(clip, None, report)))
        assert (len(frames), sum(frames)) == (21, 20)
        assert reader.last_end_s is not None
        assert abs(reader.last_end_s - made.end) <= Fraction(1, 10)
        assert not report.damaged
        assert decode_packet(clip, None, report) == []  # draining again gives nothing, no error
        assert not report.damaged


def test_a_frame_over_the_limit_is_refused(tmp_path: Path) -> None:
    made = write_barcode_clip(tmp_path / "a.mp4", ticks=range(0, 200, 40))
    with ffmpeg_messages() as messages, open_clip(str(made.path), DecodeLimits()) as clip:
        report = DamageReport(clip, messages)
        start_decoder(clip, 1, report)
        object.__setattr__(clip, "limits", DecodeLimits(max_pixels=10))
        with pytest.raises(VideoRejected) as caught:
            for packet in [*PacketReader(clip, report), None]:
                decode_packet(clip, packet, report)
    assert caught.value.error_class == "too_large"
