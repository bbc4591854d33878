"""MLflow's own pages over the store: the server, the charts it opens with, and pictures of single runs."""
