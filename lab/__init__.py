"""The machine lab: four User Mode Linux machines on one host, with power, cables and disks that a test may break.

`python -m lab --help` lists the verbs. `lab.runtime` runs the machines, `lab.build` makes what they boot from.
Nothing in the `tandem` package needs this one; it is the test bed.
"""
