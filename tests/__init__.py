"""The tests, a package so that the benches can import the shapes from it."""
