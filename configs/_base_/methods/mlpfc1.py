# The MLPs' first layers alone, without the classification layer (Table 1)
petl = dict(train=['mlp.fc1'])
