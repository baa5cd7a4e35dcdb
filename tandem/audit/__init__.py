"""`tandem audit`: the availability checklist against a live cluster, rendered files or standard input."""
