"""What members say to each other, and what is known of each of them."""
