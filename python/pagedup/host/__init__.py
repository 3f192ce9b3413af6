"""A simulated host: guests, sharing, balloon, compression and swap, states, cost and time."""
