"""The election: pure core, record, guard and store. Public names are those of `tandem.runtime`."""
