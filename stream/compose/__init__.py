"""From regions with masks and surfaces to the anonymized frame: matching, boxes, masks, crops, waves, pasting."""
