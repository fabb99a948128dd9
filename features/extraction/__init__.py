"""The engine (`engine`), and one clip without Beam (`one_clip`)."""
