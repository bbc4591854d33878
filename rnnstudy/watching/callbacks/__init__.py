"""`rnnstudy.watch` in other people's training loops: a file for each library, which only that file imports."""
