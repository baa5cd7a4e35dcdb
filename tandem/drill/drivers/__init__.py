"""The drivers that come with the package; the machine lab brings its own."""
