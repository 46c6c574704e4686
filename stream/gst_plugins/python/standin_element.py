"""Where GStreamer's Python loader finds the element: it reads every file of a folder `python` on its plugin path."""

from stream.gst_element import __gstelementfactory__

__all__ = ["__gstelementfactory__"]
