"""The networks as torch modules, written for clarity and for export."""
