"""An independent look at a result: what is left raw, and what a third party would find."""
