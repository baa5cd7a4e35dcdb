"""The auditor: keeps the availability checklist's verdict on every namespace, in the cluster, up to date."""
