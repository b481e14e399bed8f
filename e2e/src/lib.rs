//! Harness for black-box tests: runs kubectl and the built binaries, never the libraries.
