"""SPT: which parameters matter to a task, and what is tuned there under a budget."""
