"""Controllers that are deployed on the cluster, built upon `tandem.runtime`."""
