"""Networks: Linen modules that know no loss and no sampling, and the convolution they share."""
