"""The verbs of Hopgate, written against the ports only."""
