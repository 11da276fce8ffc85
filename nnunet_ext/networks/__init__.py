"""Networks beyond a single U-Net, built around the ones that plans describe."""
