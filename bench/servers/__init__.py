"""What Hopgate is measured against."""
