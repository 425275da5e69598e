"""What ``covey doctor`` looks at, and what it advises."""
