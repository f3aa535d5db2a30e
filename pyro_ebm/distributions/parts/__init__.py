"""What families are made of: bases, activations, sums over states, quadrature."""
