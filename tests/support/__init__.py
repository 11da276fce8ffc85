"""What several test modules share: tiny datasets, and the ways nnU-Net is run on them."""
