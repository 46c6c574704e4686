"""Bring your own detector: a user's ONNX file becomes a bundle whose `detector.onnx` has the project's tensors.

`build.import_detector` is the way in; `forms` knows what published kinds of network give out, `finish` what every
detector gives out at the end.
"""
