"""From a YAML file to what a run is made of: read it, validate all of it, then build it once."""
