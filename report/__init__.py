"""Shows runs: the page of one, the comparison of several, their figures and pictures."""
