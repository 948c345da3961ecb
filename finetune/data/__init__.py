"""Training rows: files, data sets, corpora of packages; split so that no row is in two parts."""
