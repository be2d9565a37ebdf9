"""Pre-trained weights of other projects: read, translated into the hosts' names, saved with their origin."""
