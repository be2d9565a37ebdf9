"""SPT: measures which parameters matter to a task, and tunes the most sensitive ones under a budget."""
