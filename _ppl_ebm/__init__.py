"""What both packages share and neither backend is needed for; private, and without promises to anybody else."""
