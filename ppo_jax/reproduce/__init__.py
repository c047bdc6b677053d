"""Published results next to measured ones: specs as data, what is missing is run, and a verdict."""
