"""Where images come from (sources, prepare) and what a step does to them (augment)."""
