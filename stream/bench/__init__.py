"""`standin bench`: how fast a run is on this machine, measured through the pipeline that runs use."""
