"""What only training needs; none of it ships."""
