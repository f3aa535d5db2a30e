"""The ground floor: Markov transitions, samplers and what they need, for anything that has a log-density."""
