"""How the tasks' losses are weighed against each other."""
