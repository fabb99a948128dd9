"""The engine (`engine`), one for whoever asks (`live`), and one clip without Beam (`one_clip`)."""
