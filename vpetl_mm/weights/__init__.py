"""Pre-trained files of other people: read, named as the hosts name them, and kept with a record of where from."""
